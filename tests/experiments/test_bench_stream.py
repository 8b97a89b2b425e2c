"""The bench of the stream: its figures on made-up orders, and a small run in this process."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

BENCH = Path(__file__).resolve().parents[2] / "experiments" / "bench"
MODULES = (
    "contender",
    "environments",
    "interleave",
    "ours",
    "plain",
    "plain_lightning",
    "quality",
    "rows",
    "stream",
)


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts of the folder, which import each other by bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        yield SimpleNamespace(**{name: import_module(name) for name in MODULES})
    for name in MODULES:
        sys.modules.pop(name, None)


def order(*slots: tuple[int, int]) -> np.ndarray:
    return np.array(slots, dtype=np.int64).reshape(-1, 2)


def flagged(flags: str) -> np.ndarray:
    """One row for each letter, numbered by place; T is a task row."""
    return order(*((int(flag == "T"), place) for place, flag in enumerate(flags)))


def test_positions_and_gap_of_a_short_epoch_are_those_counted_by_hand(bench: Any) -> None:
    quality = bench.quality.shuffle_quality(flagged("ggTgggTg"))
    assert (quality["first"], quality["last"], quality["gap"]) == (2 / 8, 6 / 8, 3)
    assert quality["gap_expected"] == pytest.approx(6 / 3 * (1 + 1 / 2 + 1 / 3))


@pytest.mark.parametrize(("flags", "gap"), [("ggggT", 4), ("Tgggg", 4), ("TTTT", 0)])
def test_the_ends_of_the_epoch_count_as_gaps(bench: Any, flags: str, gap: int) -> None:
    assert bench.quality.shuffle_quality(flagged(flags))["gap"] == gap


def test_an_epoch_without_task_rows_has_no_quality(bench: Any) -> None:
    assert set(bench.quality.shuffle_quality(flagged("ggg")).values()) == {None}


def test_the_expected_gap_is_the_mean_over_random_orders(bench: Any) -> None:
    rng = np.random.default_rng(0)
    epoch = flagged("T" * 30 + "g" * 2970)
    gaps = [bench.quality.shuffle_quality(rng.permutation(epoch))["gap"] for _ in range(300)]
    assert bench.quality.expected_gap(2970, 30) == pytest.approx(np.mean(gaps), rel=0.05)


@pytest.mark.parametrize(("flags", "z"), [("TTTTgggg", -2.2913), ("TgTgTgTg", 2.2913)])
def test_the_runs_statistic_is_that_worked_out_by_hand(bench: Any, flags: str, z: float) -> None:
    # 4 and 4 of 8: 5 runs expected, variance 32 * 24 / (64 * 7) = 12 / 7; here are 2 and 8.
    assert bench.quality.runs_z(flagged(flags)[:, 0] == 1) == pytest.approx(z, abs=1e-4)


@pytest.mark.parametrize(("size", "ones"), [(7, 3), (8, 4), (9, 2)])
def test_over_all_orders_the_runs_statistic_has_mean_zero_and_variance_one(
    bench: Any, size: int, ones: int
) -> None:
    found = []
    for chosen in combinations(range(size), ones):
        flags = np.zeros(size, dtype=bool)
        flags[list(chosen)] = True
        found.append(bench.quality.runs_z(flags))
    assert np.mean(found) == pytest.approx(0, abs=1e-12)
    assert np.var(found) == pytest.approx(1)


def test_rows_in_the_order_of_their_file_are_told_from_shuffled_ones(bench: Any) -> None:
    rows = np.arange(5000)
    assert bench.quality.lag_1(rows) == pytest.approx(1)
    assert abs(bench.quality.lag_1(np.random.default_rng(0).permutation(rows))) < 0.05


def test_a_broken_resume_is_charged_with_each_row_lost_and_repeated(bench: Any) -> None:
    epoch = order((0, 0), (0, 1), (1, 0), (0, 2), (0, 3), (1, 0))
    exact = {"lost": 0, "repeated": 0, "same_order": True}
    assert bench.quality.compare_resume(epoch, 2, epoch[2:]) == exact
    swapped = bench.quality.compare_resume(epoch, 2, epoch[:1:-1])
    assert swapped == {**exact, "same_order": False}
    # (0, 2) and the second use of (1, 0) never come; (0, 1) was trained before the stop.
    broken = order((0, 1), (1, 0), (0, 3))
    assert bench.quality.compare_resume(epoch, 2, broken) == {
        "lost": 2,
        "repeated": 1,
        "same_order": False,
    }
    nothing = bench.quality.compare_resume(epoch, 2, order())
    assert nothing == {"lost": 4, "repeated": 0, "same_order": False}


def test_an_epoch_is_counted_by_source(bench: Any) -> None:
    epoch = order((0, 0), (0, 0), (0, 3), (1, 1), (1, 1), (1, 0))
    assert bench.quality.coverage(epoch, 4, 2) == {
        "rows": 6,
        "task": 3,
        "task_uses": [1, 2],
        "general_missing": 2,
        "general_repeated": 1,
    }


@pytest.mark.long  # twenty seconds of processes
def test_a_small_run_finds_ours_exact_and_the_buffer_not(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def in_this_process(command: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", command[1:])
        bench.contender.main()

    def absent(name: str, needs: Any) -> str:
        if name == "nodes":
            raise bench.stream.ContenderError("no network")
        return sys.executable

    monkeypatch.setattr(bench.stream, "call", in_this_process)
    monkeypatch.setattr(bench.stream, "interpreter", absent)
    names = ["ours", "interleave", "plain", "plain_lightning", "nodes"]
    bench.stream.main(
        ["--rows=1984", "--task-rows=16", f"--peers={','.join(names)}", f"--out={tmp_path}"]
    )
    results = json.loads((tmp_path / "stream.json").read_text(encoding="utf-8"))
    assert results["arguments"]["passes"] == 1
    ran = results["contenders"]
    assert list(ran) == names
    assert ran["nodes"]["failed"] == "no network"

    exact = {"lost": 0, "repeated": 0, "same_order": True}
    for name in ("ours", "plain"):
        assert list(ran[name]["resumes"]) == ["10", "50", "90"]
        for resume in ran[name]["resumes"].values():
            assert {key: resume[key] for key in exact} == exact
        for epoch in [*ran[name]["epochs"], ran[name]["workers"]]:
            assert (epoch["rows"], epoch["task"], epoch["task_uses"]) == (2000, 16, [1, 1])
            assert (epoch["general_missing"], epoch["general_repeated"]) == (0, 0)
            assert abs(epoch["quality"]["runs_z"]) < 4
            assert abs(epoch["quality"]["lag_1"]) < 0.1
            assert epoch["rows_per_second"] > 0
            assert epoch["anonymous_peak"] > 0
    # At 10 % the buffer stands still in its first filling, from which it can start again.
    for share in ("50", "90"):
        assert ran["interleave"]["resumes"][share]["lost"] > 0
        assert not ran["interleave"]["resumes"][share]["same_order"]
    # At 90 % all rows left were in the buffer, and the resume starts at the end.
    assert ran["interleave"]["resumes"]["90"]["seconds"] is None
    lost = [resume["lost"] for resume in ran["plain_lightning"]["resumes"].values()]
    assert lost == [12 * 16, 62 * 16, 13 * 16]
    shown = capsys.readouterr().out
    assert "| ours | 0 / 0 / 0 | 0 / 0 / 0 | yes / yes / yes | 16 |" in shown
    assert "torchdata weighted nodes: failed, no network" in shown


@pytest.mark.filterwarnings("ignore")  # Lightning warns of just what is shown here
def test_lightning_resumes_a_plain_loader_as_the_bench_says(bench: Any, tmp_path: Path) -> None:
    class Listener(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[int] = []

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.seen += batch[0][:, 1].tolist()
            return self.layer(batch[0][:, :1].float()).mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    bench.rows.write_rows(tmp_path, 112, 16, 0)
    bench.ours.write(tmp_path)
    job = bench.rows.Job(tmp_path, 112, 16, 1, 0, 0)

    def fit(checkpoint: str | None) -> list[int]:
        listener = Listener()
        saving = ModelCheckpoint(
            dirpath=tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1
        )
        trainer = lightning.Trainer(
            max_epochs=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
            callbacks=[saving],
        )
        trainer.fit(listener, bench.plain.Feed(job).loader, ckpt_path=checkpoint)
        return listener.seen

    whole = fit(None)
    resumed = fit(str(tmp_path / "step=3.ckpt"))
    feed = bench.plain_lightning.Feed(job)
    feed.load({"batches": 3})
    assert [row for batch in feed for row in batch[0][:, 1].tolist()] == resumed
    assert len(whole) == 128
    assert resumed == whole[: 5 * 16]
