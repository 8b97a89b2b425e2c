"""A kind from outside the package and a torchmetrics metric, from `fit` to the report."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_runs import Run
from tiny_world import World

from tell_lightning.cli import main

MINE = """
from tell_lightning.metrics.kinds import RowSums, ScoreFacts, ScoringKind


class Length(ScoringKind):
    facts = {
        "surplus": ScoreFacts("surplus letters", "number", 1, "lower", "Length"),
        "short": ScoreFacts("short answers", "share", 1, group="Length"),
    }
    primary = "surplus"
    verdicts = ("right", "wrong")

    def __init__(self, scoring, limit):
        super().__init__(scoring)
        self.limit = limit

    def row_sums(self, predictions):
        lengths = [len(p.prediction) for p in predictions]
        surplus = [max(0, n - len(p.reference)) for n, p in zip(lengths, predictions)]
        return [RowSums.means({"surplus": surplus, "short": [n <= self.limit for n in lengths]})]

    def verdict(self, answer, reference):
        return "right" if len(answer.text) <= self.limit else "wrong"

    def columns(self, answer, reference):
        return {"letters": len(answer)}

    def saved(self, answer):
        return {"letters": len(answer)}
"""
KIND, METRIC = "length", "errors"


@pytest.fixture(scope="module")
def configured(world: World) -> Path:
    """Write the configuration of a run with a task of each kind."""
    config = yaml.safe_load(world.config.read_text(encoding="utf-8"))
    (world.folder / "mine.py").write_text(MINE, encoding="utf-8")
    turn, verdict = (config["data"]["tasks"][name] for name in ("turn", "verdict"))
    kind = f"{world.folder / 'mine.py'}:Length"
    rouge = {"kind": "torchmetrics.text.ROUGEScore", "init_args": {"rouge_keys": ["rouge1"]}}
    config["data"]["tasks"] = {
        KIND: {**turn, "scoring": {"kind": kind, "init_args": {"limit": 20}}},
        METRIC: {
            **turn,
            "scoring": {
                "kind": "torchmetrics.text.WordErrorRate",
                "baselines": {"copy_source": {"field": "query"}},
            },
        },
        "overlap": {**turn, "scoring": {**rouge, "primary": "rouge1_recall"}},
        "label": {
            **verdict,
            "scoring": {"kind": "classification", "label_key": "hallucination"},
        },
        "fields": {**verdict, "scoring": {"kind": "json"}},
    }
    path = world.folder / "kinds.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def kinds_run(world: World, configured: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train with all of them."""
    runs = tmp_path_factory.mktemp("runs")
    main(["fit", "-c", str(configured), f"--run.dir={runs}"])
    (folder,) = runs.iterdir()
    return Run(folder)


def after(run: Run, task: str) -> dict:
    return run.record["metrics"]["test"]["after"]["tasks"][task]


def test_record_holds_the_scores_with_intervals(kinds_run: Run) -> None:
    primaries = {
        KIND: "surplus",
        METRIC: "word_error_rate",
        "overlap": "rouge1_recall",
        "label": "balanced_accuracy",
        "fields": "field_f1",
    }
    for task, primary in primaries.items():
        scores = after(kinds_run, task)
        assert scores["primary"] == primary
        low, high = scores["intervals"][primary]
        assert low <= scores["values"][primary] <= high
        assert {"rows", "stop_rate"} <= set(scores["values"])
    baselines = kinds_run.record["metrics"]["test"]["floors"]
    assert baselines[METRIC]["copy_source"]["values"]["word_error_rate"] > 0
    details = after(kinds_run, "label")["details"]
    assert set(details["labels"]) == {"no", "yes"}


def test_the_adapter_is_chosen_by_all_of_them_also_where_lower_is_better(kinds_run: Run) -> None:
    history = kinds_run.record["metrics"]["dev_history"]
    for entry in history:
        values = {task: entry["tasks"][task]["values"] for task in entry["tasks"]}
        surplus = values[KIND]["surplus"]
        chosen_by = [
            (1 - surplus / (1 + surplus)) / 2,
            1 / (1 + values[METRIC]["word_error_rate"]),
            values["overlap"]["rouge1_recall"],
            values["label"]["balanced_accuracy"],
            values["fields"]["field_f1"],
        ]
        assert entry["score"] == pytest.approx(sum(chosen_by) / 5)
    best = max((entry for entry in history if entry["step"]), key=lambda entry: entry["score"])
    assert kinds_run.record["selected"]["score"] == pytest.approx(best["score"], abs=1e-6)


def test_predictions_hold_what_a_kind_reads_of_an_answer(kinds_run: Run) -> None:
    step = kinds_run.record["selected"]["step"]
    for row in kinds_run.jsonl(f"test-{KIND}-step-{step:06d}"):
        assert row["letters"] == len(row["prediction"])
    for row in kinds_run.jsonl(f"test-label-step-{step:06d}"):
        assert row["label"] in {"no", "yes", None}
        assert "thought" not in row


def test_scoring_again_gives_the_same_and_the_table_shows_it(
    kinds_run: Run, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    main(["test", str(kinds_run.folder), "--trust", "--eval.anchor_check=false"])
    again = json.loads((kinds_run.folder / "scores-test.json").read_text())["after"]["tasks"]
    assert again == kinds_run.record["metrics"]["test"]["after"]["tasks"]
    screen = " ".join(capsys.readouterr().out.split())
    for label in ("surplus letters", "word error rate", "accuracy", "macro F1", "field F1"):
        assert label in screen
    assert "word error rate: lower is better." in screen
    error_rate = after(kinds_run, METRIC)["values"]["word_error_rate"]
    assert f"{error_rate:.3f}" in screen
    assert f"test {METRIC}: word error rate {error_rate:.3f}" in caplog.text


@pytest.mark.parametrize("task", ["label", "fields", "overlap"])
def test_an_adapter_alone_reads_answers_as_its_run_does(
    task: str, kinds_run: Run, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = world.folder / "data" / ("turn-dev.jsonl" if task == "overlap" else "verdict-dev.jsonl")
    seen = []
    for model in (["--run", str(kinds_run.folder)], ["--adapter", f"{kinds_run.folder}/adapter"]):
        main(["predict", *model, "--task", task, "--input", str(rows)])
        seen.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert len(seen[0]) == 4
    assert seen[0] == seen[1]
    assert ("label" in seen[1][0]) == (task == "label")


def test_base_and_adapter_are_compared(kinds_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    step = kinds_run.record["selected"]["step"]
    for task, name in (
        (KIND, "surplus"),
        (METRIC, "word_error_rate"),
        ("overlap", "rouge1_recall"),
        ("label", "macro_f1"),
        ("fields", "field_f1"),
    ):
        files = [
            str(kinds_run.folder / f"predictions/test-{task}-{moment}.jsonl")
            for moment in ("base", f"step-{step:06d}")
        ]
        main(["compare", *files, "--trust", "--format=jsonl"])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        (line,) = [line for line in lines if line["score"] == name]
        assert line["b"] == pytest.approx(after(kinds_run, task)["values"][name], abs=1e-6)


def test_the_report_shows_scores_answers_and_labels(kinds_run: Run) -> None:
    main(["report", str(kinds_run.folder), "--trust"])
    page = (kinds_run.folder / "report.html").read_text(encoding="utf-8")
    for text in ("surplus letters", "word error rate", "rouge1 recall", "field F1"):
        assert text in page
    assert "label: each label" in page
    assert "rows by right label (down)" in page
    letters = [row["letters"] for row in kinds_run.jsonl(f"test-{KIND}-base")]
    right = sum(n <= 20 for n in letters)
    assert f"Base: {right} right, {len(letters) - right} wrong." in page


@pytest.mark.parametrize(
    ("scoring", "parts"),
    [
        ({"kind": "torchmetrics.text.Nothing"}, ["scoring.kind: must name a function or class"]),
        ({"kind": "torchmetrics.text.Perplexity"}, ["scoring.kind: torchmetrics.text.Perplexity"]),
        (
            {"kind": "torchmetrics.text.WordErrorRate", "init_args": {"x": 1}},
            ["scoring.init_args: torchmetrics.text.WordErrorRate"],
        ),
    ],
)
def test_a_class_that_cannot_score_stops_the_run_before_it_begins(
    scoring: dict,
    parts: list[str],
    configured: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = yaml.safe_load(configured.read_text(encoding="utf-8"))
    config["data"]["tasks"] = {"bad": {**config["data"]["tasks"][METRIC], "scoring": scoring}}
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "-c", str(path), f"--run.dir={tmp_path / 'runs'}"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data.tasks.bad.scoring.")
    for part in parts:
        assert part in line
    assert not (tmp_path / "runs").exists()
