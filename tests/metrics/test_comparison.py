"""Comparisons: sacreBLEU's and SciPy's p-values and intervals, honest where nothing differs."""

import numpy as np
import pytest
from scipy import stats

from tell_lightning.errors import TellError
from tell_lightning.metrics.comparison import compare, compare_sums, p_values
from tell_lightning.metrics.intervals import RowSums
from tell_lightning.metrics.score import score
from tell_lightning.metrics.settings import Scoring

TRANSLATION = Scoring(kind="translation")
JUDGE = Scoring(kind="judge")
WORDS = ["the", "cat", "dog", "sleeps", "runs", "on", "mat", "under", "red", "house", "night"]


def means(values) -> RowSums:
    """Rows of one number each, of which the score is the mean."""
    return RowSums.means({"mean": [float(v) for v in values]})


def documents(rows: int, *shares: float, seed: int = 1) -> list[list[str]]:
    """References, and as many translations of each as there are shares of right words."""
    random = np.random.default_rng(seed)
    references = [" ".join(random.choice(WORDS, 15)) for _ in range(rows)]
    return [
        references,
        *(
            [
                " ".join(w if random.random() < share else "zebra" for w in text.split())
                for text in references
            ]
            for share in shares
        ),
    ]


def verdicts(rows: int, *shares: float) -> list[list[str]]:
    random = np.random.default_rng(3)
    gold = [str(random.choice(["no", "yes"])) for _ in range(rows)]
    other = {"no": "yes", "yes": "no"}
    return [
        gold,
        *(
            [f'{{"hallucination": "{g if random.random() < s else other[g]}"}}' for g in gold]
            for s in shares
        ),
    ]


def test_p_values_are_those_of_sacrebleu_s_approximate_randomisation(predict):
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.significance import PairedTest

    references, first, second = documents(60, 0.76, 0.77)
    systems = [("first", first), ("second", second)]
    metrics = {"bleu": BLEU(), "chrf": CHRF()}
    _, theirs = PairedTest(systems, metrics, [references], "ar", n_samples=2000)()
    ours = compare(TRANSLATION, predict(first, references), predict(second, references), 2000)
    for name, key in (("bleu", "BLEU"), ("chrf", "chrF2")):
        baseline, other = theirs[key]
        assert (ours[name].first, ours[name].second) == (baseline.score, other.score)
        assert 0.01 < other.p_value < 0.5  # a p that another method would not have by accident
        noise = 4 * np.sqrt(2 * other.p_value * (1 - other.p_value) / 2000)
        assert ours[name].p_value == pytest.approx(other.p_value, abs=noise)


@pytest.mark.parametrize("seed", range(4))
def test_few_rows_have_the_exact_p_value_of_scipy(seed):
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 9, 8), random.integers(2, 11, 8)
    theirs = stats.permutation_test(
        (second - first,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    found = compare_sums(means(first), means(second))["mean"]
    assert found.difference == pytest.approx(theirs.statistic)
    assert found.p_value == pytest.approx(theirs.pvalue)


def test_many_rows_have_nearly_the_p_value_and_the_interval_of_scipy():
    random = np.random.default_rng(5)
    first = random.integers(0, 50, 80)
    second = first + random.integers(-20, 26, 80)
    theirs = stats.permutation_test(
        (second - first,), np.mean, permutation_type="samples", n_resamples=9999, rng=1
    )
    found = compare_sums(means(first), means(second))["mean"]
    assert 0.01 < theirs.pvalue < 0.5
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.02)
    interval = stats.bootstrap(
        (second - first,), np.mean, method="percentile", n_resamples=5000, rng=1
    ).confidence_interval
    assert found.interval == pytest.approx(tuple(interval), abs=0.3)


def test_the_interval_of_a_difference_of_corpus_scores_is_that_of_scipy(predict):
    from sacrebleu.metrics.bleu import BLEU

    references, first, second = documents(60, 0.76, 0.80)
    metric = BLEU()
    counts = [
        np.array(metric._extract_corpus_statistics(texts, [references]))
        for texts in (first, second)
    ]

    def difference(rows: np.ndarray) -> float:
        ours, theirs = (
            metric._compute_score_from_stats(each[rows].sum(0).tolist()).score for each in counts
        )
        return theirs - ours

    interval = stats.bootstrap(
        (np.arange(60),),
        difference,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        rng=1,
    ).confidence_interval
    found = compare(TRANSLATION, predict(first, references), predict(second, references), 99)
    assert found["bleu"].difference == pytest.approx(difference(np.arange(60)))
    assert found["bleu"].interval == pytest.approx(tuple(interval), abs=0.5)
    assert 3 < interval.high - interval.low < 15


def test_pairing_is_what_makes_the_interval_narrow():
    random = np.random.default_rng(6)
    first = random.integers(0, 1000, 100)
    paired = compare_sums(means(first), means(first + 10))["mean"]
    assert paired.interval == pytest.approx((10, 10))
    shuffled = compare_sums(means(first), means(random.permutation(first + 10)))["mean"]
    assert shuffled.interval[0] < -30
    assert shuffled.interval[1] > 50


@pytest.mark.parametrize("rows", [4, 20])
def test_the_same_answers_twice_do_not_differ(rows, predict):
    references, answers = documents(rows, 0.7)
    found = compare(TRANSLATION, *(predict(answers, references),) * 2, trials=300)
    assert {"bleu", "chrf_pp", "bleu_lines", "ter_lines", "exact_match"} <= found.keys()
    for one in found.values():
        assert (one.difference, one.interval, one.p_value) == (0, (0, 0), 1)


def test_a_clear_difference_is_found_in_every_score(predict):
    references, bad, good = documents(60, 0.6, 0.9)
    found = compare(TRANSLATION, predict(bad, references), predict(good, references), 999)
    for name in found.keys() - {"exact_match", "ter_lines"}:
        assert found[name].p_value == 0.001
        assert 0 < found[name].interval[0] < found[name].difference < found[name].interval[1]
    assert found["ter_lines"].p_value == 0.001
    assert found["ter_lines"].interval[1] < 0
    gold, bad, good = verdicts(100, 0.6, 0.95)
    found = compare(JUDGE, predict(bad, gold), predict(good, gold), 999)
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc"):
        assert found[name].p_value <= 0.005
        assert found[name].interval[0] > 0
    assert found["json_valid"].p_value == 1


def test_p_values_are_spread_evenly_where_nothing_differs():
    random = np.random.default_rng(8)
    honest, pretended = [], []
    for _ in range(100):
        first, second = random.integers(0, 100, (2, 30))
        honest.append(p_values(means(first), means(second), 199)["mean"])
        # The control: every row written four times, as if these were 120 rows of their own.
        four = (means(np.tile(each, 4)) for each in (first, second))
        pretended.append(p_values(*four, 199)["mean"])
    assert stats.kstest(honest, "uniform").pvalue > 0.05
    assert 0.01 <= np.mean(np.array(honest) <= 0.05) <= 0.1
    assert stats.kstest(pretended, "uniform").pvalue < 1e-6
    assert np.mean(np.array(pretended) <= 0.05) > 0.2


def test_first_and_second_may_be_exchanged_and_rows_come_in_any_order(predict):
    references, one, other = documents(50, 0.7, 0.8)
    first, second = predict(one, references), predict(other, references)
    there = compare(TRANSLATION, first, second, 300)
    assert compare(TRANSLATION, first[::-1], second, 300) == there
    back = compare(TRANSLATION, second, first, 300)
    for name, found in there.items():
        assert back[name].difference == -found.difference
        assert back[name].p_value == pytest.approx(found.p_value, abs=0.02)
        low, high = found.interval
        assert back[name].interval == pytest.approx((-high, -low))


def test_values_are_the_scores_and_words_are_compared_where_rows_list_them(predict):
    references, one, other = documents(12, 0.5, 0.9)
    rows = [{"rare": text.split()[:2]} for text in references]
    scoring = Scoring(kind="translation", words_field="rare", function="not/called.py:here")
    first, second = predict(one, references, rows), predict(other, references, rows)
    found = compare(scoring, first, second)
    values = score(TRANSLATION, second, intervals=True).values
    for name in found.keys() - {"words_recall"}:
        assert found[name].second == values[name]
    assert found["words_recall"].difference > 0
    assert found["bleu"].signature.startswith("nrefs:1|")


@pytest.mark.parametrize(
    ("ids", "references", "message"),
    [
        ("r0 r1", ["a", "b"], r"the same rows, got no 'r2' in the second \(1 of 3 rows\)\."),
        (
            "r0 r1 r2 x y",
            list("abcde"),
            r"the same rows, got no 'x' in the first \(2 of 5 rows\)\.",
        ),
        ("r0 r1 r2", ["a", "x", "c"], r"the same references, got 'b' and 'x' in row 'r1'\."),
    ],
)
def test_other_rows_or_references_are_refused(ids, references, message, predict):
    first = predict(["x"] * 3, ["a", "b", "c"])
    second = predict(["x"] * len(references), references)
    for prediction, id in zip(second, ids.split(), strict=True):
        object.__setattr__(prediction, "id", id)
    with pytest.raises(TellError, match=f"^compare: both files must hold {message}"):
        compare(Scoring(), first, second)


def test_a_set_that_cannot_be_scored_cannot_be_compared(predict):
    perhaps = predict(["x"], ["perhaps"])
    with pytest.raises(TellError, match=r"^row 'r0': the reference must be one of no, yes"):
        compare(JUDGE, perhaps, perhaps)
