"""Which settings differ from the default."""

import yaml

from tell_lightning.commands.check import check, neutral
from tell_lightning.report.configuration import changed_settings


def test_only_what_differs_is_listed_with_the_default_beside_it():
    defaults = {"model": {"lora": {"rank": 16, "dropout": 0.05}}, "seed": 42, "old": 1}
    config = {"model": {"lora": {"rank": 4, "dropout": 0.05}}, "seed": 42, "new": None}
    assert changed_settings(config, defaults) == [
        ("model.lora.rank", "4", "16"),
        ("new", "null", "—"),
    ]


def test_a_configuration_without_keys_differs_in_its_base_alone():
    config = check(["--model.base=b", "--trainer.max_steps=9"], default=None)
    assert changed_settings(yaml.safe_load(config.to_yaml()), neutral()) == [
        ("model.base", "b", "null"),
        ("trainer.max_steps", "9", "—"),
    ]


def test_a_task_of_ones_own_is_held_against_the_defaults_of_its_class(tmp_path):
    overlay = tmp_path / "mine.yaml"
    task = {"train": "a.jsonl", "anchor": {"text": "Do it."}, "overlong": "error"}
    overlay.write_text(
        yaml.safe_dump({"data": {"tasks": {"mine": task}}, "model": {"base": "b"}}),
        encoding="utf-8",
    )
    config = yaml.safe_load(check(["-c", str(overlay)]).to_yaml())
    assert set(changed_settings(config, neutral())) == {
        ("model.base", "b", "null"),
        ("trainer.max_steps", "-1", "—"),
        ("data.tasks.mine.train", "a.jsonl", "—"),
        ("data.tasks.mine.anchor.text", "Do it.", "—"),
    }
