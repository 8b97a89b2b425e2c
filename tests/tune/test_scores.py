"""What each row adds to a score: a share has its rows, other scores their jackknife."""

import numpy as np
import pytest

from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import score
from tell_lightning.metrics.settings import Scoring
from tell_lightning.tuning.scores import in_order, label, pooled, row_values


def rows(task: str, pairs) -> list[dict[str, str]]:
    return [
        {"id": f"{task}/d:{n:02}", "prediction": answer, "reference": reference}
        for n, (answer, reference) in enumerate(pairs)
    ]


def predictions(given) -> list[Prediction]:
    return [
        Prediction(
            id=row["id"],
            prediction=row["prediction"],
            reference=row["reference"],
            row=row,
            stopped=True,
            prefix_found=None,
            new_tokens=0,
        )
        for row in given
    ]


def test_rows_of_a_share_are_right_or_wrong():
    given = rows("say", [("a", "a"), ("b", "a"), ("a", "a"), ("", "a")])
    assert row_values({"say": Scoring(kind="text")}, given).round(6).tolist() == [100, 0, 100, 0]
    assert pooled({"say": Scoring(kind="text")}, given) == 50


@pytest.mark.parametrize(
    ("kind", "pairs"),
    [
        ("translation", [("the old dog ran all the way home", "the old dog ran all the way")] * 3
                        + [("a red cat sat on it in the sun", "a red cat sat on it at noon")] * 3),
        ("classification", [("a", "a"), ("a", "b"), ("b", "b"), ("a", "a"), ("c", "c")]),
        ("torchmetrics.text.CharErrorRate", [("abc", "abd"), ("xyz", "xyz"), ("k", "kk")]),
    ],
)  # fmt: skip
def test_their_mean_is_the_score_and_a_left_out_row_is_what_it_added(kind, pairs):
    scoring = Scoring(kind=kind)
    given = rows("say", pairs)
    values = row_values({"say": scoring}, given)
    whole = 100 * score(scoring, predictions(given)).selection
    assert values.mean() == pytest.approx(whole) == pytest.approx(pooled({"say": scoring}, given))
    rest = 100 * np.array(
        [score(scoring, predictions([*given[:n], *given[n + 1 :]])).selection
         for n in range(len(given))]
    )  # fmt: skip
    added = (len(given) - 1) * (rest.mean() - rest)
    assert (values - values.mean()) == pytest.approx(added, abs=1e-6)


def test_each_task_counts_the_same():
    scorings = {"a": Scoring(kind="text"), "b": Scoring(kind="text")}
    given = [*rows("b", [("x", "x")] * 2), *rows("a", [("x", "y")] * 5 + [("x", "x")])]
    values = row_values(scorings, given)
    assert values.mean() == pytest.approx((100 / 6 + 100) / 2)
    assert [row["id"][0] for row in in_order(given)] == ["a"] * 6 + ["b"] * 2


def test_the_score_is_named_with_its_scale_where_it_has_another():
    assert label({"say": Scoring(kind="translation")}) == "BLEU"
    named = label({"say": Scoring(kind="torchmetrics.text.CharErrorRate")})
    assert named.endswith(", in points of 0 to 100")
