"""What no run can do is refused before anything is read."""

from pathlib import Path

import pytest
from messages import says

from tell_lightning.commands.check import BOUNDS, check
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
    ("options", "got"),
    [
        (["--trainer.max_steps=null"], "null"),
        (["--trainer.max_steps=-1"], "-1"),
        (["--trainer.max_steps=0"], "0"),
    ],
)
def test_no_end_is_refused(options: list[str], got: str) -> None:
    cure = "data.mixture.cycles"
    assert refused(*options) == says("trainer.max_steps", rule="1", got=got, cure=cure)


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


@pytest.mark.parametrize(
    ("text", "key", "got"),
    [
        ("data:\n# tasks: {}\n", "data", "nothing"),
        ("trainer: null", "trainer", "nothing"),
        ("model: {lora: [r]}", "model.lora", "['r']"),
        ("model: {optimizer: !!binary YWI=}", "model.optimizer", "b'ab'"),
        ("eval: 3", "eval", "3"),
        ("data: {general: }", "data.general", "nothing"),
        ("data: {tasks: [a]}", "data.tasks", "['a']"),
    ],
)
def test_a_group_of_keys_that_holds_another_value_is_refused(
    tmp_path: Path, text: str, key: str, got: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    said = says(f"{path}: {key}", rule="mapping", got=got, cure=["KEY: VALUE", "remove"])
    assert refused("-c", str(path)) == said


@pytest.mark.parametrize(
    ("option", "got"),
    [("--data=null", "null"), ("--model.lora=x", "x"), ("--data.mixture=3", "3")],
)
def test_a_typed_group_needs_keys(option: str, got: str) -> None:
    key = option.removeprefix("--").partition("=")[0]
    assert refused(option) == says(key, rule="mapping", got=got, cure="KEY: VALUE")


@pytest.mark.parametrize("value", ["a\0b", "caf\udce9"])
def test_a_text_that_no_file_can_be_named_by_is_refused(value: str) -> None:
    said = says("data.cache_dir", rule=["Unicode", "null"], got=repr(value))
    assert refused(f"--data.cache_dir={value}") == said
