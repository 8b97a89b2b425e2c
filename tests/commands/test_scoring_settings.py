"""The scoring of a configuration: its old names, and mistakes that are named before torch."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tell_lightning.commands import check as checked
from tell_lightning.commands.check import ConfigError, check
from tell_lightning.metrics.settings import Baseline


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration of one task with a scoring section."""

    def file(name: str = "mine.yaml", **scoring: object) -> list[str]:
        tasks = {"turn": {"train": "a.jsonl", "scoring": scoring}}
        path = tmp_path / name
        path.write_text(
            yaml.safe_dump({"data": {"tasks": tasks}, "model": {"base": "b"}}), encoding="utf-8"
        )
        return ["-c", str(path)]

    return file


def test_baselines_may_still_be_called_floors_and_it_is_said_once(write, capsys):
    checked._say_renamed.cache_clear()
    arguments = write(floors={"old": {"text": "a"}}, baselines={"new": {"field": "b"}})
    for _ in range(2):
        config = check(arguments)
        scoring = config.data.tasks["turn"].scoring
        assert scoring.baselines == {"old": Baseline(text="a"), "new": Baseline(field="b")}
        assert scoring.floors == {}
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    for part in ("mine.yaml: data.tasks.turn.scoring.floors", "baselines", "still works"):
        assert part in line
    saved = yaml.safe_load(config.to_yaml())["data"]["tasks"]["turn"]["scoring"]
    assert "floors" not in saved
    assert set(saved["baselines"]) == {"old", "new"}


def test_nothing_is_said_of_the_new_name_or_of_a_saved_run(write, tmp_path, capsys):
    checked._say_renamed.cache_clear()
    check(write(baselines={"new": {"field": "b"}}))
    saved = write("config.yaml", floors={"old": {"text": "a"}})
    (tmp_path / "run.json").write_text("{}")
    assert set(check(saved).data.tasks["turn"].scoring.baselines) == {"old"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("scoring", "parts"),
    [
        ({"kind": "judg"}, ["scoring.kind: must be one of", "class path", "'judg'", "'judge'?"]),
        ({"kind": "no.py:Kind"}, ["scoring.kind: must name a file, got 'no.py'", "Check the path"]),
        ({"kind": "no_such.Kind"}, ["scoring.kind: must name a package", "'no_such.Kind'"]),
        ({"kind": "judge", "positive": "ja"}, ["scoring.positive: must be one of", "got 'ja'"]),
        ({"kind": "json", "primary": "f1"}, ["scoring.primary: must be one of json_match", "'f1'"]),
        ({"kind": "text", "init_args": {"a": 1}}, ["scoring.init_args: must be empty", "got a."]),
        ({"labels": [True, False]}, ["scoring.labels: must be null or str, got True", "in quotes"]),
        ({"labels": [1]}, ["scoring.labels: must be null or str, got 1", "tell_lightning help"]),
    ],
)
def test_what_does_not_fit_is_named_with_its_file_and_key(scoring, parts, write):
    with pytest.raises(ConfigError) as caught:
        check(write(**scoring))
    assert "mine.yaml: data.tasks.turn.scoring." in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_a_class_path_is_checked_without_torch_and_without_running_it(write, tmp_path):
    (tmp_path / "mine.py").write_text("raise SystemExit(9)")
    for kind in ("torchmetrics.text.WordErrorRate", f"{tmp_path}/mine.py:Kind"):
        code = (
            "import sys\nfrom tell_lightning.commands.check import check\n"
            f"print(check({write(kind=kind, init_args={'a': [1]})!r}).data.tasks['turn'].scoring)\n"
            "print({'torch', 'torchmetrics'} & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        )
        assert f"kind='{kind}', init_args={{'a': [1]}}" in done.stdout
        assert done.stdout.endswith("set()\n")
