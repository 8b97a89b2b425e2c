"""The data-equivalence ratio: by hand, as scipy finds roots, 1 where nothing helps, with bounds."""

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from tell_lightning.experiment.equivalence import Bound, equivalence, reach
from tell_lightning.experiment.statistics import Samples, StatisticsError

SIZES = (3, 10, 30, 100, 300, 1000, 3000)


def exactly(*values: float) -> Samples:
    """Scores of seeds 0, 1, ..."""
    return Samples.of_losses(dict(enumerate(values)))


def learned(n: float, random, seeds: int = 10) -> Samples:
    """A curve that rises from 0 to 100 around n = 100, with seeds of unequal luck."""
    mean = 100 / (1 + np.exp(-2 * np.log(n / 100)))
    return exactly(*(mean + random.normal(scale=4, size=seeds)))


def test_ratio_and_tokens_are_those_by_hand():
    # Two knots: a line in log n, half way at the geometric mean of 10 and 1000.
    curve = {10: exactly(0, 0, 0), 1000: exactly(100, 100, 100)}
    found = equivalence(exactly(50, 50, 50), 10, curve, (40_000, {10: 1000, 1000: 100_000}))
    assert found.examples.value == Bound(10)
    assert (found.examples.low, found.examples.high) == (Bound(10), Bound(10))
    assert found.tokens is not None
    assert found.tokens.value == Bound(0.25)  # 10,000 tokens of the curve, 40,000 of TELL
    assert (found.n, found.seeds) == (10, 3)
    assert found.by_seed == {0: Bound(10), 1: Bound(10), 2: Bound(10)}


def test_where_curves_get_there_is_where_scipy_finds_the_root():
    random = np.random.default_rng(0)
    logs = np.log(SIZES)
    curves = np.sort(random.uniform(0, 100, size=(len(SIZES), 50)), axis=0)
    targets = random.uniform(curves[0], curves[-1])
    found, sides = reach(logs, curves, targets)
    assert set(sides) == {1}
    for curve, target, log in zip(curves.T, targets, found, strict=True):
        smooth = PchipInterpolator(logs, curve)
        root = brentq(lambda at, f=smooth, t=target: f(at) - t, logs[0], logs[-1], xtol=1e-13)
        assert log == pytest.approx(root, abs=1e-9)


def test_a_dip_is_pooled_and_a_plateau_is_reached_at_its_first_n():
    logs = np.log([1.0, 10, 100, 1000])
    curve = np.array([[0.0], [30], [10], [40]])  # never falling: 0, 20, 20, 40
    found, sides = reach(logs, curve, np.array([20.0]))
    assert np.exp(found) == pytest.approx([10])
    assert sides.tolist() == [1]


def test_where_tell_is_sft_the_ratio_is_about_one():
    random = np.random.default_rng(1)
    curve = {n: learned(n, random) for n in SIZES}
    found = equivalence(learned(100, random), 100, curve)
    assert found.examples.value.value == pytest.approx(1, rel=0.15)
    assert found.examples.low.value < 1 < found.examples.high.value


def test_where_tell_needs_a_tenth_the_ratio_is_about_ten():
    random = np.random.default_rng(2)
    curve = {n: learned(n, random) for n in SIZES}
    found = equivalence(learned(100, random), 10, curve)
    assert found.examples.value.value == pytest.approx(10, rel=0.15)
    assert 7 < found.examples.low.value < 10 < found.examples.high.value < 14
    assert str(found.examples).startswith(str(found.examples.value) + " [")


def test_the_interval_holds_the_true_ratio_about_19_times_of_20():
    random = np.random.default_rng(3)
    times, inside = 100, 0
    for _ in range(times):
        curve = {n: learned(n, random) for n in (30, 100, 300)}
        ratio = equivalence(learned(100, random), 10, curve, draws=400).examples
        inside += ratio.low.value <= 10 <= ratio.high.value
    assert 0.88 <= inside / times <= 0.99


def test_what_lies_beyond_the_curve_keeps_its_bound():
    curve = {10: exactly(10, 10, 10), 3000: exactly(60, 60, 60)}
    above = equivalence(exactly(70, 70, 70), 10, curve, (1000, {10: 1000, 3000: 20_000}))
    assert str(above.examples) == "≥ 300 [≥ 300, ≥ 300]"
    assert str(above.tokens) == "≥ 20 [≥ 20, ≥ 20]"
    below = equivalence(exactly(5, 5, 5), 100, curve)
    assert str(below.examples) == "≤ 0.1 [≤ 0.1, ≤ 0.1]"


def test_an_end_of_the_interval_may_be_a_bound_where_the_ratio_is_none():
    curve = {10: exactly(*[10] * 5), 3000: exactly(*[60] * 5)}
    found = equivalence(exactly(20, 50, 55, 58, 80), 10, curve)
    assert found.examples.value.side == "exact"
    assert found.examples.low.side == "exact"
    assert found.examples.high == Bound(300, "at_least")
    assert found.by_seed[4] == Bound(300, "at_least")
    assert found.by_seed[0].side == "exact"


def test_a_size_with_fewer_seeds_is_averaged_over_those_that_it_has():
    curve = {10: exactly(0, 0, 0, 0), 1000: exactly(90, 110)}
    found = equivalence(exactly(40, 50, 60), 10, curve)
    assert (found.seeds, found.examples.value) == (2, Bound(10))
    assert sorted(found.by_seed) == [0, 1]
    other = {10: exactly(0, 0), 1000: Samples("loss", (7, 8), exactly(100, 100).counts)}
    assert equivalence(exactly(50, 50), 10, other).by_seed == {}
    assert equivalence(exactly(50, 50), 10, other).examples.value == Bound(10)


def test_a_size_of_more_seeds_has_more_weight_where_the_curve_falls():
    logs = np.log([10.0, 100])
    falling = np.array([[30.0], [0]])
    (found, sides), (_, alike) = (
        reach(logs, falling, np.array([19.0]), weights) for weights in ([2, 1], None)
    )
    assert (np.exp(found), sides.tolist()) == (pytest.approx([10]), [0])  # pooled at 20
    assert alike.tolist() == [2]  # pooled at 15


def test_fewer_seeds_at_some_sizes_leave_the_interval_honest():
    random = np.random.default_rng(4)
    times, inside, width = 60, 0, {5: 0.0, 10: 0.0}
    for _ in range(times):
        curve = {n: learned(n, random, 10 if n == 100 else 5) for n in (30, 100, 300)}
        tell = learned(100, random)
        for seeds in width:
            few = tell.only(range(seeds))
            ratio = equivalence(few, 10, curve, draws=300).examples
            width[seeds] += np.log(ratio.high.value / ratio.low.value)
        inside += ratio.low.value <= 10 <= ratio.high.value
    assert inside / times >= 0.88
    assert width[10] < 0.95 * width[5]  # TELL's other seeds count


def test_a_baseline_of_one_size_has_no_curve():
    with pytest.raises(StatisticsError) as error:
        equivalence(exactly(50), 10, {10: exactly(0)})
    assert str(error.value) == (
        "equivalence: the baseline must have two sizes or more, got [10]. Run more."
    )
