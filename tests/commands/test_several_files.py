"""Several configuration files: their tasks add up, and their folders place their data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import says

from tell_lightning.commands.check import Config, check
from tell_lightning.settings import ConfigError

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes a configuration file below the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_(name: str, **data: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"data": data, "model": {"base": "microworld"}}))
        return name

    return write_


def refused(*options: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(list(options))
    return str(caught.value)


def trains(config: Config) -> dict[str, Any]:
    return {name: task.train for name, task in config.data.tasks.items()}


def test_tasks_and_sources_of_several_files_add_up(write: Write) -> None:
    text = 'yes: "no", {1e5} Þ \U0001f642'
    first = write(
        "a.yaml",
        tasks={"tax": {"train": [{"prompt": text, "response": "007"}], "anchor": {"text": "T"}}},
        general={"chat": {"train": "chat.jsonl"}},
    )
    second = write("b.yaml", tasks={"law": {"train": "law.jsonl"}})
    third = write("c.yaml", tasks={"law": {"max_new_tokens": 7}}, general={"code": {"train": "x"}})
    config = check(["-c", first, f"--config={second}", "-c", third])
    assert trains(config) == {"tax": [{"prompt": text, "response": "007"}], "law": "law.jsonl"}
    assert config.data.tasks["tax"].anchor.text == "T"
    assert config.data.tasks["law"].max_new_tokens == 7
    assert set(config.data.general) == {"chat", "code"}


@pytest.mark.parametrize(
    ("section", "key"), [("tasks", "train"), ("tasks", "test"), ("general", "held_out")]
)
def test_a_name_that_two_files_give_other_rows_is_refused(
    write: Write, section: str, key: str
) -> None:
    rows = {"train": "rows.jsonl", key: "old.jsonl"}
    first = write("a.yaml", **{section: {"tax": rows}})
    second = write("b.yaml", **{section: {"tax": {**rows, key: "new.jsonl"}}})
    where = f"data.{section}.tax.{key}"
    assert refused("-c", first, "-c", second) == says(
        f"b.yaml: {where}",
        rule="one file",
        got="'new.jsonl' here and 'old.jsonl' in a.yaml",
        cure=["Rename", f"--{where}="],
    )
    same = write("b.yaml", **{section: {"tax": rows}})
    assert check(["-c", first, "-c", same, f"--{where}=typed.jsonl"])


def test_a_later_file_replaces_the_tasks_of_the_saved_configuration_of_a_run(
    write: Write, tmp_path: Path
) -> None:
    saved = write("run/config.yaml", root=".", tasks={"tax": {"train": "a"}, "law": {"train": "b"}})
    (tmp_path / "run/run.json").write_text("{}")
    mine = write("mine.yaml", tasks={"tax": {"train": "c"}})
    config = check(["-c", saved, "-c", mine])
    assert trains(config) == {"tax": "c"}
    assert config.data.root == "."


def test_a_relative_root_is_a_folder_beside_the_file_that_names_it(
    write: Write, tmp_path: Path
) -> None:
    for name in ("below/rows", "rows", "only_here"):
        (tmp_path / name).mkdir(parents=True)

    def root(*options: str) -> str:
        return check(list(options)).data.root

    mine = write("below/mine.yaml", root="rows")
    assert root("-c", mine) == str(tmp_path / "below/rows")
    assert root("-c", mine, "--data.root=rows") == "rows"
    assert root("--data.root=rows", "-c", mine) == str(tmp_path / "below/rows")
    assert root("-c", write("below/mine.yaml", root="only_here")) == str(tmp_path / "only_here")
    assert root("-c", write("below/mine.yaml", root="none")) == str(tmp_path / "below/none")
    assert root("-c", write("below/mine.yaml", root=str(tmp_path))) == str(tmp_path)
    assert root("-c", write("below/mine.yaml", root="testbeds")) == "testbeds"
    saved = write("below/saved.yaml", root=str(tmp_path / "below/rows"))
    assert root("-c", saved) == str(tmp_path / "below/rows")


def test_a_typed_value_with_a_key_twice_is_refused() -> None:
    assert refused("--data.tasks={tax: {train: a}, law: {train: b}, tax: {test: c}}") == says(
        "--data.tasks", rule="once", got="'tax' again", cure="Merge"
    )


def test_a_file_with_a_key_twice_is_refused(write: Write, tmp_path: Path) -> None:
    name = write("a.yaml", tasks={})
    with (tmp_path / name).open("a") as file:
        file.write("run: {}\ndata: {}\n")
    assert refused("-c", name) == says("a.yaml:6", rule="once", got="'data' again, first in line 1")


@pytest.mark.parametrize("form", [["-c=sub/a.yaml"], ["-c", "sub/a.yaml"], ["--config=sub/a.yaml"]])
def test_every_way_to_give_a_file_means_the_same(write: Write, tmp_path: Path, form: list[str]):
    write("sub/a.yaml", root="rows", tasks={"a": {"train": "a.jsonl"}})
    write("b.yaml", tasks={"b": {"train": "b.jsonl"}})
    data = check([*form, "-c", "b.yaml"]).data
    assert set(data.tasks) == {"a", "b"}
    assert data.root == str(tmp_path / "sub/rows")


def test_a_value_with_the_name_of_the_demo_does_not_load_it(write: Write) -> None:
    name = write("a.yaml", tasks={"a": {"train": "a.jsonl"}})
    found = check(["-c", name, "--model.base", "microworld"])
    assert found == check(["-c", name, "--model.base=microworld"])
    assert set(found.data.tasks) == {"a"}
