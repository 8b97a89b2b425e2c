"""A score of the user's own: called once on the whole set, or refused in one line."""

import pytest

from tell_lightning.errors import TellError
from tell_lightning.metrics.score import baselines, score
from tell_lightning.metrics.settings import Baseline, Scoring

GOOD = """
from dataclasses import dataclass

calls = []


@dataclass
class Half:
    value: float = 0.5


def ratio(answers, references, rows):
    calls.append(rows)
    assert all(type(each) is list for each in (answers, references, rows))
    return {
        "ratio": sum(map(len, answers)) / sum(map(len, references)),
        "calls": len(calls),
        "domains": len({row["domain"] for row in rows}),
        "half": Half().value,
        "all": True,
    }
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write `mine.py` into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_file(text: str) -> Scoring:
        (tmp_path / "mine.py").write_text(text)
        return Scoring(function="mine.py:ratio", baselines={"silence": Baseline(text="")})

    return write_file


def test_its_numbers_stand_beside_the_others_and_it_is_called_once(write, predict):
    scoring = write(GOOD)
    predictions = predict(["ab", "c"], ["abc", "c"], [{"domain": "news"}, {"domain": "law"}])
    scores = score(scoring, predictions, intervals=True)
    mine = {"ratio": 0.75, "calls": 1.0, "domains": 2.0, "half": 0.5, "all": 1.0}
    assert mine.items() <= scores.values.items()
    assert all(type(value) is float for value in scores.values.values())
    assert scores.values["exact_match"] == 0.5
    assert "ratio" not in scores.intervals
    assert "ratio" not in baselines(scoring, predictions)["silence"].values
    assert score(scoring, predictions).values["calls"] == 2


def test_it_gets_copies_of_the_rows(write, predict):
    scoring = write("def ratio(answers, references, rows):\n    rows[0].clear()\n    return {}")
    predictions = predict(["a"], ["a"], [{"domain": "news"}])
    score(scoring, predictions)
    assert predictions[0].row == {"domain": "news"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 1", r"mine\.py:ratio must return a dictionary of numbers, got 1\. Return one"),
        ("return {'bleu': 'x'}", r"must return finite numbers, got 'x' as 'bleu'\. Return a"),
        ("return {'x': float('nan')}", r"must return finite numbers, got nan as 'x'\."),
        ("return {'x': None}", r"must return finite numbers, got None as 'x'\."),
        ("return {'a/b': 1}", r"by letters, digits and underscores, got 'a/b'\. Rename"),
        ("return {1: 1}", r"by letters, digits and underscores, got 1\. Rename"),
        (
            "return {'exact_match': 1}",
            r"must give its scores new names, got 'exact_match', which exists already\. Rename",
        ),
        (
            "return {'x': 1 / (len(answers) - 1)}",
            r"must run without an error, got ZeroDivisionError in line 2: .*division by zero\.",
        ),
        ("raise ValueError('two\\n lines')", r"got ValueError in line 2: two lines\. Correct"),
    ],
)
def test_what_it_returns_or_raises_wrong_is_named(body, message, write, predict):
    scoring = write(f"def ratio(answers, references, rows):\n    {body}\n")
    with pytest.raises(TellError, match=rf"^scoring\.function: .*{message}"):
        score(scoring, predict(["a"], ["a"]))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("mine.py", r"must be path\.py:name, got 'mine\.py'\. Write"),
        ("mine:ratio", r"must be path\.py:name, got 'mine:ratio'\."),
        ("mine.py:a b", r"must be path\.py:name, got 'mine\.py:a b'\."),
        ("other.py:ratio", r"must name a file, got 'other\.py', which is not there \(looked in "),
        ("mine.py:missing", r"must name a function or class of .*mine\.py, got 'missing'\. Define"),
        ("mine.py:calls", r"must name a function or class of .*mine\.py, got 'calls'\. Define"),
    ],
)
def test_a_function_that_is_not_there_is_named(function, message, write, predict):
    write(GOOD)
    with pytest.raises(TellError, match=rf"^scoring\.function: {message}"):
        score(Scoring(function=function), predict(["a"], ["a"]))


def test_a_file_that_does_not_run_is_named(write, predict):
    with pytest.raises(TellError, match=r"got SyntaxError: .*mine\.py, line 1"):
        score(write("def ratio(:\n"), predict(["a"], ["a"]))
