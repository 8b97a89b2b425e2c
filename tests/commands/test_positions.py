"""`plan --positions` prints what stands where; `plan` counts runs of cycles, shares of tokens."""

import json
import os

import pytest
import yaml
from messages import Says, says

from tell_lightning.cli import main
from tell_lightning.commands import plan as command
from tell_lightning.commands.check import check
from tell_lightning.data.prepared import PreparedData
from tell_lightning.data.tokenizer import load_tokenizer

KEYS = ["position", "source", "row", "cycle", "id"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two tasks and two weighted general sources, with long task prompts; a cycle is 24."""
    folder = tmp_path_factory.mktemp("positions")
    for name, count in (("long", 9), ("short", 9), ("heavy", 100), ("light", 100)):
        rows = [
            {"prompt": f"{name} {n} " * (20 if name == "long" else 1), "response": f"answer {n}"}
            for n in range(count)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    data = {
        "root": str(folder),
        "cache_dir": str(folder / "cache"),
        "tasks": {
            name: {"train": f"{name}.jsonl", "anchor": {"text": "Answer."}}
            for name in ("long", "short")
        },
        "general": {
            "heavy": {"train": "heavy.jsonl", "weight": 2},
            "light": {"train": "light.jsonl", "weight": 1},
        },
        "mixture": {"task_share": 0.25, "task_examples": 3},
    }
    path = folder / "config.yaml"
    settings = {"data": data, "model": {"base": "microworld"}, "trainer": {"max_steps": 2}}
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.fixture(scope="module")
def prepared(config: str) -> PreparedData:
    """The data of a run with this configuration."""
    read = check(["-c", config])
    made = PreparedData(read.data, load_tokenizer(read.model.base), seed=read.seed)
    made.prepare()
    made.open()
    return made


@pytest.mark.parametrize(
    ("begin", "end"), [(0, 50), (23, 26), (4_000_000, 4_000_010), (10**17, 10**17 + 3)]
)
def test_positions_are_those_of_the_plan_and_nothing_else_is_printed(
    config: str,
    prepared: PreparedData,
    begin: int,
    end: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "BLOCK", 7)
    main(["plan", "-c", config, "--positions", f"{begin}:{end}", "--format", "jsonl"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert prepared.plan.cycle == 24
    assert [list(line) for line in lines] == [KEYS] * (end - begin)
    assert lines == [
        {
            "position": position,
            "source": prepared.plan.sources[source].name,
            "row": row,
            "cycle": position // 24,
            "id": prepared.rows[source][row]["id"],
        }
        for position, source, row in prepared.plan.at(range(begin, end))
    ]


def test_the_id_is_that_of_the_row_in_the_file(
    config: str, prepared: PreparedData, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["plan", "-c", config, "--positions=0:24", "--format=jsonl"])
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        name, number = line["id"].split(".jsonl:")
        assert name == line["source"]
        index = [source.name for source in prepared.plan.sources].index(name)
        ids = prepared.rows[index][line["row"]]["input_ids"]
        assert f"answer {int(number) - 1}" in prepared.encoder.tokenizer.decode(ids)


def test_the_table_has_the_same_in_columns(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "-c", config, "--positions", "95:125", "--format", "jsonl"])
    wanted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    main(["plan", "-c", config, "--positions", "95:125"])
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["position", "cycle", "source", "row", "id"]
    assert [line.split() for line in lines] == [
        [str(slot[name]) for name in heading.split()] for slot in wanted
    ]
    for line in lines:
        assert line.index(line.split()[2]) == heading.index("source")
        assert line.rindex(line.split()[4]) == heading.index("id")


def test_a_reader_that_stops_is_no_error(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as broken:
        monkeypatch.setattr("sys.stdout", broken)
        main(["plan", "-c", config, "--positions", "0:5000"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        *(
            (
                [f"--positions={asked}"],
                says(
                    "--positions",
                    rule=["A:B", "18"],
                    got=f"'{asked}'",
                    cure="--positions 0:32",
                ),
            )
            for asked in ("7", "3:3", "5:3", "-1:3", "a:b", "0:1e9", "0:5:2", "0:" + "9" * 19)
        ),
        (["--positions"], says("--positions", got="none")),
        (
            ["--positions", "0:9", "--format", "csv"],
            says("--format", rule=["table", "jsonl"], got="'csv'"),
        ),
        (
            ["--format", "jsonl"],
            says("--format", rule="--positions", got="'jsonl'", cure="--positions A:B"),
        ),
        (
            ["--positions", "0:9", "--show", "3"],
            says("--show", rule="--positions", got="both"),
        ),
    ],
)
def test_wrong_positions_are_refused(
    options: list[str], error: Says, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["plan", *options])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.removeprefix("error: ") == error


def test_a_plan_of_cycles_is_counted_over_exactly_those(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cycles = ["--data.mixture.cycles=2.5", "--trainer.max_steps=null"]
    main(["plan", "-c", config, *cycles])
    shown = capsys.readouterr().out
    assert "60 examples in batches of 16; a cycle has 24;" in shown
    assert "Task share: 25.0% of the examples, " in shown


def test_a_share_of_tokens_is_the_one_that_is_shown(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def shares(kind: str) -> tuple[float, float]:
        option = f"--data.mixture.task_share_in={kind}"
        one_cycle = ["--data.mixture.cycles=1", "--trainer.max_steps=null"]
        main(["plan", "-c", config, option, *one_cycle])
        line = capsys.readouterr().out.partition("Task share: ")[2].splitlines()[0]
        examples, tokens, _ = (float(part.split("%")[0].split()[-1]) for part in line.split(","))
        return examples, tokens

    in_examples, in_tokens = shares("examples"), shares("tokens")
    assert in_examples[0] == 25
    assert in_examples[1] > 35
    assert abs(in_tokens[1] - 25) < 1
    assert in_tokens[0] < 20


def test_interrupt_leaves_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tell_lightning.commands.plan.check", interrupt)
    with pytest.raises(SystemExit) as exit_:
        main(["plan", "--positions", "0:3"])
    assert exit_.value.code == 130
    assert capsys.readouterr() == ("", "stopped\n")
