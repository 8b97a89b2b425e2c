"""What no run can do is refused before anything is read."""

from pathlib import Path

import pytest
from messages import says

from tell_lightning.commands.check import BOUNDS, check, check_training, neutral
from tell_lightning.settings import ConfigError


def refused(*options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(list(options))
    return str(caught.value)


@pytest.mark.parametrize("steps", ["null", "-1"])
def test_cycles_end_a_run_that_has_no_steps(steps: str) -> None:
    config = check(["--data.mixture.cycles=2", f"--trainer.max_steps={steps}"])
    assert config.data.mixture.cycles == 2
    assert config.trainer["max_steps"] == -1


def test_a_saved_configuration_keeps_the_end(tmp_path: Path) -> None:
    config = check(["--data.mixture.cycles=0.5", "--trainer.max_steps=null"])
    saved = tmp_path / "config.yaml"
    saved.write_text(config.to_yaml())
    assert check(["-c", str(saved)]) == config
    longer = check(["-c", str(saved), "--data.mixture.cycles=1"])
    assert longer.data.mixture.cycles == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--trainer.max_steps=null"],
        ["--trainer.max_steps=-1"],
        ["-c", "mine.yaml", "--model.base=b"],
    ],
)
def test_a_training_without_an_end_is_refused(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("run: {name: x}\n")
    with pytest.raises(ConfigError) as caught:
        check_training(check(options))
    assert str(caught.value) == says(
        "trainer.max_steps", got="nothing", cure=["--trainer.max_steps=", "--data.mixture.cycles="]
    )
    check_training(check([*options, "--data.mixture.cycles=1"]))


def test_no_steps_are_refused() -> None:
    assert refused("--trainer.max_steps=0") == says(
        "trainer.max_steps", rule="1", got="0", cure="data.mixture.cycles"
    )


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ([], "250"),
        (["--trainer.max_steps=5"], "5"),
        (["--trainer.max_steps=0"], "0"),
    ],
)
def test_two_ends_are_refused(options: list[str], got: str) -> None:
    assert refused("--data.mixture.cycles=2", *options) == says(
        "trainer.max_steps",
        rule=["null", "data.mixture.cycles", "2"],
        got=got,
        cure=["--trainer.max_steps=null", "--data.mixture.cycles=null"],
    )


@pytest.mark.parametrize(
    ("key", "least"),
    [(f"{section}.{key}", n) for section, least in BOUNDS.items() for key, n in least.items()],
)
def test_numbers_below_the_least_are_refused(key: str, least: int) -> None:
    assert refused(f"--{key}={least - 1}") == says(key, rule=f"{least}", got=f"{least - 1}")


def test_the_least_numbers_are_accepted() -> None:
    options = [
        f"--{section}.{key}={n}" for section, each in BOUNDS.items() for key, n in each.items()
    ]
    values = check(options).values
    for section, least in BOUNDS.items():
        assert least.items() <= values[section].items()


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("limit_train_batches=0.5", "trainer.max_steps"),
        ("num_sanity_val_steps=2", ""),
        ("use_distributed_sampler=true", ""),
        ("enable_checkpointing=false", "run.checkpoint_every_steps"),
        ("enable_progress_bar=true", ""),
        ("barebones=true", ""),
        ("enable_model_summary=true", ""),
    ],
)
def test_trainer_options_that_a_run_would_ignore_are_refused(option: str, instead: str) -> None:
    key, _, value = option.partition("=")
    value = {"true": "True", "false": "False"}.get(value, value)
    assert refused(f"--trainer.{option}") == says(f"trainer.{key}", got=value, cure=instead)


# Where the values come from


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {root: /data}\nmodel: {base: mine}\n")
    return path


def test_a_file_of_ones_own_takes_nothing_from_the_demo(mine: Path) -> None:
    found = check(["-c", str(mine)]).values
    wanted = neutral()
    wanted["data"]["root"] = "/data"
    wanted["model"]["base"] = "mine"
    wanted["trainer"]["max_steps"] = -1
    assert found == wanted
    demo = check([]).values
    assert demo["data"]["mixture"]["task_examples"] == 50
    assert found["data"]["mixture"]["task_examples"] is None
    assert found["run"]["name"] != demo["run"]["name"]


def test_a_file_must_name_its_base(mine: Path) -> None:
    mine.write_text("data: {root: /data}\n")
    assert refused("-c", str(mine)) == says("model.base", got="nothing", cure="--model.base=")


def test_the_demo_is_a_configuration_like_any_other(mine: Path) -> None:
    assert check(["-c", "microworld"]) == check([])
    assert check(["--run.name=x"]).run.name == "x"
    built = check(["-c", "microworld", "-c", str(mine)])
    assert built.data.mixture == check([]).data.mixture
    assert built.data.root == "/data"
    assert built.model.base == "mine"
    changed = check(["-c", str(mine), "--config=microworld"])
    assert changed.values == check([]).values


def test_a_file_may_say_what_it_extends(mine: Path) -> None:
    plain = check(["-c", "microworld", "-c", str(mine), "--run.name=x"]).values
    mine.write_text(mine.read_text() + "extends: microworld\n")
    assert check(["-c", str(mine), "--run.name=x"]).values == plain
    other = mine.with_name("other.yaml")
    other.write_text("run: {name: x}\n")
    assert check(["-c", str(other), "-c", str(mine)]).values == plain
    mine.write_text(mine.read_text().replace(": microworld", ": micro"))
    assert refused("-c", str(mine)) == says("mine.yaml: extends", rule="microworld", got="micro")


def test_tasks_of_a_later_file_replace_those_of_a_shipped_one(mine: Path) -> None:
    mine.write_text("extends: microworld\ndata: {tasks: {own: {train: a.jsonl}}}\n")
    data = check(["-c", str(mine)]).data
    assert set(data.tasks) == {"own"}
    assert set(data.general) == {"instructions"}


def test_a_saved_configuration_needs_no_other(tmp_path: Path) -> None:
    """Also where a default of ours was switched off."""
    saved = tmp_path / "config.yaml"
    made = check(["--trainer.gradient_clip_val=null"])
    saved.write_text(made.to_yaml())
    assert check(["-c", str(saved)]) == made
