"""`plan --measure`: what a run will take, by the code that trains and scores it."""

from pathlib import Path
from typing import Any

import pytest
from messages import says
from tiny_runs import Fits, command
from tiny_world import World, make_world

from tell_lightning.cli import main
from tell_lightning.commands import price as pricing
from tell_lightning.commands.check import Config, check
from tell_lightning.commands.measure import main as run_measure
from tell_lightning.commands.measure import measure
from tell_lightning.commands.price import hand_over, price, print_price
from tell_lightning.commands.room import MemoryRanOutError
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.errors import TellError
from tell_lightning.model import module

PACKED = ("--data.packing=true", "--data.max_tokens=128")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(autouse=True)
def _no_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")


def opened(config: Config) -> PreparedData:
    data = PreparedData(config.data, load_tokenizer(config.model.base), seed=config.seed)
    data.prepare()
    data.open()
    return data


def lengths(data: PreparedData, units: int) -> list[int]:
    """The tokens of each unit of a run."""
    return [
        sum(int(data.lengths[source].tokens[row]) for _, source, row in slots)
        for slots in data.units.at(range(units))
    ]


def check_by_construction(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure, and compare the counts with those of the plan."""
    rates, data = measure(config), opened(config)
    found = price(rates, data, config)
    batch, steps = config.data.optimizer_batch, config.trainer["max_steps"]
    units = lengths(data, batch * steps)
    assert found["training"]["steps"] == steps
    assert found["training"]["tokens"] == sum(units)
    assert rates["longest"] == {"rows": rates["micro_batch"], "tokens": max(units)}
    assert batch * min(units) <= rates["tokens_per_step"] <= batch * max(units)
    world = rates["devices"]
    assert rates["micro_batch"] * rates["accumulation"] * world == batch
    speed = rates["tokens_per_step"] / rates["seconds_per_step"]
    assert rates["tokens_per_second"] == pytest.approx(speed)
    assert found["training"]["seconds"] == pytest.approx(sum(units) / speed)
    memory = rates["memory"]
    assert 0 < memory["before"] <= memory["training"]
    assert memory["scoring"] > 0
    assert memory["before"] < memory["available"]
    return rates, found


def test_counts_are_those_of_the_plan_and_of_what_fit_writes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = check_by_construction(check([*world.overlay]))
    assert [*found["scoring"]["parts"]] == ["before", "dev", "after", "anchor off"]
    assert found["scoring"]["dev"] == 2
    run = Fits(world)()
    files = {
        "checkpoints": (run.folder / "checkpoints").glob("*.ckpt"),
        "adapter": (run.folder / "adapter").iterdir(),
        "predictions": (run.folder / "predictions").iterdir(),
    }
    for name, paths in files.items():
        size = sum(path.stat().st_size for path in paths)
        assert found["disk"]["parts"][name] == pytest.approx(size, rel=0.2)

    capsys.readouterr()
    print_price(found)
    first, *lines, last = capsys.readouterr().out.strip().splitlines()
    assert "2 rows in a micro-batch" in first
    assert [line.split()[0] for line in lines] == ["training", "scoring", "memory", "disk"]
    assert len({line.index("   ", 10) for line in lines}) == 1  # aligned
    assert "4 steps of" in lines[0]
    assert "compile" not in lines[0]
    assert "dev 2 x " in lines[1]
    assert f"2 rows of {found['longest']['tokens']} tokens" in lines[2]
    assert "set-up" in last
    print_price({**found, "compiling_seconds": 90.0})
    assert "and 1.5 min to compile" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(PACKED, marks=pytest.mark.long),
        pytest.param(("--data.mixture.arm=sft", "--eval.before=false"), marks=pytest.mark.long),
        pytest.param(("--trainer.devices=2", "--data.micro_batch=1"), marks=pytest.mark.long),
        pytest.param(
            ("--data.micro_batch=auto", "--eval.test=false", "--eval.before=false", *PACKED),
            marks=pytest.mark.long,
        ),
    ],
)
def test_every_layout_is_measured(world: World, options: tuple[str, ...]) -> None:
    check_by_construction(check([*world.overlay, *options]))


def test_without_anything_to_score_scoring_takes_nothing(world: World) -> None:
    config = check([*world.overlay, "--eval.test=false", "--eval.before=false"])
    data = opened(config)
    data.evaluation["dev"].clear()
    rates = {
        "devices": 1,
        "tokens_per_second": 10.0,
        "compiling_seconds": 7.0,
        "seconds_per_row": {},
        "seconds_per_loss_token": 1.0,
        "seconds_of_chat": 0.0,
        "bytes": {"checkpoint": 100, "adapter": 10, "prediction": 1.0},
    }
    found = price(rates, data, config)
    assert found["scoring"] == {"seconds": 0, "parts": {}, "dev": 0}
    assert found["training"]["seconds"] == pytest.approx(found["training"]["tokens"] / 10 + 7)
    assert found["disk"]["parts"] == {"checkpoints": 100, "adapter": 10, "predictions": 0}


def test_what_cannot_be_measured_is_refused(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sharded = check([*world.overlay, "--trainer.strategy=fsdp2"])
    with pytest.raises(TellError, check=says("--measure", got="trainer.strategy: fsdp2")):
        measure(sharded)
    with pytest.raises(SystemExit) as exit_:
        run_measure(hand_over(sharded, tmp_path))
    assert exit_.value.code == 2
    assert "error: --measure: " in capsys.readouterr().err

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module, "token_losses", no_memory)
    with pytest.raises(MemoryRanOutError, check=says("training", cure="data.micro_batch (now 2)")):
        measure(check([*world.overlay]))


def test_a_measuring_process_that_is_killed_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed:
        returncode = -9

    monkeypatch.setattr(pricing.subprocess, "run", lambda *_, **__: Killed())
    cure = ["data.micro_batch", "data.max_tokens"]
    with pytest.raises(TellError, check=says("--measure", got="a process that", cure=cure)):
        pricing.measured(check([]))


def test_it_goes_with_nothing_that_shows_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "--measure", "--show", "3"])
    error = capsys.readouterr().err.strip().removeprefix("error: ")
    assert error == says("--show", rule="--measure", got="both")


@pytest.mark.long
def test_the_command_prints_it_under_the_plan(world: World, tmp_path: Path) -> None:
    done = command(["plan", *world.overlay, "--measure"], home=tmp_path)
    assert done.returncode == 0, done.stderr
    plan, _, measured = done.stdout.partition("\nMeasured on ")
    assert "Task share" in plan
    assert len(measured.splitlines()) == 6
    assert "Traceback" not in done.stderr
