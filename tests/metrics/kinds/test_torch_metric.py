"""torchmetrics metrics by class path: their own numbers, and intervals where those are exact."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torchmetrics import text as torchmetrics

from tell_lightning.errors import TellError
from tell_lightning.metrics.comparison import compare
from tell_lightning.metrics.kinds.registry import kind_of
from tell_lightning.metrics.score import row_sums, score
from tell_lightning.metrics.settings import Scoring

NO_TEXT = {"Perplexity", "SQuAD", "BERTScore", "InfoLM"}
"""Metrics of tensors and dictionaries, or with a model to download."""
WORDS = ["the", "cat", "dog", "sleeps", "runs", "on", "mat", "under", "red", "house", "night"]
MINE = """
import torch
from torchmetrics import Metric


class Longest(Metric):
    higher_is_better = True

    def __init__(self):
        super().__init__()
        self.add_state("longest", torch.tensor(0.0), dist_reduce_fx="max")

    def update(self, answers, references):
        self.longest = torch.maximum(self.longest, torch.tensor(float(max(map(len, answers)))))

    def compute(self):
        return self.longest


class Silent(Longest):
    higher_is_better = None


class Many(Longest):
    def compute(self):
        return {"a": self.longest, "b": torch.tensor([1.0, 2.0])}


class Taken(Longest):
    def compute(self):
        return {"exact_match": self.longest}


class Pairs(Longest):
    def update(self, answers, references):
        if len(answers) < 2:
            raise ValueError("needs two")
        super().update(answers, references)


class Gathers(Longest):
    def __init__(self):
        super().__init__()
        self.distributed_available_fn = lambda: True
        self.dist_sync_fn = self.fail

    def fail(self, *args, **more):
        raise AssertionError("every rank has all rows")
"""


def metric(name: str, **more) -> Scoring:
    return Scoring(kind=f"torchmetrics.text.{name}", **more)


def documents(predict, rows: int = 30, seed: int = 1):
    random = np.random.default_rng(seed)
    references = [" ".join(random.choice(WORDS, random.integers(9, 30))) for _ in range(rows)]
    answers = [
        " ".join(w if random.random() < 0.7 else "zebra" for w in text.split())
        for text in references
    ]
    return predict(answers, references)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write `mine.py` into the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)


@pytest.mark.parametrize(
    ("name", "arguments", "key"),
    [
        ("WordErrorRate", {}, "word_error_rate"),
        ("CharErrorRate", {}, "char_error_rate"),
        ("EditDistance", {}, "edit_distance"),
        ("EditDistance", {"reduction": "sum"}, "edit_distance"),
        ("BLEUScore", {"n_gram": 2}, "bleu_score"),
        ("SacreBLEUScore", {}, "sacre_bleu_score"),
        ("CHRFScore", {}, "chrf_score"),
        ("TranslationEditRate", {}, "translation_edit_rate"),
        ("ExtendedEditDistance", {}, "extended_edit_distance"),
        ("ROUGEScore", {"rouge_keys": "rougeL"}, "rougeL_fmeasure"),
        ("ROUGEScore", {"rouge_keys": ["rouge1", "rouge2"]}, "rouge2_recall"),
    ],
)
def test_values_are_those_of_torchmetrics_and_lie_in_their_intervals(name, arguments, key, predict):
    predictions = documents(predict)
    as_tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    theirs = getattr(torchmetrics, name)(**as_tuples)(
        [p.prediction for p in predictions],
        [[p.reference] for p in predictions]
        if name in {"BLEUScore", "SacreBLEUScore", "CHRFScore"}
        else [p.reference for p in predictions],
    )
    theirs = float(theirs[key] if isinstance(theirs, dict) else theirs)
    scores = score(metric(name, init_args=arguments), predictions, intervals=True)
    assert scores.values[key] == pytest.approx(theirs, abs=1e-7)
    assert scores.values["exact_match"] == 0
    low, high = scores.intervals[key]
    assert low < theirs < high
    assert 0 < scores.selection < 1


def test_a_resampled_word_error_rate_is_that_of_the_drawn_rows(predict):
    scoring, predictions = metric("WordErrorRate"), documents(predict)
    *_, sums = row_sums(scoring, predictions)
    ordered = sorted(predictions, key=lambda p: p.id)
    rows = np.random.default_rng(2).integers(30, size=30)
    theirs = torchmetrics.WordErrorRate()(
        [ordered[i].prediction for i in rows], [ordered[i].reference for i in rows]
    )
    ours = sums.score(sums.rows[rows].sum(axis=0))["word_error_rate"]
    assert float(ours) == pytest.approx(float(theirs), abs=1e-7)
    # The control: error rates of single rows do not add.
    single = [
        float(torchmetrics.WordErrorRate()([p.prediction], [p.reference])) for p in predictions
    ]
    whole = score(scoring, predictions).values["word_error_rate"]
    assert abs(np.mean(single) - whole) > 1e-4


def test_two_runs_are_compared(predict):
    bad, good = documents(predict), documents(predict)
    better = [p.reference if i % 2 else p.prediction for i, p in enumerate(good)]
    second = predict(better, [p.reference for p in good])
    found = compare(metric("WordErrorRate"), bad, second, 200)["word_error_rate"]
    assert found.second < found.first
    assert found.p_value < 0.01
    assert found.interval[1] < 0


@pytest.mark.parametrize("name", [n for n in torchmetrics.__all__ if n not in NO_TEXT])
def test_the_right_answers_are_selected_by_every_metric_of_texts(name, predict):
    scoring = metric(name, init_args={"rouge_keys": "rougeL"} if name == "ROUGEScore" else {})
    references = ["the cat sleeps on the mat", "the dog runs under the house"]
    right, wrong = (
        score(scoring, predict(answers, references)).selection
        for answers in (references, ["the cat sleeps on a mat", "the dog runs to the house"])
    )
    assert 1 >= right > wrong > 0


def test_less_is_better_where_the_metric_says_so(predict):
    reference = ["the cat sleeps on the mat"]
    good, bad, worse = (
        score(metric("WordErrorRate"), predict([text], reference))
        for text in ("the cat sleeps on a mat", "a dog", " ".join(["zebra"] * 50))
    )
    assert worse.values["word_error_rate"] > 1
    assert 1 > good.selection > bad.selection > worse.selection > 0
    facts = kind_of(metric("WordErrorRate")).facts["word_error_rate"]
    assert (facts.label, facts.better) == ("word error rate", "lower")


def test_the_primary_score_may_be_any_of_them(predict):
    scoring = metric("ROUGEScore", init_args={"rouge_keys": "rougeL"}, primary="rougeL_recall")
    scores = score(scoring, documents(predict))
    assert scores.primary == "rougeL_recall"
    assert scores.selection == scores.values["rougeL_recall"]


def test_a_metric_whose_states_do_not_add_has_no_interval(mine, predict):
    scores = score(Scoring(kind="mine.py:Longest"), documents(predict), intervals=True)
    assert scores.values["longest"] > 10
    assert set(scores.intervals) == {"exact_match"}
    pairs = score(Scoring(kind="mine.py:Pairs"), documents(predict), intervals=True)
    assert set(pairs.intervals) == {"exact_match"}


def test_one_row_is_scored_for_the_table_of_samples(mine):
    assert kind_of(metric("WordErrorRate")).columns("a b", "a c") == {
        "exact_match": False,
        "word_error_rate": 0.5,
    }
    assert kind_of(Scoring(kind="mine.py:Pairs")).columns("a", "a") == {
        "exact_match": True,
        "pairs": None,
    }


def test_nothing_is_gathered_from_other_processes(mine, predict):
    assert score(Scoring(kind="mine.py:Gathers"), predict(["abc"], ["x"])).values["gathers"] == 3


def test_scores_are_the_same_each_time_and_the_default_type_of_torch_does_not_matter(predict):
    predictions = documents(predict)
    first = score(metric("WordErrorRate"), predictions, intervals=True)
    assert score(metric("WordErrorRate"), predictions[::-1], intervals=True) == first
    assert torch.get_default_dtype() == torch.float32


needs_no_nltk = pytest.mark.skipif(find_spec("nltk") is not None, reason="Requires: no nltk")


@pytest.mark.parametrize(
    ("scoring", "parts"),
    [
        pytest.param(
            metric("ROUGEScore"),
            ["torchmetrics.text.ROUGEScore must find what it", "`nltk`", "Install it, or"],
            marks=needs_no_nltk,
        ),
        (metric("ROUGEScore", init_args={"rouge_keys": "rouge0"}), ["init_args", "rouge0"]),
        (
            metric("WordErrorRate", init_args={"x": 1}),
            ["scoring.init_args: torchmetrics.text", "x"],
        ),
        (metric("Perplexity"), ["scoring.kind: torchmetrics.text.Perplexity must run without an"]),
        (metric("WordErrorRate", primary="bleu"), ["scoring.primary: must be one of word_error_"]),
        (Scoring(kind="mine.py:Silent"), ["must say whether higher is better", "higher_is_better"]),
        (Scoring(kind="mine.py:Many"), ["must return finite numbers, got tensor([1., 2.]) as 'b'"]),
        (Scoring(kind="mine.py:Taken"), ["must give its scores new names, got 'exact_match'"]),
    ],
)
def test_a_metric_that_cannot_be_used_is_named_before_training(scoring, parts, mine):
    with pytest.raises(TellError) as caught:
        kind_of(scoring)
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)
