"""Intervals: the same each time, around the score, narrower with rows, right 19 times of 20."""

import numpy as np
import pytest
from scipy import stats

from tell_lightning.metrics.intervals import RowSums, bootstrap, score_intervals
from tell_lightning.metrics.score import Scores, baselines, row_sums, score
from tell_lightning.metrics.settings import Baseline, Scoring

JUDGE = Scoring(kind="judge")
TRANSLATION = Scoring(kind="translation", words_field="rare")
CORPUS = {name + level for name in ("bleu", "chrf", "chrf_pp") for level in ("", "_lines")}
LABELS = {"accuracy", "balanced_accuracy", "precision", "recall", "f1"}
WORDS = ["the", "cat", "dog", "sleeps", "runs", "on", "mat", "under", "red", "house", "night"]


def answer(label: str) -> str:
    return f'{{"hallucination": "{label}"}}'


def translated(predict, rows: int, seed: int = 1):
    """Documents of which a quarter of the words are wrong."""
    random = np.random.default_rng(seed)
    references = [" ".join(random.choice(WORDS, 20)) for _ in range(rows)]
    answers = [
        " ".join(word if random.random() < 0.75 else "zebra" for word in text.split())
        for text in references
    ]
    return predict(answers, references, [{"rare": [text.split()[0]]} for text in references])


def judged(predict, rows: int, seed: int = 1):
    """Verdicts of which four in five are right, and one in twenty is no JSON."""
    random = np.random.default_rng(seed)
    gold = [str(random.choice(["no", "yes"])) for _ in range(rows)]
    other = {"no": "yes", "yes": "no"}
    answers = [
        "?" if random.random() < 0.05 else answer(g if random.random() < 0.8 else other[g])
        for g in gold
    ]
    return predict(answers, gold)


def widths(scores: Scores) -> dict[str, float]:
    return {name: high - low for name, (low, high) in scores.intervals.items()}


@pytest.mark.parametrize(
    ("scoring", "make", "names"),
    [
        (TRANSLATION, translated, {*CORPUS, "ter_lines", "words_recall", "exact_match"}),
        (JUDGE, judged, {*LABELS, "mcc", "json_valid"}),
    ],
)
def test_intervals_hold_the_score_and_shrink_with_rows(scoring, make, names, predict):
    few, many = (score(scoring, make(predict, rows), intervals=True) for rows in (40, 640))
    for scores in (few, many):
        assert set(scores.intervals) == names
        for name, (low, high) in scores.intervals.items():
            assert low <= scores.values[name] <= high
    for name in names - {"exact_match"}:  # no row is all right: no width to compare
        assert widths(many)[name] == pytest.approx(widths(few)[name] / 4, rel=0.6)
        assert widths(many)[name] > 0


def test_intervals_are_the_same_every_time_in_any_order_and_only_when_asked(predict):
    predictions = translated(predict, 30)
    first = score(TRANSLATION, predictions, intervals=True)
    assert score(TRANSLATION, predictions[::-1], intervals=True) == first
    assert score(TRANSLATION, predictions).intervals == {}
    copy = Scoring(kind="text", baselines={"constant": Baseline(text="x")})
    assert baselines(copy, predictions)["constant"].intervals == {}


@pytest.mark.parametrize("name", ["bleu", "chrf", "chrf_pp", "ter_lines"])
def test_bounds_are_near_those_of_sacrebleu_s_own_bootstrap(name, predict):
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    metric = {"bleu": BLEU(), "chrf": CHRF(), "chrf_pp": CHRF(6, 2), "ter_lines": TER()}[name]
    predictions = translated(predict, 100)
    theirs = metric.corpus_score(
        [p.prediction for p in predictions], [[p.reference for p in predictions]], n_bootstrap=1000
    )
    low, high = score_intervals(row_sums(TRANSLATION, predictions))[name]
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.1)
    assert (high + low) / 2 == pytest.approx(theirs._mean, abs=0.3)


def test_bounds_of_labels_are_near_those_of_scipy(predict):
    predictions = judged(predict, 200)
    gold = np.array([p.reference == "yes" for p in predictions], float)
    yes = np.array([p.prediction == answer("yes") for p in predictions], float)
    no = np.array([p.prediction == answer("no") for p in predictions], float)

    def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return part.sum(-1) / whole.sum(-1)

    statistics = {
        "accuracy": lambda g, y, n, axis: (g * y + (1 - g) * n).mean(-1),
        "balanced_accuracy": lambda g, y, n, axis: (
            (share(g * y, g) + share((1 - g) * n, 1 - g)) / 2
        ),
        "precision": lambda g, y, n, axis: share(g * y, y),
        "recall": lambda g, y, n, axis: share(g * y, g),
        "f1": lambda g, y, n, axis: share(2 * g * y, g + y),
    }
    assert statistics.keys() == LABELS
    ours = score_intervals(row_sums(JUDGE, predictions))
    for name, statistic in statistics.items():
        theirs = stats.bootstrap(
            (gold, yes, no), statistic, paired=True, method="percentile", n_resamples=5000, rng=1
        ).confidence_interval
        assert ours[name] == pytest.approx(tuple(theirs), abs=0.01)
        assert 0.05 < theirs.high - theirs.low < 0.2


def test_true_share_lies_inside_about_19_times_of_20():
    truth, rows = 0.7, 60
    random = np.random.default_rng(7)
    honest = pretended = 0
    times = 150
    for _ in range(times):
        hits = (random.random(rows) < truth).tolist()
        low, high = bootstrap(RowSums.means({"share": hits}))["share"]
        honest += low <= truth <= high
        # The control: every row written four times, as if these were 240 rows of their own.
        low, high = bootstrap(RowSums.means({"share": hits * 4}))["share"]
        pretended += low <= truth <= high
    assert 0.90 <= honest / times <= 0.99
    assert pretended / times < 0.80


def test_where_all_rows_are_right_there_is_no_width(predict):
    scores = score(
        JUDGE, predict([answer("no"), answer("yes")] * 5, ["no", "yes"] * 5), intervals=True
    )
    assert set(scores.intervals.values()) == {(1.0, 1.0)}
    same = predict(["a b c d e"] * 3, ["a b c d e"] * 3)
    found = score(Scoring(kind="translation"), same, intervals=True).intervals
    assert found["bleu"] == pytest.approx((100, 100))
    assert found["exact_match"] == (1, 1)


def test_one_row_is_its_own_interval(predict):
    scores = score(JUDGE, predict([answer("no")], ["no"]), intervals=True)
    for name, interval in scores.intervals.items():
        assert interval == (scores.values[name],) * 2
    one = score(TRANSLATION, translated(predict, 1), intervals=True)
    assert one.intervals["bleu"] == pytest.approx((one.values["bleu"],) * 2)


def test_a_draw_without_a_label_averages_over_the_labels_it_has(predict):
    # One row of "yes", answered wrong: a third of the draws lack it and have recall 1 on "no".
    gold = ["no"] * 5 + ["yes"]
    scores = score(JUDGE, predict([answer("no")] * 6, gold), intervals=True)
    assert scores.values["balanced_accuracy"] == 0.5
    assert scores.intervals["balanced_accuracy"] == (0.5, 1.0)
    assert scores.intervals["mcc"] == (0, 0)


def test_draws_without_a_listed_word_do_not_count(predict):
    rows = [{"rare": ["cat"]}, {"rare": []}, {"rare": []}]
    scores = score(TRANSLATION, predict(["cat"] * 3, ["cat"] * 3, rows), intervals=True)
    assert scores.intervals["words_recall"] == (1, 1)
    nothing = [{"rare": []}]
    scores = score(TRANSLATION, predict(["cat"], ["cat"], nothing), intervals=True)
    assert "words_recall" not in scores.intervals


def test_rows_may_be_any_numbers():
    found = RowSums.means({"mean": [0.5, 0.25, 0.125], "other": [1, 2, 3]})
    assert found.whole() == {"mean": 0.875 / 3, "other": 2}
    low, high = bootstrap(found)["mean"]
    assert 0.125 <= low < 0.875 / 3 < high <= 0.5


def test_a_draw_without_a_score_is_left_out():
    sums = RowSums(
        np.array([[1.0], [0.0]]), lambda sums: {"x": np.where(sums[..., 0] > 0, 7, np.nan)}
    )
    assert bootstrap(sums) == {"x": (7, 7)}
    none = RowSums(np.zeros((2, 1)), sums.score)
    assert (none.whole(), bootstrap(none)) == ({}, {})
