"""`compare`: two predictions files in, one line a score out; files of other rows are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from messages import says

from tell_lightning.cli import main
from tell_lightning.commands.compare import read_predictions
from tell_lightning.metrics.predictions import Prediction
from tell_lightning.metrics.score import saved_row
from tell_lightning.metrics.settings import Scoring

REFERENCES = [f"The cat number {n} sleeps on the mat.\nIt dreams of milk." for n in range(6)]
GOOD = [text.replace("milk", "fish") for text in REFERENCES]
BAD = [text.replace("\n", " ").replace("cat", "dog").replace("mat", "rug") for text in REFERENCES]


def write(path: Path, answers: list[str], references: list[str], **more: object) -> str:
    """Write predictions as an evaluation does."""
    pairs = zip(answers, references, strict=True)
    rows = [
        {"id": f"r{n}", "prediction": answer, "reference": reference, "stopped": True, **more}
        for n, (answer, reference) in enumerate(pairs)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def verdicts(*labels: str) -> list[str]:
    return [json.dumps({"thought": "It fits.", "verdict": label}) for label in labels]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A bad and a good translation of the same rows."""
    return [
        write(tmp_path / "bad.jsonl", BAD, REFERENCES),
        write(tmp_path / "good.jsonl", GOOD, REFERENCES),
    ]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with two tasks, of which one name begins with the other."""
    scoring = {"kind": "judge", "label_key": "verdict", "labels": ["a", "b"], "positive": "b"}
    floors = {"always_a": {"text": "a"}}
    tasks = {
        "judge": {"train": "x.jsonl", "scoring": scoring | {"floors": floors}},
        "judge-step-1": {"train": "y.jsonl", "scoring": {"kind": "translation"}},
    }
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        yaml.safe_dump({"data": {"tasks": tasks}, "model": {"base": "b"}})
    )
    return folder


def jsonl(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, object]]:
    main(["compare", *arguments, "--format=jsonl"])
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {line.pop("score"): line for line in lines}


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["compare", *arguments])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err.removeprefix("error: ")


def test_lines_hold_values_difference_interval_and_p_value(files, capsys):
    found = jsonl(capsys, *files, "--kind", "translation")
    names = {"bleu", "chrf", "chrf_pp"}
    assert found.keys() == names | {f"{n}_lines" for n in names} | {"ter_lines", "exact_match"}
    bleu = found["bleu"]
    assert list(bleu) == ["rows", "a", "b", "difference", "low", "high", "p_value", "signature"]
    assert bleu["difference"] == bleu["b"] - bleu["a"] > 0
    assert bleu["low"] <= bleu["difference"] <= bleu["high"]
    assert bleu["p_value"] == 2 / 2**6  # all exchanges of six rows; two are as far apart
    assert found["bleu_lines"]["a"] == 0
    assert found["exact_match"] == {
        **{"rows": 6, "a": 0, "b": 0, "difference": 0, "low": 0, "high": 0, "p_value": 1},
    }


def test_table_says_the_same_with_signatures(files, capsys):
    found = jsonl(capsys, *files, "--kind=translation")
    main(["compare", *files, "--kind=translation"])
    screen = capsys.readouterr().out
    assert f"A: {files[0]}\nB: {files[1]}\n6 rows\n" in screen
    one = found["chrf"]
    values = [f"{one[key]:.2f}" for key in ("a", "b", "difference")]
    (line,) = re.findall(r"^chrf .*$", screen, re.M)
    assert line.split()[1:4] == values
    assert line.split()[-1] == "0.0312"
    assert "two-sided, all 64 exchanges" in screen
    assert "95% interval of B - A, from 1,000 draws" in screen
    assert screen.count("bleu, bleu_lines: nrefs:1|") == 1
    assert "ter_lines: lower is better." in screen


def test_a_run_s_files_are_scored_as_the_run_says(run, capsys):
    gold = ["a", "b", "a", "b"]
    first = write(run / "predictions/test-judge-base.jsonl", verdicts(*"aabb"), gold)
    second = write(run / "predictions/test-judge-step-000250.jsonl", verdicts(*"abab"), gold)
    found = jsonl(capsys, first, second)
    assert (found["accuracy"]["a"], found["accuracy"]["b"]) == (0.5, 1)
    other = write(run / "predictions/dev-judge-step-1-step-000250.jsonl", GOOD, REFERENCES)
    assert "bleu" in jsonl(capsys, other, other)
    assert error(capsys, first, other) == says("compare", got="Scoring(")
    swapped = run / "predictions/test_without_anchor-judge-step-1-step-000250.jsonl"
    assert "bleu" in jsonl(capsys, other, write(swapped, GOOD, REFERENCES))
    wrong = write(run / "predictions/test-turn-base.jsonl", ["a"], ["a"])
    assert error(capsys, wrong, wrong) == says(
        str(wrong), rule=["judge-step-1", "SPLIT-TASK-MOMENT.jsonl"], got="'turn'", cure="--kind"
    )


def test_a_resumed_run_s_files_are_scored_as_its_last_session_says(run, capsys):
    file = write(run / "predictions/test-judge-base.jsonl", GOOD, REFERENCES)
    tasks = {"judge": {"train": "x.jsonl", "scoring": {"kind": "translation"}}}
    (run / "config.resume-1700000000.yaml").write_text(
        yaml.safe_dump({"data": {"tasks": tasks}, "model": {"base": "b"}})
    )
    assert "bleu" in jsonl(capsys, file, file)


def test_answers_of_predict_are_scored_as_the_run_says_in_which_one_of_them_lies(
    run, tmp_path, capsys
):
    gold = ["a", "b", "a", "b"]
    mine = write(run / "predictions/mine.jsonl", verdicts(*"aabb"), gold, task="judge")
    base = write(tmp_path / "base.jsonl", verdicts(*"abab"), gold, task="judge")
    for files in ((mine, base), (base, mine)):
        found = jsonl(capsys, *files)
        assert {found["accuracy"]["a"], found["accuracy"]["b"]} == {0.5, 1}
    other = write(run / "predictions/other.jsonl", verdicts("a"), ["a"], task="turn")
    assert error(capsys, base, other) == says(
        other, rule="SPLIT-TASK-MOMENT.jsonl", got="'turn'", cure="--kind"
    )


def test_labels_that_the_run_does_not_give_are_those_of_both_files(run, capsys):
    tasks = {"colour": {"train": "x.jsonl", "scoring": {"kind": "classification"}}}
    (run / "config.yaml").write_text(
        yaml.safe_dump({"data": {"tasks": tasks}, "model": {"base": "b"}})
    )
    folder = run / "predictions"
    gold = ["red", "red", "green", "green"]
    first = write(folder / "test-colour-base.jsonl", ["red", "?", "Green.", "blue"], gold)
    second = write(folder / "test-colour-step-000002.jsonl", gold, gold, label="blue")
    found = jsonl(capsys, first, second)
    assert (found["balanced_accuracy"]["a"], found["balanced_accuracy"]["b"]) == (0.5, 1)
    # blue is a label, for a file says so: the answer is readable, and wrong.
    assert found["label_valid"]["a"] == 0.75
    assert found["macro_f1"]["a"] == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert "label_valid" in jsonl(capsys, first, second, "--kind=classification")


def test_a_class_path_may_say_how_files_are_scored(files, tmp_path, monkeypatch, capsys):
    found = jsonl(capsys, *files, "--kind=torchmetrics.text.WordErrorRate")
    assert found["word_error_rate"]["difference"] < 0
    main(["compare", *files, "--kind=torchmetrics.text.WordErrorRate"])
    assert "word_error_rate: lower is better." in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from tell_lightning.metrics.kinds import KindScores, ScoreFacts, ScoringKind\n"
        "class Span(ScoringKind):\n"
        "    facts, primary = {'span': ScoreFacts('span')}, 'span'\n"
        "    def row_sums(self, predictions): return []\n"
        "    def score(self, predictions): return KindScores({'span': 1.0})\n"
    )
    main(["compare", *files, "--kind=mine.py:Span"])
    assert "span: not compared" in capsys.readouterr().out


def test_what_an_evaluation_writes_is_read_back_with_its_listed_words_and_thought(tmp_path):
    answer = json.dumps({"thought": "It fits.", "hallucination": "no"})
    prediction = Prediction(
        id="r0",
        prediction=answer,
        reference="no",
        row={"rare": ["fits"], "source": "long"},
        stopped=False,
        prefix_found=True,
        new_tokens=7,
    )
    path = tmp_path / "one.jsonl"
    judge = Scoring(kind="judge", words_field="rare")
    path.write_text(json.dumps(saved_row(prediction, judge)))
    (again,) = read_predictions(path)
    assert (again.id, again.prediction, again.reference) == ("r0", answer, "no")
    assert (again.row["label"], again.row["thought"]) == ("no", "It fits.")
    assert again.row["rare"] == ["fits"]
    assert "source" not in again.row
    assert saved_row(prediction, Scoring()).keys() == vars(prediction).keys() - {"row"}


def test_other_rows_and_references_are_refused(files, tmp_path, capsys):
    fewer = write(tmp_path / "fewer.jsonl", GOOD[:4], REFERENCES[:4])
    assert error(capsys, files[0], fewer, "--kind=text") == says(
        "compare", got="no 'r4'", cure="2 of 6"
    )
    other = write(tmp_path / "other.jsonl", GOOD, [*REFERENCES[:5], "x"])
    assert error(capsys, files[0], other, "--kind=text") == says("compare", rule="references")


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ('{"id": "r0", "prediction": "x", "reference": "y"}\n' * 2, "2", {"got": "'r0'"}),
        (
            '{"id": "r0", "prediction": "x"}',
            "1",
            {"rule": "'reference'", "got": "None"},
        ),
        ('{"id": 1, "prediction": "x", "reference": "y"}', "1", {"rule": "'id'", "got": "1"}),
        ("[1]", "1", {"rule": "JSON", "got": "[1]"}),
        ('{"id"', "1", {"rule": "JSON"}),
    ],
)
def test_a_file_of_something_else_is_refused_by_line(text, line, parts, files, tmp_path, capsys):
    path = tmp_path / "wrong.jsonl"
    path.write_text(text)
    assert error(capsys, files[0], str(path), "--kind=text") == says(f"{path}:{line}", **parts)


def test_answers_to_several_tasks_are_refused(files, tmp_path, capsys):
    path = Path(write(tmp_path / "a.jsonl", GOOD[:1], REFERENCES[:1], task="halu"))
    line = path.read_text()
    message = says(str(path), got="halu, mt", cure="predict --task")
    for id in ("r0", "r1"):  # files of two tasks may have the same name, and so the same ids
        path.write_text(line + line.replace("r0", id).replace("halu", "mt"))
        assert error(capsys, files[0], str(path), "--kind=text") == message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], says("--kind", rule="predictions/", got="none")),
        (
            ["--kind=bleu"],
            says("--kind", rule="translation, judge, classification, json, text", got="'bleu'"),
        ),
        (["--kind"], says("--kind", got="none")),
        (["--format=csv"], says("--format", rule=["table", "jsonl"], got="'csv'")),
        (["--fromat=csv"], says("compare", got="'--fromat'", cure="'--format'")),
        (["more.jsonl"], says("compare", got="'more.jsonl'")),
    ],
)
def test_a_wrong_command_line_is_named(arguments, message, files, capsys):
    assert error(capsys, *files, *arguments) == message


def test_a_row_without_a_reference_is_refused_before_anything_is_said_of_labels(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "prediction": "", "reference": ""}\n')
    said = says("row '1'", rule="reference", got="''")
    assert error(capsys, str(path), str(path), "--kind=judge") == said


def test_a_missing_file_is_named(files, capsys):
    assert error(capsys, files[0], "none.jsonl", "--kind=text") == says(
        "none.jsonl", got="No such file"
    )


def test_help_and_a_comparison_need_no_torch(files):
    code = (
        "import sys\nfrom tell_lightning.cli import main\n"
        f"main(['compare', *{files!r}, '--kind=translation'])\n"
        "try:\n    main(['compare', '--help'])\nfinally:\n"
        "    print({'torch', 'lightning', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert "\nusage: python -m tell_lightning compare [-h] [--trust]" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_any_labels_are_compared_outside_a_run(tmp_path, capsys):
    gold = ["sport", "politics", "art", "sport"]
    first = write(tmp_path / "a.jsonl", ["Sport.", "art", "weather", "sport"], gold)
    second = write(tmp_path / "b.jsonl", gold, gold)
    found = jsonl(capsys, first, second, "--kind", "classification")
    assert (found["accuracy"]["a"], found["accuracy"]["b"]) == (0.5, 1)
    assert found["label_valid"]["a"] == 0.75  # no reference is about the weather
    found = jsonl(
        *(capsys, first, second, "--kind=classification"),
        *("--scoring", "labels=sport,politics,art,weather", "--scoring", "positive=sport"),
    )
    assert found["label_valid"]["a"] == 1
    assert (found["recall"]["a"], found["precision"]["a"]) == (1, 1)


def test_labels_in_json_are_compared_outside_a_run(tmp_path, capsys):
    gold = verdicts(*"xyzx")
    first, second = (
        write(tmp_path / "a.jsonl", verdicts(*"xyyq"), gold),
        write(tmp_path / "b.jsonl", gold, gold),
    )
    typed = ["--kind", "classification", "--scoring", "label_key=verdict"]
    found = jsonl(capsys, first, second, *typed)
    assert (found["accuracy"]["a"], found["accuracy"]["b"]) == (0.5, 1)
    assert found["json_valid"]["a"] == 1
    # A judge of other labels, whose readable answers are those of its labels alone.
    judge = ["--kind=judge", "--scoring", "label_key=verdict", "--scoring", "labels=x,y,z"]
    assert jsonl(capsys, first, second, *judge)["accuracy"]["a"] == 0.5


def test_typed_keys_of_scoring_win_over_those_of_the_run(run, capsys):
    gold = ["a", "b", "a", "b"]
    first = write(run / "predictions/test-judge-base.jsonl", verdicts(*"aabb"), gold)
    found = jsonl(capsys, first, first, "--scoring", "positive=a")
    assert found["precision"]["a"] == 0.5
    assert error(capsys, first, first, "--scoring", "label_kye=x") == says(
        "--scoring", rule="label_key", got="'label_kye=x'", cure="label_key=topic"
    )
    assert error(capsys, first, first, "--scoring", "tokenize=zn") == says(
        "--scoring.tokenize", rule="zh", got="zn"
    )
