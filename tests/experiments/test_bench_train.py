"""The bench of training: its tables on made-up results, and a small run of two contenders."""

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig

BENCH = Path(__file__).resolve().parents[2] / "experiments" / "bench"
MODULES = {
    "train": "train",
    "tables": "train_tables",
    "contenders": "train_contenders",
    "environments": "environments",
    "job": "trainers.job",
    "shapes": "trainers.shapes",
}


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The scripts of the folder, which import each other by bare names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCH), *sys.path])
        yield SimpleNamespace(**{name: import_module(path) for name, path in MODULES.items()})
    for name in list(sys.modules):
        if name.partition(".")[0] in {"trainers", *MODULES.values()}:
            sys.modules.pop(name)


def result(seconds: list[float], memory: float, losses: tuple[float, float]) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "tokens": [1000] * len(seconds),
        "first_step_seconds": 7.0,
        "losses": {"1": losses[0], "5": losses[1]},
        "peak_bytes": memory * 2**20,
        "versions": {"torch": "2.13.0"},
    }


def case(**contenders: Any) -> dict[str, Any]:
    job = {"batch": 4, "capacity": 1024, "steps": 5, "warm": 2, "rank": 16}
    return {
        "job": {**job, "bfloat16": False, "checkpointing": False},
        "parameters": 1e9,
        "machine": {"gpus": [], "processor": "a processor"},
        "git": {"commit": "0123456789abcdef"},
        "contenders": contenders,
    }


OURS = result([1.0, 2.0, 1.0], 500, (9.0, 8.0))
BARE = result([0.9, 1.8, 1.0], 400, (9.0, 8.04))
TRL = result([5.0, 8.0, 6.0], 1000, (9.0, 8.0))
SLOW = result([9.0, 9.0, 9.0], 300, (9.0, 8.0))


def cells(block: str, label: str) -> list[str]:
    line = next(each for each in block.splitlines() if each.startswith(f"| {label}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_speeds_are_compared_round_by_round(bench: Any) -> None:
    # Over the bare loop: 0.9, 0.9 and 1; over TRL: 5, 4 and 6.
    ran = case(ours=OURS, bare=BARE, trl_packed=TRL, trl_flat=SLOW, ms_swift={"failed": "no wheel"})
    block = bench.tables.cpu_block({"7M": ran})
    assert cells(block, "ours")[1:6] == ["750", "", "500", "", "7"]
    assert cells(block, "bare loop")[2:5] == ["0.90 (0.90 to 1.00)", "400", "1.25"]
    assert cells(block, "bare loop")[-1] == "+0.50%"
    assert cells(block, "ms-swift")[0].endswith("failed, no wheel")
    assert "Ours over the bare loop: 0.90 (0.90 to 1.00), goal 0.9." in block
    assert "TRL's best (TRL, packed, bin by bin): 5.00 (4.00 to 6.00), goal 4.5" in block
    assert "memory 0.50 of its, goal 0.6" in block
    assert "commit 0123456789" in block


def test_the_loss_of_other_rows_is_not_compared(bench: Any) -> None:
    block = bench.tables.cpu_block({"7M": case(ours=OURS, trl_padded=TRL)})
    assert cells(block, "TRL, padded")[-1] == "other rows"
    assert all(
        "bins" in contender.other_rows
        for contender in bench.contenders.CONTENDERS.values()
        if "padded" in contender.label
    )


def test_a_gpu_is_measured_by_its_matrix_product(bench: Any) -> None:
    product = {**OURS, "tokens": [10**15], "seconds": [100.0]}  # 10 TFLOP/s; ours needs 3
    answers = {"generate_ours": OURS, "generate_plain": {**OURS, "seconds": [2.0, 3.0, 3.0]}}
    ran = case(matmul=product, ours=OURS, trl_packed=TRL, unsloth=SLOW, **answers)
    block = bench.tables.gpu_block({"1.5B": ran})
    assert "Matrix product: 10 TFLOP/s." in block
    assert cells(block, "ours")[2] == "30%"
    assert "Ours: 30% of the matrix product, goal 40%." in block
    assert "over that of TRL, packed, bin by bin: 0.50, goal 0.7" in block
    assert "750 a second" in block
    assert cells(block, "transformers") == ["transformers", "375 a second, 0.49 GiB", "2.00"]
    assert "no GPU was at hand" in bench.tables.gpu_block({})


def test_the_page_holds_the_blocks_of_the_results(bench: Any) -> None:
    page = bench.train.PAGE.read_text(encoding="utf-8")
    results = bench.train.read(bench.train.RESULTS)
    for name, block in bench.tables.blocks(results).items():
        assert bench.train.put(page, name, block) == page, (
            "python experiments/bench/train.py --readme"
        )


def test_names_of_contenders_are_read(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = bench.train.parse(["--contenders=ours,trl"])
    assert given.contenders == ["ours", "trl_packed", "trl_flat", "trl_padded"]
    assert given.out == bench.train.RESULTS
    assert "ms_swift" in bench.train.parse([]).contenders
    assert "unsloth" in bench.train.parse(["--gpu", "--tiny"]).contenders
    with pytest.raises(SystemExit):
        bench.train.parse(["--contenders=ours,nobody"])
    assert "must be of ours" in capsys.readouterr().err
    turned = bench.train.turned
    assert [turned(["a", "b", "c"], step) for step in (1, 2)] == [["b", "c", "a"], ["c", "a", "b"]]


def test_bins_are_one_row_each_or_the_rows_in_them(bench: Any, tmp_path: Path) -> None:
    bins = [[[[5, 6], [-100, 6]], [[7], [-100]]], [[[8, 9], [-100, 9]]]]
    (tmp_path / "bins.jsonl").write_text("".join(json.dumps(each) + "\n" for each in bins))
    job = bench.job.Job(
        **dict.fromkeys(bench.job.Job.__dataclass_fields__, 0) | {"folder": str(tmp_path)}
    )
    packed = {"input_ids": [5, 6, 7], "labels": [-100, 6, -100], "seq_lengths": [2, 1]}
    assert job.packed()[0] == packed
    assert [row["input_ids"] for row in job.unpacked()] == [[5, 6], [7], [8, 9]]
    assert job.rows_of_a_bin() == 2
    assert bench.job.step_tokens(job.unpacked(), 2) == [3, 2]


def test_the_shape_of_a_real_model_has_its_parameters(bench: Any) -> None:
    config = LlamaConfig(**bench.shapes.SHAPES["1.5B"])
    assert bench.shapes.layer_parameters(config) == pytest.approx(1.31e9, rel=0.01)


@pytest.mark.long  # four processes, one after the other
def test_a_small_run_gives_the_losses_of_the_bare_loop(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = bench.contenders.Contender("absent", "nowhere")
    monkeypatch.setitem(bench.contenders.CONTENDERS, "absent", absent)
    out = tmp_path / "results.json"
    bench.train.main(
        ["--tiny", "--rounds=2", "--contenders=ours,absent,bare", f"--out={out}", "--data=/none"]
    )
    ran = json.loads(out.read_text(encoding="utf-8"))["cpu"]["tiny"]["contenders"]
    assert ran["absent"]["failed"] == "ModuleNotFoundError: No module named 'trainers.nowhere'"
    ours, bare = ran["ours"], ran["bare"]
    assert ours["tokens"] == bare["tokens"]
    assert len(ours["seconds"]) == 2
    assert list(ours["losses"]) == ["1", "2", "3"]
    for step, loss in ours["losses"].items():
        assert loss == pytest.approx(bare["losses"][step], rel=0.01 if step != "1" else 1e-5)
    assert ours["losses"]["3"] < ours["losses"]["1"]
    assert "| bare loop |" in capsys.readouterr().out
