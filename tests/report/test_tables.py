"""The scores of a run record as tables."""

from small_run import scores, small_record

from tell_lightning.report.tables import history_tables, neural_table, score_table


def metrics():
    return small_record()["metrics"]


def row(table, section, label):
    for found in (*table.main, *table.rest):
        for each in found.rows:
            if found.title.startswith(section) and each.label == label:
                return each
    raise AssertionError((section, label))


def test_a_score_stands_before_after_and_as_change_beside_its_baselines():
    table = score_table(metrics(), "test", ["writing"])
    bleu = row(table, "turn", "BLEU")
    assert [cell.text for cell in bleu.cells] == ["1.5", "47.0", "+45.5"]
    assert bleu.cells[1].interval == "[45.0, 49.0]"
    assert bleu.cells[1].path == "test/after/tasks/turn/bleu"
    assert [(found.label, found.text) for found in bleu.baselines] == [("copy source", "0.2")]


def test_main_scores_stand_first_and_no_score_twice():
    table = score_table(metrics(), "test", ["writing"])
    assert [each.label for each in table.main[0].rows] == ["BLEU"]
    paths = [cell.path for s in (*table.main, *table.rest) for r in s.rows for cell in r.cells]
    paths = [path for path in paths if path]
    assert len(paths) == len(set(paths)) == 2 * 3 + 2 * 2  # scores and losses, before and after


def test_the_same_table_holds_the_loss_of_general_rows():
    table = score_table(metrics(), "test", ["writing"])
    (guard,) = [section for section in table.main if "held-out general" in section.title]
    assert [each.label for each in guard.rows] == ["writing"]
    assert [cell.text for cell in guard.rows[0].cells] == ["2.000", "2.250", "+0.250"]
    assert guard.rows[0].lower_is_better


def test_the_check_of_the_anchor_is_a_column_of_the_test_table_alone():
    found = metrics()
    found["test_without_anchor"] = {"before": None, "after": found["test"]["before"], "floors": {}}
    table = score_table(found, "test", ["writing"])
    assert table.columns[-1] == "After, without anchor"
    assert row(table, "turn", "BLEU").cells[-1].text == "1.5"
    assert row(table, "turn", "BLEU").cells[-1].path == "test_without_anchor/after/tasks/turn/bleu"
    assert len(score_table(found, "dev", ["writing"]).columns) == 3


def test_a_run_that_ended_early_has_empty_cells():
    found = metrics()
    found["test"]["after"] = None
    table = score_table(found, "test", ["writing"])
    assert [cell.text for cell in row(table, "turn", "BLEU").cells] == ["1.5", "", ""]
    assert score_table({}, "test", []) is None


def test_scores_of_a_users_function_are_main_scores():
    found = metrics()
    for moment in ("before", "after"):
        found["test"][moment]["tasks"]["turn"]["values"]["politeness"] = 0.5
    told = score_table(found, "test", [], own=["turn"]).main[0]
    assert [each.label for each in told.rows] == ["BLEU", "politeness"]
    assert row(score_table(found, "test", []), "turn: other", "politeness").cells[0].text == "0.5"


def test_signatures_are_listed_once():
    found = metrics()
    for moment in ("before", "after"):
        found["test"][moment]["tasks"]["turn"]["signatures"] = {"bleu": "nrefs:1"}
    assert score_table(found, "test", []).signatures == [("BLEU", "nrefs:1")]


def test_the_history_holds_every_scoring_of_dev():
    turn, choice = history_tables(metrics())
    assert turn.steps == [0, 10]
    assert dict(turn.rows)["BLEU"][1].path == "dev_history/1/tasks/turn/bleu"
    assert [cell.text for cell in choice.rows[0][1]] == ["0.010", "0.470"]
    assert [label for label, _ in choice.rows[1:]] == [
        "loss of turn, nats/token",
        "loss of writing, nats/token",
    ]


def test_a_history_of_losses_alone_has_no_tasks():
    entry = {"step": 2, "score": None, "tasks": {}, "loss_nats_per_token": {"writing": 1.0}}
    (only,) = history_tables({"dev_history": [entry]})
    assert [label for label, _ in only.rows] == ["loss of writing, nats/token"]


def test_neural_scores_are_shown_with_whatever_numbers_come_beside_them():
    entry = {"score": 0.71234, "interval": [0.6, 0.8], "model": "wmt22", "truncated_share": 0.125}
    entry |= {"versions": {"comet": "2"}, "predictions_sha256": "f" * 64}
    known = {"test-turn-base": {"comet": entry}}
    ((stem, metric, cell, rest),) = neural_table({"neural": known}, known)
    assert (stem, metric, cell.text) == ("test-turn-base", "comet, wmt22", "0.7123")
    assert cell.interval == "[0.6000, 0.8000]"
    assert rest == "truncated share: 0.125"


def test_scores_of_a_class_path_are_shown_as_the_record_says():
    found = metrics()
    facts = {"label": "word error rate", "scale": "ratio", "decimals": 3}
    facts |= {"better": "lower", "group": "Metric"}
    display = {"kind": "a.B", "facts": {"wer": facts, "other": {**facts, "label": "other"}}}
    display |= {"table": ["wer"], "report": ["wer"], "summary": ["wer"]}
    for moment, value in (("before", 0.5), ("after", 0.25)):
        found["test"][moment]["tasks"]["turn"] |= {
            "values": {"rows": 8.0, "wer": value, "other": 1.0},
            "primary": "wer",
            "display": display,
        }
    table = score_table(found, "test", ["writing"])
    wer = row(table, "turn", "word error rate")
    assert [cell.text for cell in wer.cells] == ["0.500", "0.250", "−0.250"]  # noqa: RUF001
    assert wer.lower_is_better
    assert [each.label for each in table.main[0].rows] == ["word error rate"]
    assert row(table, "turn: metric", "other").cells[0].text == "1.000"


def test_a_task_that_only_one_state_knows_is_shown():
    found = metrics()
    found["test"]["after"]["tasks"]["late"] = scores(balanced_accuracy=0.5)
    cells = row(score_table(found, "test", []), "late", "balanced accuracy").cells
    assert [cell.text for cell in cells] == ["", "0.50", ""]
