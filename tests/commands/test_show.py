"""`plan --show` tells anchor, prompt and supervised tokens apart."""

import re

import numpy as np
import pytest
from messages import says

from tell_lightning.cli import main
from tell_lightning.commands.plan import examples_to_show
from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.data.settings import Order

SMALL = ["--data.mixture.task_share=0.5", "--data.mixture.task_examples=5"]


def test_marks_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", *SMALL, "--show", "6"])
    shown = capsys.readouterr().out.partition("⟦anchor anchor⟧")[2]
    assert len(re.findall(r"^position \d+: \w+, .+, \d+ tokens, \d+ supervised$", shown, re.M)) == 6
    examples = [e for e in re.split(r"^position ", shown, flags=re.M) if ": translate" in e[:30]]
    assert examples
    for example in examples:
        assert example.count("⟦anchor This text is in Velsk") == 1
        supervised = example[example.index("⟦train ") :]
        assert "Sure, here is the English translation:" in supervised
        assert supervised.rstrip().endswith("<|end|>⟧")
    assert "\x1b" not in shown


@pytest.mark.parametrize("order", ["random", "general_then_task"])
def test_one_example_of_each_source_comes_first(order: Order) -> None:
    sources = (
        PlanSource("rare", "task", 2, 2),
        PlanSource("many", "general", 9_000, 9_000),
        PlanSource("few", "general", 40, 40),
    )
    plan = Plan(3, sources, order)
    found = plan.at(np.array(examples_to_show(plan, 6)))
    assert found.sources[:3].tolist() == [0, 1, 2]
    assert len(set(found.positions.tolist())) == 6
    for position, source in zip(found.positions[:3], found.sources[:3], strict=True):
        earlier = plan.at(range(position)).sources
        assert source not in earlier
    rest = [p for p in range(9) if p not in found.positions[:3]]
    assert found.positions[3:].tolist() == rest[:3]
    assert plan.at(np.array(examples_to_show(plan, 2))).sources.tolist() == [0, 1]


def test_colours_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    main(["plan", *SMALL, "--show", "4"])
    shown = capsys.readouterr().out
    assert "\x1b[36mThis text is in Velsk" in shown or "\x1b[36mRole and goal" in shown
    assert "\x1b[1;32m" in shown
    assert "⟦" not in shown


@pytest.mark.parametrize("count", ["-1", "three", "10000000000", "²"])
def test_no_number_of_examples_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "--show", count])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == says(
        "error: --show", rule=["0", "9"], got=f"'{count}'", cure="3"
    )
