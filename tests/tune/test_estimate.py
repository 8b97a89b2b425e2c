"""The interval of a table of rows and trainings holds the truth, whatever differs in it."""

import itertools

import numpy as np
import pytest
from scipy import stats

from tell_lightning.tuning.estimate import estimate, sign_flip


def table(random, seeds: int, rows: int, folds: int, luck: float):
    """Differences of two arms that are alike: rows have a taste, trainings luck, answers noise."""
    runs = np.arange(rows) % folds
    chance = (
        random.normal(0, 1, rows)
        + random.normal(0, 0.5, (2, 1, rows))
        + random.normal(0, luck, (2, seeds, folds))[:, :, runs]
    )
    right = 100.0 * (random.random((2, seeds, rows)) < 1 / (1 + np.exp(-chance)))
    return right[0] - right[1], runs


@pytest.mark.parametrize("rows", [10, 60])
@pytest.mark.parametrize("folds", [1, 5])
@pytest.mark.parametrize(("seeds", "luck"), [(2, 0.0), (2, 1.5), (4, 0.5)])
def test_it_holds_the_truth_19_times_of_20(rows, folds, seeds, luck):
    random = np.random.default_rng([rows, folds, seeds])
    inside = claimed = 0
    for _ in range(120):
        found = estimate(*table(random, seeds, rows, folds, luck), 100.0)
        inside += found.low <= 0 <= found.high
        claimed += found.p <= 0.05
    assert inside / 120 >= 0.91
    assert claimed / 120 <= 0.09


def test_rows_taken_for_all_there_is_would_claim_too_much():
    random = np.random.default_rng(0)
    claimed = 0
    for _ in range(100):
        values, _ = table(random, 2, 60, 1, luck=1.5)
        claimed += stats.ttest_1samp(values.mean(axis=0), 0).pvalue <= 0.05
    assert claimed > 40


def test_a_real_difference_is_found():
    random = np.random.default_rng(1)
    found = 0
    for _ in range(40):
        values, runs = table(random, 3, 60, 5, luck=0.3)
        values[:, :24] += 100.0 * (values[:, :24] <= 0)
        found += estimate(values, runs, 100.0).low > 0
    assert found > 36


def test_ten_rows_that_are_all_alike_prove_little():
    found = estimate(np.zeros((3, 10)), np.arange(10) % 5, 100.0)
    assert found.value == 0
    assert found.p == 1
    assert 15 < found.half < 30  # of 100 points; three of ten rows may well differ
    more = estimate(np.zeros((3, 1000)), np.arange(1000) % 5, 100.0)
    assert more.half < 0.5


def test_without_luck_it_is_a_t_interval_of_the_rows():
    means = np.random.default_rng(2).normal(3, 10, 200)
    found = estimate(means[None], np.zeros(200, dtype=np.int64), 1.0, random=False)
    theirs = stats.ttest_1samp(means, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert found.p == pytest.approx(stats.ttest_1samp(means, 0).pvalue, abs=0.01)


def test_the_p_value_and_the_interval_agree():
    random = np.random.default_rng(3)
    for _ in range(30):
        found = estimate(*table(random, 2, 20, 5, luck=0.5), 100.0)
        assert (found.p <= 0.05) <= (not found.low <= 0 <= found.high)


def test_signs_are_flipped_in_all_ways_or_in_many():
    values = np.array([3.0, 1.0, 4.0, -1.0, 5.0, 9.0, 2.0, 6.0])
    ways = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=8)]
    assert sign_flip(values) == np.mean(np.array(ways) >= values.sum())
    many = np.random.default_rng(4).normal(0.4, 1, 40)
    assert sign_flip(many) == pytest.approx(stats.wilcoxon(many).pvalue, abs=0.05)


def test_more_seeds_narrow_what_trainings_add_and_more_rows_what_rows_add():
    random = np.random.default_rng(5)
    found = estimate(*table(random, 2, 40, 1, luck=2.0), 100.0)
    assert found.half_with() == pytest.approx(found.half)
    assert found.half_with(seeds=8) < found.half / 3
    assert found.half_with(rows=160) > 0.8 * found.half
    quiet = estimate(*table(random, 6, 40, 5, luck=0.0), 100.0)
    assert quiet.half_with(seeds=100) > 0.6 * quiet.half
    assert quiet.half_with(rows=400) < quiet.half
