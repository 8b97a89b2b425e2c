"""The audit: what was really trained on, by step and rank, held against the plan."""

import json
from collections.abc import Iterator

import pytest
from tiny_runs import Fits, Run, audit, consumed

from tell_lightning.cli import main
from tell_lightning.data.plan import Slot
from tell_lightning.data.stream import MicroBatches

SHORT = ["--eval.test=false", "--eval.every_steps=9", "--eval.dev_rows=1", "--data.audit=true"]
PACKED = ["--data.packing=true", "--data.max_tokens=128", "--data.optimizer_batch=2"]


@pytest.mark.parametrize("options", [[], PACKED], ids=["examples", "bins"])
def test_audit_holds_every_id_and_agrees_with_plan_positions(
    fit: Fits, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(*SHORT, *options, "--trainer.max_steps=5")
    (lines,) = audit(run.folder)
    unit = "bins" if options else "examples"
    assert lines[0] == {"session": {"step": 0, "world": 1, "micro_batch": 2, "unit": unit}}
    assert [line["step"] for line in lines[1:]] == [1, 2, 3, 4, 5]
    slots = {
        (position, source, row)
        for line in lines[1:]
        for position, source, row in zip(
            line["positions"], line["sources"], line["rows"], strict=True
        )
    }
    last = max(slot[0] for slot in slots) + 1
    capsys.readouterr()
    config = ["-c", str(run.folder / "config.yaml")]
    main(["plan", *config, "--positions", f"0:{last}", "--format", "jsonl"])
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = ["turn", "verdict", "writing"]
    planned = {(row["position"], names.index(row["source"]), row["row"]) for row in printed}
    assert slots <= planned
    if not options:
        assert slots == planned
        assert list(consumed(run.folder).values()) == [
            list(range(n, n + 4)) for n in range(0, 20, 4)
        ]


def swapped(self: MicroBatches) -> Iterator[list[list[Slot]]]:
    """Exchange two micro-batches of the third step."""
    batches = list(delivered(self))
    batches[4], batches[6] = batches[6], batches[4]
    yield from batches


def repeated(self: MicroBatches) -> Iterator[list[list[Slot]]]:
    """Deliver a micro-batch twice in place of the next."""
    batches = list(delivered(self))
    yield from [*batches[:5], batches[4], *batches[6:]]


def other_row(self: MicroBatches) -> Iterator[list[list[Slot]]]:
    """Deliver another row at a position."""
    for number, units in enumerate(delivered(self)):
        if number == 4:
            ((position, source, row),) = units[0]
            units = [[(position, source, row ^ 1)], *units[1:]]
        yield units


def shortened(self: MicroBatches) -> Iterator[list[list[Slot]]]:
    """Lose an example."""
    for number, units in enumerate(delivered(self)):
        yield [units[0], []] if number == 4 else units


delivered = MicroBatches.__iter__


@pytest.mark.parametrize("corrupted", [swapped, repeated, other_row, shortened])
def test_audit_notices_a_corrupted_sampler(
    fit: Fits,
    corrupted: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(MicroBatches, "__iter__", corrupted)
    before = set((fit.world.folder / "runs").glob("*"))
    with pytest.raises(SystemExit) as exit_:
        fit(*SHORT, "--trainer.max_steps=4")
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: data.audit: rank 0 must train in step 3 on (")
    assert " got " in error
    assert "please report it" in error
    (folder,) = set((fit.world.folder / "runs").glob("*")) - before
    assert Run(folder).record["status"] == "failed"
    assert [line["step"] for line in audit(folder)[0][1:]] == [
        1,
        2,
        3,
    ]  # what was trained on is kept


def test_without_the_audit_there_is_none(fit: Fits) -> None:
    run = fit(*SHORT, "--data.audit=false", "--trainer.max_steps=1")
    assert not (run.folder / "audit").exists()
