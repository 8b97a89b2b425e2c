"""A file of answers: gone on with after any cut, never written over, for one process at a time."""

import json
import resource
import signal
from pathlib import Path

import pytest
from messages import says

from tell_lightning.export.answers_file import (
    AnswersError,
    AnswersStream,
    RowKey,
    open_answers,
)

KEYS = [RowKey(f"r{n}", "turn", "m0", f"hash {n}") for n in range(4)]
LINES = [key.line({"prediction": f"Þ {n}"}) for n, key in enumerate(KEYS)]


def go_on(path: Path, keys: list[RowKey] = KEYS) -> int:
    """Answer what is not there, as `predict` does; return how many rows were."""
    with open_answers(path) as answers:
        there = sum([answers.holds(key) for key in keys])
        if there < len(keys):
            answers.append([key.line({"prediction": f"Þ {key.id[1:]}"}) for key in keys[there:]])
        answers.finish()
        assert answers.lines == len(keys)
    return there


def error(path: Path, keys: list[RowKey] = KEYS) -> str:
    before = path.read_bytes()
    with pytest.raises(AnswersError) as found:
        go_on(path, keys)
    assert path.read_bytes() == before
    return str(found.value)


def test_a_file_cut_off_anywhere_is_completed_to_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # 400 times
    path, whole = tmp_path / "answers.jsonl", b"".join(LINES)
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        assert go_on(path) == whole[:end].count(b"\n")
        assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]  # no lock is left


def test_a_new_file_is_made_with_the_first_answers_alone(tmp_path):
    path = tmp_path / "answers.jsonl"
    with open_answers(path) as answers:
        assert not answers.holds(KEYS[0])
        assert not path.exists()
        answers.append(LINES[:1])
        assert path.read_bytes() == LINES[0]
        answers.append(LINES[1:2])
        assert path.read_bytes() == LINES[0] + LINES[1]
    assert go_on(path) == 2


def test_a_line_is_json_that_begins_with_its_key():
    key = RowKey("rówþ 1", "t", "m", "h")
    line = key.line({"id": "rówþ 1", "prediction": 'a\n"b"\u2028', "thought": "\ud83d"})
    assert line.startswith(key.start)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        **vars(key),
        "prediction": 'a\n"b"\u2028',
        "thought": "\ud83d",  # half a pair, as a model may write it, stays readable
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "x"}, says("answers.jsonl:3", rule=["3", "'x'"], got="'r2'")),
        ({"task": "x"}, says("answers.jsonl:3", rule=["'task'", "'x'"], got="'turn'")),
        (
            {"model": "m1"},
            says("answers.jsonl:3", rule=["'model'", "'m1'"], got="'m0'"),
        ),
        (
            {"prompt_sha256": "0123456789abcdef"},
            says(
                "answers.jsonl:3",
                rule=["'prompt_sha256'", "'0123456789ab...'", "'r2'"],
                got="'hash 2'",
            ),
        ),
    ],
)
def test_an_answer_to_something_else_is_named_by_line_and_field(change, message, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"".join(LINES[:3]))
    keys = [*KEYS[:2], RowKey(**{**vars(KEYS[2]), **change}), KEYS[3]]
    said = error(path, keys)
    assert said == message
    assert "--output" in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"my notes", says("answers.jsonl:1", got="b'my notes'")),
        (b'{"id": 7}', says("answers.jsonl:1", got="""b'{"id": 7}'""")),
        (b'{"prompt": "x"}\n', says("answers.jsonl:1", rule="`predict`")),
        (
            b"[1]\n",
            says(
                "answers.jsonl:1",
                rule=["`predict`", "id, task, model, prompt_sha256"],
                got="b'[1]",
            ),
        ),
        (b"\xff\xfe\n", says("answers.jsonl:1", rule="`predict`", got=r"b'\xff\xfe")),
        (b"\n" + LINES[0], says("answers.jsonl:1", rule="`predict`", got=r"b'\n'")),
        (LINES[0] + b"junk\n", says("answers.jsonl:2", rule="`predict`", got="b'junk")),
        (LINES[0] + b"\0\0\0", says("answers.jsonl:2", got=r"b'\x00\x00\x00'")),
        (LINES[0] + LINES[2], says("answers.jsonl:2", rule=["2", "'r1'"], got="'r2'")),
        (LINES[0] + LINES[0], says("answers.jsonl:2", rule=["2", "'r1'"], got="'r0'")),
        (LINES[0] + LINES[2][:-5], says("answers.jsonl:2", got="""b'{"id": "r2\"""")),
        (b"".join(LINES) + LINES[3], says("answers.jsonl:5", rule="row 4", got="more")),
        (b"".join(LINES) + LINES[3][:5], says("answers.jsonl:5", rule="row 4", got="more")),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(content, message, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    assert error(path) == message


def test_one_process_at_a_time_adds_to_a_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    with open_answers(path), pytest.raises(AnswersError) as found, open_answers(path):
        pass
    assert str(found.value) == says("--output", got=f"'{path}'")
    assert go_on(path) == 0


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    with pytest.raises(AnswersError, match=r"must be in an existing folder, got '.*no/where"):
        go_on(tmp_path / "no/where.jsonl")
    with pytest.raises(AnswersError, match=r"must be a file to write to, got '.*': Is a directory"):
        go_on(tmp_path)


def test_a_full_disk_is_named_and_the_file_gone_on_with(tmp_path):
    path = tmp_path / "answers.jsonl"
    least = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(LINES[0]) + 20, least[1]))
    try:
        with pytest.raises(AnswersError, match=r"File too large\. Free disk space"):
            go_on(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, least)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"".join(LINES)[: len(LINES[0]) + 20]
    assert go_on(path) == 1
    assert path.read_bytes() == b"".join(LINES)


def test_a_device_is_a_stream_that_holds_nothing():
    with open_answers(Path("/dev/null")) as answers:
        assert isinstance(answers, AnswersStream)
        assert not answers.holds(KEYS[0])
        answers.append(LINES)
        answers.finish()
        assert answers.lines == 4
