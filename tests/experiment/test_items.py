import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from tell_lightning.experiment.items import SCORES, items
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import score
from tell_lightning.metrics.settings import Scoring

ANSWERS = {
    "bleu": [
        ("the small dog sees the red house .", "the small dog sees a red house ."),
        ("", "the bird sings ."),
        ("a b", "the bird\nsings ."),
        ("the large cat sleeps here today .", "the large cat sleeps here ."),
    ],
    "balanced_accuracy": [
        ('{"hallucination": "yes"}', '{"hallucination": "yes"}'),
        ('{"hallucination": "no"}', '{"hallucination": "yes"}'),
        ("no", '{"hallucination": "no"}'),
        ('{"hallucination": "no"}', '{"hallucination": "no"}'),
        ('{"hallucination": "no"}', '{"hallucination": "no"}'),
    ],
    "accuracy": [("Book flight.", "book flight"), ("translate", "book flight"), ("?", "translate")],
    "exact_match": [("a b", "a b"), ("a", "b"), ("c", "c")],
}
SCORING = {
    "bleu": Scoring(kind="translation"),
    "balanced_accuracy": Scoring(kind="judge"),
    "accuracy": Scoring(kind="classification"),
    "exact_match": Scoring(),
}


def lines(name):
    return [
        {"id": f"row-{9 - index}", "prediction": answer, "reference": reference}
        for index, (answer, reference) in enumerate(ANSWERS[name])
    ]


@pytest.mark.parametrize("name", SCORES)
def test_the_score_of_the_sum_is_the_score_of_the_set(name):
    rows = [
        Prediction(**line, row={}, stopped=True, prefix_found=None, new_tokens=1)
        for line in lines(name)
    ]
    value = score(SCORING[name], rows).values[name]
    found = items(name, lines(name), SCORING[name])
    assert found["statistic"] == name
    widths = {"bleu": 10, "balanced_accuracy": 4, "accuracy": 2, "exact_match": 2}
    assert {len(row) for row in found["rows"]} == {widths[name]}
    points = float(SCORES[name](np.sum(found["rows"], axis=0)))
    assert points == pytest.approx(value * (1 if name == "bleu" else 100), abs=1e-9)


def test_many_labels_have_two_numbers_each_the_positive_one_first():
    pairs = [("a", "a"), ("b", "c"), ("?", "b")]
    rows = [
        {"id": str(index), "prediction": answer, "reference": reference}
        for index, (answer, reference) in enumerate(pairs)
    ]
    scoring = Scoring(kind="classification", positive="b")
    found = items("balanced_accuracy", rows, scoring)
    assert found["rows"] == [[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 0, 1], [0, 1, 0, 0, 0, 0]]
    points = SCORES["balanced_accuracy"](np.sum(found["rows"], axis=0))
    assert float(points) == pytest.approx(100 / 3)


def test_rows_stand_in_the_order_of_their_ids():
    found = items("exact_match", lines("exact_match"), Scoring())
    assert found["rows"] == [[1, 1], [0, 1], [1, 1]][::-1]
    shuffled = lines("exact_match")[1:] + lines("exact_match")[:1]
    assert items("exact_match", shuffled, Scoring()) == found


def test_bleu_of_many_sums_at_once_is_that_of_sacrebleu():
    source = np.random.default_rng(0)
    total = source.integers(0, 5, size=(300, 4))
    correct = np.minimum(source.integers(0, 4, size=(300, 4)), total)
    lengths = source.integers(0, 9, size=(300, 2))
    sums = np.concatenate([correct, total, lengths], axis=1)
    expected = [
        BLEU.compute_bleu(
            list(row[:4]), list(row[4:8]), int(row[8]), int(row[9]), smooth_method="exp"
        ).score
        if row[8]
        else 0.0
        for row in sums.tolist()
    ]
    sums[:, 4:8] *= sums[:, 8:9] > 0  # an empty answer has no n-grams
    sums[:, :4] *= sums[:, 8:9] > 0
    assert SCORES["bleu"](sums) == pytest.approx(expected, abs=1e-9)


def test_a_draw_without_a_label_averages_the_labels_that_it_holds():
    assert SCORES["balanced_accuracy"](np.array([[3, 4, 0, 0], [0, 0, 0, 0]])).tolist() == [75, 0]
