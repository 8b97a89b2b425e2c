"""Kinds by name and by class path: built, or refused in one line."""

import subprocess
import sys

import pytest

from tell_lightning.errors import TellError
from tell_lightning.metrics.kinds.registry import (
    BUILT_IN,
    built_in,
    check_kind,
    display_of,
    kind_of,
    primary_of,
    reading_kind,
)
from tell_lightning.metrics.score import baselines, row_sums, saved_row, score
from tell_lightning.metrics.settings import Baseline, Scoring

MINE = """
from tell_lightning.metrics.kinds import KindScores, Reading, RowSums, ScoreFacts, ScoringKind


class Short(ScoringKind):
    facts = {
        "short": ScoreFacts("short answers", "share", 1),
        "letters": ScoreFacts("letters", "number", 0, "lower", "Length"),
    }
    primary = "short"
    verdicts = ("right", "wrong")

    def __init__(self, scoring, limit=5):
        super().__init__(scoring)
        self.limit = limit

    def row_sums(self, predictions):
        lengths = [len(p.prediction) for p in predictions]
        return [RowSums.means({"short": [n < self.limit for n in lengths], "letters": lengths})]

    def verdict(self, answer, reference):
        return "right" if len(answer.text) < self.limit else "wrong"

    def columns(self, answer, reference):
        return {"letters": len(answer)}

    def saved(self, answer):
        return {"letters": len(answer)}


class Whole(Short):
    facts = {"span": ScoreFacts("span", "number")}
    primary = "span"

    def row_sums(self, predictions):
        return []

    def score(self, predictions):
        lengths = [len(p.prediction) for p in predictions]
        return KindScores({"span": float(max(lengths) - min(lengths))})


class Wrong(Whole):
    def score(self, predictions):
        raise ValueError("no\\n luck")


class Empty(Whole):
    def score(self, predictions):
        return KindScores({})


class NotANumber(Whole):
    def score(self, predictions):
        return KindScores({"span": "x"})


class Taken(Short):
    facts = {"short": ScoreFacts("short"), "rows": ScoreFacts("rows")}


class NoFacts(ScoringKind):
    def row_sums(self, predictions):
        return []


class Undescribed(Short):
    facts = {"short": ScoreFacts("short", better="neither")}


class Nothing:
    pass


number = 1
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write `mine.py` into the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def test_a_kind_from_a_file_scores_selects_and_is_resampled(mine, predict):
    same = {"silence": Baseline(text="")}
    scoring = Scoring(kind="mine.py:Short", init_args={"limit": 3}, baselines=same)
    predictions = predict(["ab", "abcd", "a", "abc"], ["x"] * 4)
    scores = score(scoring, predictions, intervals=True)
    assert (scores.values["short"], scores.values["letters"]) == (0.5, 2.5)
    assert (scores.primary, scores.selection) == ("short", 0.5)
    assert set(scores.intervals) == {"short", "letters"}
    assert scores.values["rows"] == 4
    assert baselines(scoring, predictions)["silence"].values["short"] == 1
    (sums,) = row_sums(scoring, predictions)
    assert sums.whole() == {"short": 0.5, "letters": 2.5}
    assert saved_row(predictions[0], scoring)["letters"] == 2
    kind = reading_kind(scoring)
    assert kind.verdict(kind.read("abcd"), kind.read("x")) == "wrong"


def test_what_is_saved_of_it_is_enough_to_show_it(mine, predict):
    scores = score(Scoring(kind="mine.py:Short"), predict(["ab"], ["x"]))
    (mine / "mine.py").unlink()
    display = display_of(vars(scores))
    assert display.table == ("short", "letters") == display.report == display.summary
    facts = display.facts_of("letters")
    assert (facts.label, facts.better, facts.group) == ("letters", "lower", "Length")
    assert display.facts_of("stop_rate").label == "stopped"


def test_a_lower_score_can_select(mine, predict):
    scoring = Scoring(kind="mine.py:Short", primary="letters")
    long, short = (score(scoring, predict([text], ["x"])) for text in ("abcdef", "a"))
    assert long.primary == "letters"
    assert 0 < long.selection < short.selection < 1


def test_a_score_that_is_no_sum_has_no_interval(mine, predict):
    scores = score(Scoring(kind="mine.py:Whole"), predict(["a", "abc"], ["x", "x"]), intervals=True)
    assert (scores.values["span"], scores.intervals) == (2, {})


@pytest.mark.parametrize(
    ("scoring", "parts"),
    [
        ({"kind": "judg"}, ["scoring.kind: must be one of translation, ", "'judg'", "'judge'?"]),
        ({"kind": "zzz"}, ["scoring.kind: must be one of translation", "class path", "Choose"]),
        ({"kind": "gone.py:Short"}, ["scoring.kind: must name a file, got 'gone.py'", "Check"]),
        ({"kind": "gone.Short"}, ["must name a package that is installed, got 'gone.Short'"]),
        ({"kind": "mine.py:Gone"}, ["must name a function or class of mine.py, got 'Gone'"]),
        ({"kind": "mine.py:number"}, ["function or class of mine.py, got 'number'"]),
        ({"kind": "mine.py:Nothing"}, ["must be a subclass of torchmetrics.Metric or", "Nothing"]),
        ({"kind": "json.dumps"}, ["must be a subclass of torchmetrics.Metric or", "dumps"]),
        (
            {"kind": "torchmetrics.text.gone.Rouge"},
            ["must find what it imports", "No module named", "Install"],
        ),
        ({"kind": "mine.py:Wrong"}, ["got ValueError in line ", ": no luck. Correct it there."]),
        ({"kind": "mine.py:Empty"}, ["must compute its primary score 'span'"]),
        ({"kind": "mine.py:NotANumber"}, ["must return finite numbers, got 'x' as 'span'"]),
        ({"kind": "mine.py:Taken"}, ["must give its scores new names, got 'rows'"]),
        ({"kind": "mine.py:NoFacts"}, ["scoring.kind: mine.py:NoFacts", "no attribute 'primary'"]),
        ({"kind": "mine.py:Undescribed"}, ["scoring.primary: must be one of", "got 'short'"]),
        (
            {"kind": "mine.py:Short", "init_args": {"most": 1}},
            ["scoring.init_args: mine.py:Short", "unexpected keyword argument 'most'"],
        ),
        ({"kind": "text", "init_args": {"a": 1}}, ["scoring.init_args: must be empty for", "a."]),
        ({"kind": "translation", "primary": "f1"}, ["scoring.primary: must be one of bleu, ch"]),
        ({"kind": "translation", "primary": "ter_lines"}, ["got 'ter_lines'"]),
        ({"kind": "judge", "primary": "majority_accuracy"}, ["got 'majority_accuracy'"]),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(scoring, parts, mine, predict):
    with pytest.raises(TellError) as caught:
        score(Scoring(**scoring), predict(["a"], ["a"]))
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def test_another_score_of_a_kind_can_select(predict):
    predictions = predict(["the cat sat on a mat"], ["the cat sat on the mat"])
    scores = score(Scoring(kind="translation", primary="chrf"), predictions)
    assert scores.primary == "chrf"
    assert scores.selection == scores.values["chrf"] / 100
    assert display_of(vars(scores)).table[:2] == ("chrf", "bleu")
    assert primary_of(Scoring(kind="translation", primary="chrf")) == "chrf"
    assert [primary_of(Scoring(kind=kind)) for kind in ("judge", "mine.py:X")] == [
        "balanced_accuracy",
        "",
    ]


@pytest.mark.parametrize(
    ("primary", "kind"),
    [("bleu", "translation"), ("balanced_accuracy", "judge"), ("exact_match", "text")],
)
def test_scores_of_an_older_run_are_shown_by_their_primary_one(primary, kind):
    display = display_of({"primary": primary, "values": {}})
    assert display.table == tuple(built_in(kind).table)
    assert display.report == tuple(built_in(kind).report or built_in(kind).table)


def test_scores_that_this_version_does_not_know_are_shown():
    assert display_of({"primary": "new"}).table[0] == "new"


def test_checking_a_kind_runs_nothing(mine):
    (mine / "mine.py").write_text("raise SystemExit")
    check_kind("mine.py:Short")
    check_kind("torchmetrics.text.WordErrorRate")
    with pytest.raises(TellError, match=r"^--kind: must be one of "):
        check_kind("bleu", "--kind")


@pytest.mark.parametrize("kind", ["torchmetrics.text.WordErrorRate", "gone.py:Gone"])
def test_a_report_reads_answers_without_the_class(kind):
    reading = reading_kind(Scoring(kind=kind))
    assert reading.verdict(reading.read("a"), reading.read("a")) == "exact"


def test_built_in_kinds_are_built_without_torch():
    code = (
        "import sys\n"
        "from tell_lightning.metrics.kinds.registry import BUILT_IN, kind_of, reading_kind\n"
        "from tell_lightning.metrics.settings import Scoring\n"
        "for kind in BUILT_IN: kind_of(Scoring(kind=kind))\n"
        "reading_kind(Scoring(kind='torchmetrics.text.WordErrorRate'))\n"
        "print({'torch', 'torchmetrics', 'sacrebleu'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout == "set()\n"


def test_every_kind_is_of_a_file_of_its_own_but_the_judge():
    modules = {built_in(name).__module__ for name in BUILT_IN}
    assert len(modules) == len(BUILT_IN) - 1
    assert kind_of(Scoring(kind="judge")).key == "hallucination"
