"""What no run can do is refused before anything is read."""

from pathlib import Path

import pytest

from tell_lightning.commands.check import BOUNDS, check
from tell_lightning.settings import ConfigError

STEPS = "trainer.max_steps: must be at least 1, got "
BOTH = "trainer.max_steps: must be null where data.mixture.cycles: 2 says when to stop, got "


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
    ("options", "error"),
    [
        (["--trainer.max_steps=null"], STEPS + "null. "),
        (["--trainer.max_steps=-1"], STEPS + "-1. "),
        (["--trainer.max_steps=0"], STEPS + "0. "),
        (["--data.mixture.cycles=2"], BOTH + "250. "),
        (["--data.mixture.cycles=2", "--trainer.max_steps=5"], BOTH + "5. "),
        (["--data.mixture.cycles=2", "--trainer.max_steps=0"], BOTH + "0. "),
    ],
)
def test_no_end_and_two_ends_are_refused(options: list[str], error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(options)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("key", "least"),
    [(f"{section}.{key}", n) for section, least in BOUNDS.items() for key, n in least.items()],
)
def test_numbers_below_the_least_are_refused(key: str, least: int) -> None:
    with pytest.raises(ConfigError) as caught:
        check([f"--{key}={least - 1}"])
    assert str(caught.value) == f"{key}: must be at least {least}, got {least - 1}. Raise it."
    check([f"--{key}={least}"])


@pytest.mark.parametrize(
    ("option", "instead"),
    [
        ("limit_train_batches=0.5", "Set trainer.max_steps instead."),
        ("num_sanity_val_steps=2", "Leave it out: the base is scored before training."),
        ("use_distributed_sampler=true", "Leave it out: the stream deals its rows out itself."),
        ("enable_checkpointing=false", "Set run.checkpoint_every_steps instead."),
        ("enable_progress_bar=true", "Leave it out: a terminal gets a bar, a file plain lines."),
        ("barebones=true", "Leave it out: a run keeps checkpoints and numbers."),
        ("enable_model_summary=true", "Leave it out: one line says what is trained."),
    ],
)
def test_trainer_options_that_a_run_would_ignore_are_refused(option: str, instead: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check([f"--trainer.{option}"])
    key, _, value = option.partition("=")
    value = {"true": "True", "false": "False"}.get(value, value)
    assert str(caught.value) == (f"trainer.{key}: is decided by other keys, got {value}. {instead}")
