"""The table of answers: what stands in a row, and what each kind of task is scored by."""

from types import SimpleNamespace
from typing import Any

import pytest
import sacrebleu

from tell_lightning.callbacks.samples import LONGEST, log_samples, samples_table
from tell_lightning.data.anchors import Example
from tell_lightning.data.evaluation_rows import EvaluationRows
from tell_lightning.data.records import Turn
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.settings import Scoring


def answered(scoring: Scoring, *pairs: tuple[str, str | None]) -> tuple[Any, list[Prediction]]:
    examples = tuple(
        Example(f"row:{n}", "file:1", (Turn("user", f"question {n}"), Turn("assistant", "x")), {})
        for n in range(len(pairs))
    )
    rows = EvaluationRows(
        task="t",
        records=(),
        examples=examples,
        prompts=(),
        references=(),
        response_prefix="",
        stop_ids=(),
        max_new_tokens=1,
        scoring=scoring,
    )
    predictions = [
        Prediction(
            id=f"row:{n}",
            prediction=answer,
            reference=reference,
            row={},
            stopped=True,
            prefix_found=None,
            new_tokens=1,
        )
        for n, (answer, reference) in enumerate(pairs)
    ]
    return rows, predictions


def test_translation_is_scored_by_the_chrf_of_sacrebleu_over_the_joined_lines() -> None:
    pair = ("The cat\ncried.", "The cat cries.")
    columns, table = samples_table(*answered(Scoring(kind="translation"), pair))
    assert columns == ["id", "prompt", "prediction", "reference", "chrf"]
    outside = sacrebleu.sentence_chrf("The cat cried.", ["The cat cries."]).score
    assert table == [["row:0", "question 0", *pair, round(outside, 1)]]


def test_judge_has_its_label_and_whether_it_is_right() -> None:
    yes, no = '{"hallucination": "yes"}', '{"hallucination": "no"}'
    columns, table = samples_table(
        *answered(Scoring(kind="judge"), (yes, yes), (no, yes), ("?", no))
    )
    assert columns[4:] == ["label", "right"]
    assert [row[4:] for row in table] == [["yes", True], ["no", False], ["unparseable", False]]


def test_text_has_exact_match() -> None:
    columns, table = samples_table(*answered(Scoring(), (" a\n", "a"), ("b", "a")))
    assert columns[4:] == ["exact_match"]
    assert [row[4] for row in table] == [True, False]


def test_missing_reference_is_an_empty_text_and_a_long_text_is_cut() -> None:
    _, ((_, _, prediction, reference, _),) = samples_table(
        *answered(Scoring(), ("long " * LONGEST, None))
    )
    assert reference == ""
    assert len(prediction) == LONGEST
    assert prediction.endswith("…")


def test_prompt_is_every_turn_before_the_answer() -> None:
    rows, predictions = answered(Scoring(), ("a", "a"))
    turns = (Turn("system", "Anchor."), Turn("user", "Q?"), Turn("assistant", "a"))
    example = Example("row:0", "file:1", turns, {})
    rows = SimpleNamespace(examples=(example,), scoring=rows.scoring)
    assert samples_table(rows, predictions)[1][0][1] == "Anchor.\n\nQ?"


@pytest.mark.parametrize(("most", "sent"), [(2, 2), (9, 3), (0, None)])
def test_table_is_capped_and_goes_to_the_loggers_that_take_it(most: int, sent: int | None) -> None:
    tables: list[dict[str, Any]] = []
    takes = SimpleNamespace(log_table=lambda key, **table: tables.append({"key": key, **table}))
    trainer: Any = SimpleNamespace(loggers=[object(), takes], is_global_zero=True, global_step=7)
    rows, predictions = answered(Scoring(), *[("a", "a")] * 3)
    log_samples(trainer, "val/t/samples", rows, predictions, most)
    assert [len(table["data"]) for table in tables] == ([] if sent is None else [sent])
    assert all((table["key"], table["step"]) == ("val/t/samples", 7) for table in tables)
    trainer.is_global_zero = False
    log_samples(trainer, "val/t/samples", rows, predictions, most)
    assert len(tables) <= 1
