"""Every key of the configuration is explained, on one page and by `help`."""

from pathlib import Path

import pytest
from messages import says

from tell_lightning.cli import main
from tell_lightning.commands.check import check, neutral
from tell_lightning.commands.reference import all_keys, markdown

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    main(["help", *arguments])
    lines = capsys.readouterr().out.splitlines()
    return [line.strip().removeprefix("--") for line in lines if line.startswith("  --")]


def test_the_page_is_what_make_reference_writes() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_every_key_has_a_meaning_and_is_there_once() -> None:
    keys = list(all_keys())
    assert [key.path for key in keys if len(key.meaning) < 10] == []
    assert len({key.path for key in keys}) == len(keys)


def test_every_key_that_the_parser_takes_is_there() -> None:
    task = {"train": {"path": "a"}, "scoring": {"baselines": {"NAME": {"text": "x"}}}}
    general = {"train": "a"}
    made = check([f"--data.tasks={{NAME: {task}}}", f"--data.general={{NAME: {general}}}"])

    def paths(values: object, above: str) -> set[str]:
        if not isinstance(values, dict) or not values:
            return {above}
        return {path for key, value in values.items() for path in paths(value, f"{above}.{key}")}

    given = {
        path for name in ("run", "data", "model", "eval") for path in paths(made.values[name], name)
    }
    assert given <= {key.path for key in all_keys()}
    assert {"data.tasks.NAME.train.path", "data.tasks.NAME.scoring.baselines.NAME.text"} <= given


def test_defaults_on_the_page_are_those_of_an_empty_configuration() -> None:
    mixture = neutral()["data"]["mixture"]
    told = {key.path: key.default for key in all_keys()}
    for key, value in mixture.items():
        assert told[f"data.mixture.{key}"] == {None: "null", False: "false"}.get(value, str(value))
    assert told["model.base"] is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("data.mixture.task_share", ["data.mixture.task_share"]),
        ("data.tasks.halu.anchor.position", ["data.tasks.NAME.anchor.position"]),
        ("gradient_clip_val", ["trainer.gradient_clip_val"]),
        ("scoring.positive", ["data.tasks.NAME.scoring.positive"]),
        (
            "model.optimizer",
            [
                f"model.optimizer.{name}"
                for name in (
                    *("lr", "weight_decay", "betas"),
                    *("warmup_share", "schedule", "final_lr_share"),
                )
            ],
        ),
    ],
)
def test_a_key_is_found_by_its_path_its_end_or_its_section(
    asked: str, found: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shown(capsys, asked) == found


def test_without_a_key_all_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == [key.path for key in all_keys()]


def test_a_wrong_key_is_refused_with_one_that_is_like_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["help", "task_shaer"])
    assert stop.value.code == 2
    error = capsys.readouterr().err.removeprefix("error: ")
    assert error == says("help", rule="KEY", got="'task_shaer'", cure="'task_share'")


def test_help_of_a_command_lists_what_is_below_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    assert "--data.tasks.NAME.scoring.label_key" in capsys.readouterr().out
