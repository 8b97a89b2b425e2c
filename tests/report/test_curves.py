"""What is drawn over optimizer steps."""

from small_run import CONFIG, LOG, small_record

from tell_lightning.report.curves import charts
from tell_lightning.report.drawing import Level


def places(line):
    return [(point.x, point.value) for point in line.points]


def titled(run, title):
    (found,) = [chart for chart in charts(run) if chart.title == title]
    return found


def test_losses_are_drawn_per_source_at_the_steps_completed(contents):
    train = titled(contents(), "Training loss per source")
    assert {line.name: places(line) for line in train.lines} == {
        "turn": [(5.0, 3.0), (10.0, 1.0)],
        "writing": [(5.0, 2.5), (10.0, 2.0)],
    }
    assert [line.style for line in train.lines] == ["t1", "g1"]
    held_out = titled(contents(), "Loss of dev and held-out rows")
    assert places(held_out.lines[0]) == [(0.0, 2.0), (5.0, 2.1), (10.0, 2.25)]
    assert train.mark == ("adapter kept", 10.0)


def test_a_tasks_first_score_is_drawn_with_its_floors(contents):
    chart = titled(contents(), "turn: BLEU on dev")
    assert places(chart.lines[0]) == [(0.0, 1.5), (5.0, 20.0), (10.0, 47.0)]
    assert chart.levels == [Level("copy source", 0.25)]


def test_floors_of_one_height_share_a_line(contents):
    record = small_record()
    floors = record["metrics"]["dev"]["floors"]["turn"]
    floors["other_one"] = floors["copy_source"]
    chart = titled(contents(record=record), "turn: BLEU on dev")
    assert chart.levels == [Level("copy source, other one", 0.25)]


def test_losses_that_differ_much_get_a_logarithmic_axis(contents):
    log = LOG.replace("10,1.0,2.0", "10,0.01,2.0")
    chart = titled(contents(log=log), "Training loss per source")
    assert "nats per label token, log scale" in chart.svg()
    assert "log scale" not in titled(contents(), "Training loss per source").svg()


def test_a_run_that_has_scored_nothing_yet_has_the_curves_of_its_log(contents):
    log = "step,train/loss/turn,train/lr\n5,nan,0.1\n"
    run = contents(record={"status": "running"}, log=log)
    assert [chart.title for chart in charts(run)] == ["Learning rate"]
    assert charts(contents(without=("metrics.csv",))) == []


def test_what_chooses_the_adapter_is_drawn_where_there_are_several_tasks(contents):
    tasks = {name: {"scoring": {"kind": "translation"}} for name in ("turn", "other")}
    config = {**CONFIG, "data": {**CONFIG["data"], "tasks": tasks}}
    titles = [chart.title for chart in charts(contents(config=config))]
    assert "Dev score, mean of the tasks" in titles
    assert "Dev score, mean of the tasks" not in [c.title for c in charts(contents())]
