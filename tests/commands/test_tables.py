"""The end of a run on the screen: every score whole, at any width, with what it means."""

import io
import shlex
from pathlib import Path

import pytest
from rich.console import Console

from tell_lightning.commands import tables
from tell_lightning.commands.tables import print_cost, print_next, print_rows, print_scores


def scores(primary: str, values: dict, intervals: dict | None = None, **more) -> dict:
    return {
        "values": {"rows": 200.0, **values},
        "primary": primary,
        "signatures": {},
        "intervals": intervals or {},
        **more,
    }


def translation(bleu: float, chrf: float, words: float, **more) -> dict:
    values = {"bleu": bleu, "chrf": chrf, "words_recall": words, "exact_match": 0.5}
    signatures = {"bleu": "nrefs:1|tok:13a", "chrf": "nrefs:1|nc:6"}
    return scores("bleu", values, signatures=signatures, **more)


@pytest.fixture
def metrics() -> dict:
    """What run.json holds of two tasks on test."""
    judge = {"balanced_accuracy": 0.912, "f1": 0.9, "mcc": -0.3, "json_valid": 0.975}
    after = {
        "translate": translation(
            37.24,
            61.9,
            0.412,
            intervals={"bleu": (34.81, 39.46), "chrf": (60, 63.5), "words_recall": (0.35, 0.47)},
        ),
        "judge": scores(
            "balanced_accuracy",
            judge,
            {"balanced_accuracy": (0.871, 0.95), "json_valid": (0.95, 1.0)},
        ),
    }
    after["translate"]["values"]["stop_rate"] = 1.0
    before = {"translate": translation(2.1, 18.0, 0.0, intervals={"bleu": (1.8, 2.5)})}
    floors = {"translate": {"copy_source": translation(0.4, 8.1, 0.01)}}
    moment = {"loss_nats_per_token": {"translate": 0.5924, "judge": 0.31, "general": 1.25}}
    base = {"loss_nats_per_token": {"translate": 3.8, "judge": 2.1, "general": 1.125}}
    return {
        "test": {
            "before": {"tasks": before, **base},
            "after": {"tasks": after, **moment},
            "floors": floors,
        },
        "dev": {"before": None, "after": None, "floors": {}},
    }


def test_scores_stand_under_each_other_with_intervals_and_floors(metrics, capsys, monkeypatch):
    monkeypatch.setattr(tables, "WIDTH", 110)
    print_scores(metrics)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    start = lines.index("translate: 200 test rows")
    above, heading, _, floor, before, after = lines[start + 1 : start + 7]
    assert above.split() == ["stopped,", "loss:"]
    assert heading.split() == ["BLEU", "chrF", "listed", "words,", "%", "%", "loss", "general"]
    assert floor.split() == ["copy", "source", "0.4", "8.1", "1.0"]
    assert before.startswith("before ")
    assert before.split()[-2:] == ["3.800", "1.125"]
    assert after.split()[-2:] == ["0.592", "1.250"]
    assert after.split("  ")[0] == "after"
    assert "37.2 [34.8, 39.5]" in after
    assert "41.2 [35.0, 47.0]" in after
    places = [line.index(".", 11) for line in (floor, before, after)]
    assert len(set(places)) == 1
    assert "exact" not in heading
    assert any("0.91 [0.87, 0.95]" in line and "98 [95, 100]" in line for line in lines)
    assert all(len(line) <= 110 for line in lines)


def test_notes_say_what_was_computed_once(metrics, capsys):
    metrics["test"]["after"]["tasks"]["second"] = metrics["test"]["after"]["tasks"]["translate"]
    print_scores(metrics)
    screen = capsys.readouterr().out
    assert screen.count("BLEU: nrefs:1|tok:13a") == screen.count("chrF: nrefs:1|nc:6") == 1
    assert "[low, high]: 95% interval, from 1,000 draws of the test rows." in screen
    assert "scoring.words_field" in screen


def test_scores_of_a_class_path_are_shown_as_the_record_says(metrics, capsys):
    facts = {"label": "word error rate", "scale": "ratio", "decimals": 3, "better": "lower"}
    display = {"kind": "a.B", "facts": {"wer": facts | {"group": "Metric"}}}
    display |= {"table": ["wer", "stop_rate"], "report": [], "summary": []}
    task = scores("wer", {"wer": 0.25, "exact_match": 0.5}, {"exact_match": (0, 1)})
    metrics["test"]["after"]["tasks"] = {"mine": task | {"display": display}}
    print_scores(metrics)
    screen = " ".join(capsys.readouterr().out.split())
    assert "word error rate" in screen
    assert "0.250" in screen
    assert "word error rate: lower is better." in screen
    assert "word error rate: no interval" in screen


def test_dev_is_shown_where_test_was_not_scored_and_older_runs_have_no_intervals(metrics, capsys):
    task = metrics["test"]["after"]["tasks"]["translate"]
    del task["intervals"]
    after = {"tasks": {"t": task}, "loss_nats_per_token": {}}
    print_scores({"dev": {"after": after, "before": None, "floors": {}}})
    screen = capsys.readouterr().out
    assert "t: 200 dev rows" in screen
    assert "loss: " not in screen
    assert "before" not in screen
    assert "interval" not in screen


@pytest.mark.parametrize(("other", "line"), [("without", "anchor off"), ("with", "anchor on")])
def test_scores_with_a_swapped_anchor_have_a_line_of_their_own(other, line, metrics, capsys):
    swapped = {"tasks": {"translate": translation(15.4, 28.7, 0.246)}}
    swapped["loss_nats_per_token"] = {"translate": 0.974}
    metrics[f"test_{other}_anchor"] = {"before": None, "after": swapped, "floors": {}}
    print_scores(metrics)
    screen = capsys.readouterr().out
    (shown,) = [each for each in screen.splitlines() if each.startswith(f"{line}  ")]
    assert shown.split() == [*line.split(), "15.4", "28.7", "24.6", "0.974"]
    assert f"{line}: after training, the prompts {other} the anchor." in screen


@pytest.mark.parametrize("width", [72, 80, 100, 160])
def test_no_number_is_cut_at_any_width(metrics, width, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, width=width, highlight=False, markup=False, emoji=False)
    monkeypatch.setattr(tables, "_console", lambda: console)
    print_scores(metrics)
    lines = screen.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    for word in ("37.2", "[34.8,", "39.5]", "accuracy", "0.90", "stopped,", "JSON,", "[95,"):
        assert word in words


def test_brackets_and_colons_of_a_name_are_no_markup(capsys):
    print_rows([["name", "n"], ["[bold]x[/bold] :smile:", "1"]], "[red]title")
    screen = capsys.readouterr().out
    assert "[bold]x[/bold] :smile:" in screen
    assert "[red]title" in screen


def test_end_names_cost_folder_and_next_command(capsys):
    record = {
        "seconds": {"total": 120.4, "setup": 12.2, "training": 77.6, "scoring": 30.6},
        "steps": 1300,
        "tokens_per_second": 8120.4,
        "peak_memory_bytes": 2**30,
    }
    print_cost(record)
    print_next(Path("runs/20260102-030405"), "translate")
    assert capsys.readouterr().out.splitlines() == [
        "Took 120 s: set-up 12, training 78, scoring 31; 1,300 steps, "
        "8,120 tokens/s, peak memory 1.00 GiB.",
        "Run: runs/20260102-030405, with run.json and adapter/",
        "Next, answers to the lines that you type:",
        "  python -m tell_lightning predict --run runs/20260102-030405 --task translate --input -",
    ]


def test_next_command_can_be_pasted_whatever_the_names_are(capsys):
    print_next(Path("my runs/a'b"), "my task")
    command = capsys.readouterr().out.splitlines()[-1]
    words = ["--run", "my runs/a'b", "--task", "my task", "--input", "-"]
    assert shlex.split(command)[4:] == words


def test_run_without_a_task_has_no_next_command(capsys):
    print_next(Path("runs/x"), None)
    assert capsys.readouterr().out == "Run: runs/x, with run.json and adapter/\n"


def test_the_label_that_f1_is_of_is_named(metrics, capsys):
    judge = metrics["test"]["after"]["tasks"]["judge"]
    judge["values"]["accuracy"] = 0.905
    print_scores(metrics)
    screen = capsys.readouterr().out
    assert "F1: of the label yes." in screen
    assert "accuracy" in screen.replace("balanced accuracy", "").replace("balanced", "")
    judge["display"] = {"kind": "classification", "positive": "spam"}
    print_scores(metrics)
    assert "F1: of the label spam." in capsys.readouterr().out
