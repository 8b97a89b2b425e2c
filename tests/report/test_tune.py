"""The page of a search: the verdict first, every arm, rival and trial, and what decided."""

import json
import re

import numpy as np
import pytest
from simulated_search import Simulated
from small_run import small_record

from tell_lightning.report.contents import ReportError
from tell_lightning.report.page import page
from tell_lightning.report.tune import tune_view
from tell_lightning.tuning.importance import LEAST_TRIALS, importances
from tell_lightning.tuning.records import write_record
from tell_lightning.tuning.space import Space

SPACE = Space(("tell", "sft", "mixture"), (1e-4, 1e-2), (20, 200), (0.05, 0.5), (), 60, {}).plain()


@pytest.fixture(scope="module")
def search():
    """A search of which the learning rate alone decides, with its verdict."""
    simulated = Simulated(1, trials={"tell": 14, "sft": 6, "mixture": 3})
    verdict = simulated.verdict()
    verdict["rivals"][1]["examples"] = 9
    records = simulated.records()
    random = np.random.default_rng(0)
    for record in records:
        rate, share = random.uniform(size=2)
        record["params"] = {"lr": float(1e-4 * 100**rate), "steps": int(random.integers(20, 200))}
        if record["arm"] != "sft":
            record["params"]["task_share"] = float(0.05 + 0.45 * share)
        record["score"] = round(1 - abs(rate - 0.5), 4)
        record["seconds"] = 0.3 * record["params"]["steps"]
    records[4] |= {"state": "failed", "reason": "TellError: <b>no</b>", "score": None, "loss": None}
    return records, verdict


def tune_facts(verdict):
    return {
        "best": 3,
        "trials": {"complete": 22, "failed": 1},
        "space": SPACE,
        "folds": "Candidates are compared by 5 folds of the 40 task rows: there is no dev set.",
        "verdict": verdict,
    }


def run_of(contents, search):
    records, verdict = search
    run = contents(record={**small_record(), "tune": tune_facts(verdict)})
    for record in records:
        write_record(run.folder.path, record)
    return run


def test_the_page_begins_with_the_verdict_and_has_every_number(contents, search):
    _, verdict = search
    text = page(run_of(contents, search), {})
    assert text.index(verdict["sentence"].split(";")[0]) < text.index("<nav")
    assert text.index('id="verdict"') < text.index('id="search"') < text.index('id="plan"')
    for each in (*verdict["arms"], *verdict["rivals"]):
        score = each["score"]
        assert f"{score['value']:.1f} [{score['low']:.1f}, {score['high']:.1f}]" in text
    assert f"{verdict['difference']['p']:.3f}" in text
    assert "few-shot prompt, 9 examples" in text
    assert "there is no dev set" in text
    assert "<td>1.000, 1.100</td>" in text  # general loss before and after, of TELL


def test_every_trial_is_listed_with_its_reason_escaped(contents, search):
    text = page(run_of(contents, search), {})
    rows = re.search(r"<caption>Every trial</caption>(.*?)</table>", text, re.DOTALL)
    assert rows
    assert rows[1].count("<tr>") == 1 + 23
    assert "failed: TellError: &lt;b&gt;no&lt;/b&gt;" in rows[1]


def test_the_figures_show_each_complete_trial_and_the_best_so_far(contents, search):
    found = tune_view(run_of(contents, search))
    assert found is not None
    by_title = {
        figure.title: figure
        for section in found.sections
        for group in section.figures
        for figure in group
    }
    cost = by_title["Score against cost, each trial"]
    assert {line.name: len(line.points) for line in cost.lines} == {
        "TELL": 13,
        "SFT": 6,
        "mixture without anchor": 3,
    }
    for line in by_title["The best so far"].lines:
        values = [point.value for point in line.points]
        assert values == sorted(values)
    assert len(by_title["Score"].rows) == 5
    assert len(by_title["Difference to SFT"].rows) == 2


def test_the_setting_that_decides_is_the_most_important_one(search):
    records, _ = search
    found = importances(records, SPACE)
    assert set(found) == {"tell"}  # the others have fewer than ten trials
    assert sum(found["tell"].values()) == pytest.approx(1)
    assert max(found["tell"], key=lambda name: found["tell"][name]) == "lr"
    assert importances(records[: LEAST_TRIALS - 1], SPACE) == {}


def test_a_search_without_a_verdict_has_the_search_alone(contents, search):
    found = tune_view(run_of(contents, (search[0], None)))
    assert found is not None
    assert [section.id for section in found.sections] == ["search"]
    assert not found.sentence


def test_a_run_that_comes_from_no_search_has_neither(contents):
    run = contents()
    assert tune_view(run) is None
    assert 'id="search"' not in page(run, {})


def test_a_verdict_that_was_never_measured_is_a_page_too(contents, search):
    records, _ = search
    verdict = Simulated(1).verdict(seconds_left=lambda: 0.0)
    run = run_of(contents, (records, verdict))
    assert "the budget is too small" in page(run, {})


def test_a_damaged_trial_is_one_line(contents, search):
    run = run_of(contents, search)
    (run.folder.path / "trials" / "0003.json").write_text("{")
    with pytest.raises(ReportError, match=r"must be as `fit` writes them"):
        page(run, {})


def test_numbers_of_the_verdict_survive_the_file(search):
    _, verdict = search
    assert json.loads(json.dumps(verdict)) == verdict
