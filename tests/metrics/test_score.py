import subprocess
import sys

import pytest

from tell_lightning.errors import TellError
from tell_lightning.metrics.score import baselines, score
from tell_lightning.metrics.settings import Baseline, Scoring

YES, NO = '{"hallucination": "yes"}', '{"hallucination": "no"}'
JUDGE = Scoring(
    kind="judge", baselines={"always_yes": Baseline(text=YES), "always_no": Baseline(text=NO)}
)


def test_the_paper_s_halu_file_has_its_known_baselines_and_ceiling(read_tell, predict, saved):
    gold = [row["response"] for row in read_tell("test_Halu_CoT_JSON.jsonl")]
    oracle = predict([YES if label == "yes" else NO for label in gold], gold)
    junk = predict(["I cannot tell."] * len(gold), gold)

    best = score(JUDGE, saved(oracle, JUDGE)).values
    worst = score(JUDGE, saved(junk, JUDGE)).values
    for name in ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc"):
        assert best[name] == 1
        assert worst[name] == 0
    assert (best["rows"], best["unparseable"], best["label_valid"]) == (1506, 0, 1)
    assert (worst["unparseable"], worst["label_valid"], worst["json_valid"]) == (1506, 0, 0)
    assert (best["json_valid_repaired"], worst["json_valid_repaired"]) == (1, 0)

    no, yes = (baselines(JUDGE, oracle)[name].values for name in ("always_no", "always_yes"))
    assert round(no["accuracy"], 3) == 0.813
    assert no["accuracy"] == no["majority_accuracy"] == worst["majority_accuracy"]
    assert no["balanced_accuracy"] == yes["balanced_accuracy"] == 0.5
    assert (no["precision"], no["recall"], no["f1"], no["mcc"]) == (0, 0, 0, 0)
    assert yes["recall"] == 1
    assert yes["precision"] == yes["accuracy"] == pytest.approx(282 / 1506)


def test_judge_scores_have_their_names_and_tell_json_from_labels(predict):
    answers = [YES, '{"hallucination": "perhaps"}', '{"thought": 1}', "yes"]
    scores = score(JUDGE, predict(answers, [YES, NO, "yes", "no"]))
    assert set(scores.values) == {
        *("rows", "accuracy", "balanced_accuracy", "precision", "recall", "f1", "mcc"),
        *("majority_accuracy", "json_valid", "json_valid_repaired", "label_valid", "unparseable"),
        *("empty_rate", "stop_rate", "cap_rate", "mean_new_tokens", "near_ties"),
    }
    assert scores.values["json_valid"] == 0.75
    assert scores.values["majority_accuracy"] == 0.5
    assert scores.values["label_valid"] == 0.25
    assert scores.values["unparseable"] == 3
    assert (scores.primary, scores.selection) == ("balanced_accuracy", 0.25)
    assert scores.signatures == {}
    assert all(isinstance(value, float) for value in scores.values.values())


def test_text_scores_are_exact_match_and_rates(predict):
    scores = score(Scoring(), predict(["a", ""], ["a", "b"], prefix_found=True))
    assert scores.values == {
        "rows": 2,
        "exact_match": 0.5,
        "empty_rate": 0.5,
        "stop_rate": 1,
        "cap_rate": 0,
        "prefix_rate": 1,
        "mean_new_tokens": 3,
        "near_ties": 0,
    }
    assert (scores.primary, scores.selection) == ("exact_match", 0.5)


def test_translation_scores_have_listed_words_apart(predict):
    scoring = Scoring(
        kind="translation", words_field="rare", baselines={"copy": Baseline(field="src")}
    )
    rows = [{"rare": ["kisa"], "src": "cat"}, {"rare": [], "src": " Kisa "}]
    predictions = predict(["Kisa sefur.", "x"], ["Kisa sefur.", "y"], rows)
    values = score(scoring, predictions).values
    assert (values["words"], values["words_recall"], values["exact_match"]) == (1, 1, 0.5)
    copied = baselines(scoring, predictions)["copy"]
    assert copied.values["words_recall"] == 0
    generated = {"stop_rate", "cap_rate", "mean_new_tokens", "near_ties"}
    assert copied.values.keys() == values.keys() - generated
    nothing_listed = score(scoring, predict(["a"], ["a"], [{"rare": []}]))
    assert "words_recall" not in nothing_listed.values


def test_the_order_of_predictions_does_not_matter(predict):
    references = [f"The cat number {i} sleeps on mat {i % 3}." for i in range(9)]
    predictions = predict([r.replace("3", "4") for r in references], references)
    scoring = Scoring(kind="translation")
    assert score(scoring, predictions) == score(scoring, predictions[::-1])


@pytest.mark.parametrize(
    ("scoring", "references", "message"),
    [
        (Scoring(), [], r"^score: needs one prediction or more, got none\."),
        (
            Scoring(),
            ["a", None, None],
            r"^row 'r1': a scored row needs a reference, got None \(in 2 of 3 rows\)\. Map",
        ),
        (Scoring(kind="translation"), [" "], r"^row 'r0': .* needs a reference, got ' '"),
        (
            JUDGE,
            ["no", "perhaps"],
            r"^row 'r1': the reference must be one of no, yes, .* got 'perhaps'\. Correct",
        ),
        (
            Scoring(kind="judge", positive="ja"),
            ["no"],
            r"^scoring\.positive: must be one of scoring\.labels \(no, yes\), got 'ja'\. Name",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(scoring, references, message, predict):
    predictions = predict(["x"] * len(references), references)
    with pytest.raises(TellError, match=message):
        score(scoring, predictions)


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        (Baseline(), r"^scoring\.baselines\.f: needs either field or text, got neither\. Give"),
        (Baseline(field="a", text="b"), r"^scoring\.baselines\.f: needs .*, got both\. Give one"),
        (
            Baseline(field="b"),
            r"^scoring\.baselines\.f\.field: .* 'b', got None in row 'r0'\. The row has: a, c\.",
        ),
        (Baseline(field="c"), r"needs the text field 'c', got 1 in row 'r0'"),
    ],
)
def test_a_baseline_that_says_nothing_is_refused(baseline, message, predict):
    predictions = predict(["x"], ["x"], [{"a": "x", "c": 1}])
    with pytest.raises(TellError, match=message):
        baselines(Scoring(baselines={"f": baseline}), predictions)


def test_no_baselines_and_an_empty_constant_are_fine(predict):
    predictions = predict(["x"], ["x"])
    assert baselines(Scoring(), predictions) == {}
    silent = baselines(Scoring(baselines={"f": Baseline(text="")}), predictions)["f"]
    assert silent.values == {"rows": 1, "empty_rate": 1, "exact_match": 0}


def test_metrics_import_without_torch_lightning_or_sacrebleu():
    code = (
        "import sys, tell_lightning.metrics.score; "
        "print(*sorted({'torch', 'lightning', 'transformers', 'sacrebleu'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    )
    assert result.stdout.strip() == ""
