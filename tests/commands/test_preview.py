"""`plan` and the start of `fit` say what scores can be, and refuse what cannot be scored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import says

from tell_lightning.cli import main

Plan = Callable[..., list[str]]


def rows(references: list[str], **fields: list[str]) -> list[dict[str, str]]:
    more = [{name: values[i] for name, values in fields.items()} for i in range(len(references))]
    return [
        {"prompt": f"question {i}", "response": reference, **each}
        for i, (reference, each) in enumerate(zip(references, more, strict=True))
    ]


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., Path]:
    """Write a configuration with one task, whose rows are given by split."""

    def write(
        scoring: dict[str, Any], splits: dict[str, list[dict[str, str]]], **sections: Any
    ) -> Path:
        task: dict[str, Any] = {"scoring": scoring}
        for split, given in {"train": next(iter(splits.values())), **splits}.items():
            path = tmp_path / f"{split}.jsonl"
            lines = (json.dumps({**row, "prompt": f"{split} {row['prompt']}"}) for row in given)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            task[split] = path.name
        data = {"root": str(tmp_path), "tasks": {"mine": task}, "general": {}}
        data |= {"mixture": {"arm": "sft", "task_share": None, "task_examples": None}}
        data |= {"cache_dir": str(tmp_path / "cache")}
        config = {"data": data, "model": {"base": "microworld"}, "trainer": {"max_steps": 2}}
        config |= sections
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    return write


@pytest.fixture
def plan(configured: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> Plan:
    """Run `plan` and return what it says of scoring, with the notes last."""

    def run(scoring: dict[str, Any], **splits: list[dict[str, str]]) -> list[str]:
        main(["plan", "-c", str(configured(scoring, splits))])
        said = capsys.readouterr()
        screen = said.out[said.out.index("Left out:") :].splitlines()[1:]
        return [
            *screen,
            *(line for line in said.err.splitlines() if line.startswith("note: data.")),
        ]

    return run


def refusal(plan: Plan, capsys: pytest.CaptureFixture[str], *given: Any, **splits: Any) -> str:
    with pytest.raises(SystemExit) as exit_:
        plan(*given, **splits)
    assert exit_.value.code == 2
    return capsys.readouterr().err.splitlines()[-1].removeprefix("error: ")


def test_references_and_baselines_are_scored_and_the_choice_is_told(plan: Plan) -> None:
    scoring = {
        "kind": "classification",
        "baselines": {"always_cat": {"text": "cat"}, "first_word": {"field": "hint"}},
    }
    dev = rows(["cat", "dog", "cat", "cow"], hint=["cat", "cat", "dog", "cow"])
    found = plan(scoring, dev=dev, train=rows(["cat", "dog", "cow"]))
    assert found == [
        "mine: balanced accuracy of 4 dev rows: references 1.00, always cat 0.33, first word 0.50",
        "The adapter with the best balanced accuracy on dev is kept.",
    ]


def test_without_dev_rows_the_test_rows_are_shown_and_the_last_step_is_kept(plan: Plan) -> None:
    found = plan({"kind": "text"}, test=rows(["a b", "c d"]))
    assert found == [
        "mine: exact match of 2 test rows: references 100.0%",
        "The adapter of the last step is kept: there are no dev rows.",
    ]


def test_bleu_is_told_with_its_tokenizer_and_a_wrong_one_is_warned_of(plan: Plan) -> None:
    dev = rows(["今天天气很好我们去公园吧", "他昨天坐火车去了上海"])
    first, *_ = plan({"kind": "translation"}, dev=dev)
    assert first == "mine: BLEU (zh) of 2 dev rows: references 100.0"
    *_, note = plan({"kind": "translation", "tokenize": "13a", "primary": "chrf"}, dev=dev)
    assert note.startswith("note: data.tasks.mine.scoring.tokenize: 13a")


@pytest.mark.parametrize(
    ("scoring", "references", "message"),
    [
        (
            {"kind": "classification", "labels": ["cat", "dog"]},
            ["cat", "mouse"],
            says("data.tasks.mine.test", rule="cat, dog", got="'mouse'", cure="Correct"),
        ),
        (
            {"kind": "json"},
            ['{"a": 1}', "{'a': 1}"],
            says("data.tasks.mine.test", rule="must be JSON", got="\"{'a'", cure="Correct the row"),
        ),
        (
            {"kind": "text", "words_field": "words"},
            ["a", "b"],
            says("data.tasks.mine.test", rule="list of words", got="None", cure="words_field"),
        ),
        (
            {"kind": "text", "baselines": {"copy": {"field": "source"}}},
            ["a", "b"],
            says(
                "data.tasks.mine.scoring.baselines.copy.field",
                rule="'source'",
                got="None",
                cure="has",
            ),
        ),
        (
            {"kind": "classification", "labels": ["cat", "mouse"], "primary": "f1"},
            ["cat", "mouse"],
            says("data.tasks.mine.scoring.kind", rule="'f1'", got="accuracy", cure="primary"),
        ),
        (
            {"kind": "translation"},
            ["yes", "no way"],
            says("data.tasks.mine.scoring.primary", rule="above 0", got="bleu 0.0", cure="chrf"),
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(
    scoring: dict[str, Any],
    references: list[str],
    message: object,
    plan: Plan,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(plan, capsys, scoring, test=rows(references)) == message


def test_fit_refuses_the_same_and_leaves_no_folder(
    configured: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configured({"kind": "json"}, {"dev": rows(['{"a": 1}', "a: 1"])})
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(path), f"--run.dir={tmp_path / 'runs'}"])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == says(
        "error: data.tasks.mine.dev", rule="must be JSON", got="'a: 1'", cure="Correct the row"
    )
    assert not (tmp_path / "runs").exists()


def test_labels_that_no_reference_has_and_a_single_label_are_noted(plan: Plan) -> None:
    *_, note = plan(
        {"kind": "classification", "labels": ["cat", "dog", "Mouse"]}, dev=rows(["cat", "dog"])
    )
    assert note.startswith("note: data.tasks.mine.scoring.labels: no reference has Mouse")
    *_, note = plan(
        {"kind": "judge"}, train=rows(['{"hallucination": "no"}']), dev=rows(["no", "No."])
    )
    assert "all references have 'no'" in note


def test_a_baseline_as_good_as_the_references_is_noted(plan: Plan) -> None:
    scoring = {"kind": "text", "baselines": {"copy": {"field": "hint"}}}
    *_, note = plan(scoring, dev=rows(["a", "b"], hint=["a", "b"]))
    assert note.startswith("note: data.tasks.mine.scoring.baselines.copy: it scores 100.0")


def test_a_judge_of_other_labels_needs_no_positive_one(plan: Plan) -> None:
    scoring = {"kind": "judge", "label_key": "topic", "labels": ["sport", "politics"]}
    answers = [json.dumps({"topic": topic}) for topic in ("sport", "politics", "sport")]
    first, *_ = plan(scoring, dev=rows(answers))
    assert first == "mine: balanced accuracy of 3 dev rows: references 1.00"


def test_plain_labels_are_refused_as_responses_of_a_judge_and_taken_as_its_references(
    plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    written, bare = (
        rows(['{"hallucination": "no"}', '{"hallucination": "yes"}']),
        rows(["no", "Yes."]),
    )
    first, *_ = plan({"kind": "judge"}, train=written, dev=bare)
    assert first == "mine: balanced accuracy of 2 dev rows: references 1.00"
    said = refusal(plan, capsys, {"kind": "judge"}, train=bare, dev=written)
    assert said == says(
        "data.tasks.mine.train", rule="can read", got="'no' (in 2 of 2", cure="classification"
    )
    *_, note = [*plan({"kind": "judge"}, train=[*written, *bare], dev=written)]
    assert "in 2 of 4 rows" in note
