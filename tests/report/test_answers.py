"""Answers side by side."""

import json

from small_run import CONFIG, REFERENCES

from tell_lightning.report.answers import FOLDED_LETTERS, MOST_LETTERS, SHOWN, task_answers
from tell_lightning.report.differences import Piece

JUDGE = {"data": {"tasks": {"turn": {"scoring": {"kind": "judge", "words_field": "words"}}}}}


def verdict(label: str, thought: str) -> str:
    return json.dumps({"thought": thought, "hallucination": label})


def test_answers_of_base_and_adapter_stand_beside_the_reference(contents):
    (found,) = task_answers(contents())
    assert (found.task, found.split, found.step, found.total) == ("turn", "test", 10, 3)
    assert [row.id for row in found.rows] == ["test.jsonl:1", "test.jsonl:2", "test.jsonl:3"]
    first = found.rows[0]
    assert first.reference.pieces == [Piece("same", "the red cat")]
    assert first.base.note == "not marked: too little in common"
    assert Piece("missing", "red") in first.tuned.pieces
    assert Piece("extra", "blue") in first.tuned.pieces
    assert found.rows[2].base.note == "empty"
    assert found.files == [
        "predictions/test-turn-base.jsonl",
        "predictions/test-turn-step-000010.jsonl",
    ]


def test_an_exact_answer_is_called_so_and_counted(contents):
    (found,) = task_answers(contents(answers={"test-turn-step-000010": [*REFERENCES[:2], "no"]}))
    assert [row.tuned.verdict for row in found.rows] == ["exact", "exact", ""]
    assert found.counts == [("tuned", "2 equal to the reference")]
    assert found.rows[0].base is None


def test_a_judges_label_is_right_or_wrong_or_unreadable_and_its_thought_is_kept(contents):
    references = [verdict("yes", "two is not one"), "no", "Yes."]
    answers = [verdict("yes", "two is not three"), verdict("yes", "it fits"), "hm"]
    run = contents(config=JUDGE, answers={"test-turn-step-000010": answers}, references=references)
    (found,) = task_answers(run)
    tuned = [row.tuned for row in found.rows]
    assert [(text.verdict, text.label) for text in tuned] == [
        ("right", "yes"),
        ("wrong", "yes"),
        ("unreadable", ""),
    ]
    assert Piece("extra", "three") in tuned[0].pieces
    assert [row.reference.label for row in found.rows] == ["yes", "no", "yes"]
    assert found.counts == [("tuned", "1 right, 1 wrong, 1 unreadable")]


def test_json_is_right_wrong_or_unreadable(contents):
    config = {"data": {"tasks": {"turn": {"scoring": {"kind": "json"}}}}}
    answers = {"test-turn-step-000010": ['{"b": 2, "a": 1}', '{"a": 2}', "none"]}
    references = ['{"a": 1, "b": 2}'] * 3
    (found,) = task_answers(contents(config=config, answers=answers, references=references))
    assert [row.tuned.verdict for row in found.rows] == ["right", "wrong", "unreadable"]
    assert found.counts == [("tuned", "1 right, 1 wrong, 1 unreadable")]


def test_a_class_that_is_gone_is_read_as_text(contents):
    config = {"data": {"tasks": {"turn": {"scoring": {"kind": "gone.py:Kind"}}}}}
    (found,) = task_answers(contents(config=config))
    assert found.counts[0] == ("base", "0 equal to the reference")


def test_a_saved_label_is_taken_and_listed_words_are_shown(contents):
    run = contents(config=JUDGE, answers={})
    row = {"id": "1", "prediction": "x", "reference": "no", "label": "no", "words": ["a", "b"]}
    path = run.folder.predictions / "dev-turn-step-000010.jsonl"
    path.write_text(json.dumps({**row, "thought": None}), encoding="utf-8")
    (found,) = task_answers(run)
    assert found.split == "dev"
    assert found.rows[0].tuned.verdict == "right"
    assert found.rows[0].words == "a, b"


def test_only_the_first_rows_are_shown_and_all_are_counted(contents):
    many = [f"answer {n}" for n in range(SHOWN + 5)]
    (found,) = task_answers(contents(answers={"test-turn-base": many}, references=many))
    assert len(found.rows) == SHOWN
    assert found.total == SHOWN + 5
    assert found.step is None
    assert found.counts == [("base", f"{SHOWN + 5} equal to the reference")]


def test_a_long_text_is_folded_and_a_longer_one_cut(contents):
    long = "word " * 400
    longer = "word " * 4000
    run = contents(
        answers={"test-turn-step-000010": ["short", long, longer]},
        references=["short", long, longer],
    )
    short, folded, cut = (row.tuned for row in task_answers(run)[0].rows)
    assert short.preview == ()
    assert len("".join(piece.text for piece in folded.preview)) == FOLDED_LETTERS
    assert cut.note == f"{len(longer) - MOST_LETTERS:,} more letters in the file"


def test_the_kept_adapters_answers_are_shown_and_not_those_of_another_step(contents):
    answers = {f"test-turn-step-{n:06d}": REFERENCES for n in (5, 10, 15)}
    answers["test-turn-step-000010-copy"] = answers["test_without_anchor-turn-step-000010"] = [
        "x"
    ] * 3
    (found,) = task_answers(contents(answers=answers))
    assert found.step == 10
    assert all(row.tuned.verdict == "exact" for row in found.rows)


def test_a_row_without_a_reference_is_shown_unmarked(contents):
    run = contents(answers={})
    path = run.folder.predictions / "test-turn-base.jsonl"
    path.write_text('{"id": "1", "prediction": "a b"}\n', encoding="utf-8")
    (found,) = task_answers(run)
    assert found.rows[0].reference is None
    assert found.rows[0].base.pieces == [Piece("same", "a b")]


def test_a_task_without_predictions_is_left_out(contents):
    assert task_answers(contents(answers={})) == []
    assert list(CONFIG["data"]["tasks"]) == ["turn"]
