"""The page as text: what it says, what it escapes, what it loads."""

import hashlib
import re
from html.parser import HTMLParser

import pytest
from small_run import CONFIG, saved_plan, small_record

from tell_lightning.data.plan import Plan, PlanSource
from tell_lightning.report.page import page

EVIL = "<script>alert('1')</script><img src=http://x.example/a.png>"
UNBOUND = "whether the behaviour is bound to the anchor is not known"
VOID = {"meta", "link", "br", "img"}


def with_anchor(anchor: dict | None) -> dict:
    task = {**CONFIG["data"]["tasks"]["turn"], "anchor": anchor}
    return {**CONFIG, "data": {**CONFIG["data"], "tasks": {"turn": task}}}


class Parsed(HTMLParser):
    """Tags, addresses and visible text of a page; every tag that opens is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.feed(text)
        assert self._open == []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in {"src", "href", "srcset", "action"}:
                self.addresses.append(str(value))
            if name == "id":
                self.ids.append(str(value))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self._text.append(data)


def test_the_page_tells_the_result_at_once(contents):
    text = Parsed(page(contents(), {})).text
    assert text.startswith("small: report tell_lightning, report of a run small completed")
    assert "1.5 → 47.0 [45.0, 49.0] BLEU, before and after; 8 test rows" in text
    assert "of step 10, by best dev score (0.470)" in text
    assert "tell: task examples, each behind its anchor, shuffled into general rows" in text
    assert "Loss on held-out general rows rose for writing: a sign of forgetting." in text


def test_accuracy_stands_beside_the_majority_label(contents):
    record = small_record()
    for moment in ("before", "after"):
        task = record["metrics"]["test"][moment]["tasks"]["turn"]
        task["values"] = {
            "rows": 10000.0,
            "accuracy": 0.9,
            "majority_accuracy": 0.813,
            "balanced_accuracy": 0.7,
        }
        task["primary"] = "balanced_accuracy"
        task["intervals"] = {}
    record["metrics"]["test"]["floors"] = {}
    text = Parsed(page(contents(record=record), {})).text
    assert "10,000 test rows; accuracy 0.90, always the majority label 0.81" in text


def test_texts_of_a_run_are_escaped_wherever_they_stand(contents):
    record = small_record()
    record |= {"name": EVIL, "status": "failed", "error": EVIL, "command": [EVIL]}
    record["machine"] = {"platform": EVIL}
    record["versions"] = {EVIL: EVIL}
    record["metrics"]["test"]["floors"]["turn"][EVIL] = {"values": {"bleu": 1.0}, "primary": "bleu"}
    tasks = {EVIL: CONFIG["data"]["tasks"]["turn"], **CONFIG["data"]["tasks"]}
    config = {**CONFIG, EVIL: EVIL, "data": {**CONFIG["data"], "tasks": tasks}}
    plan = saved_plan(
        Plan(7, (PlanSource(EVIL, "task", 5, 5), PlanSource("writing", "general", 50, 15)))
    )
    log = f'step,"train/loss/{EVIL}",train/loss/turn\n5,1.0,2.0\n10,2.0,1.0\n'
    run = contents(
        record=record,
        config=config,
        plan=plan,
        log=log,
        answers={"test-turn-base": [EVIL] * 3, "test-turn-step-000010": ["a" + EVIL] * 3},
        references=[EVIL] * 3,
    )
    parsed = Parsed(page(run, {"model": {"base": EVIL}}))
    assert {"script", "img"}.isdisjoint(parsed.tags)
    assert EVIL in parsed.text
    assert all(re.fullmatch("#[a-z]+|data:,", address) for address in parsed.addresses)


def test_the_page_loads_nothing_and_forbids_it(contents):
    text = page(contents(), {})
    parsed = Parsed(text)
    assert all(re.fullmatch("#[a-z]+|data:,", address) for address in parsed.addresses)
    assert {address[1:] for address in parsed.addresses if address != "data:,"} == set(parsed.ids)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\(", text)
    assert "svg" in parsed.tags


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"record": {"status": "failed", "error": "OSError: disk"}}, "The run failed: OSError"),
        ({"record": {"status": "running"}}, "The run has not ended, or was killed"),
        ({"without": ("run.json",)}, "run.json is not there"),
        ({"without": ("metrics.csv",)}, "metrics.csv is not there, or empty: no curves."),
        ({"without": ("plan.json",)}, "The order cannot be drawn: there is no plan.json."),
        ({"answers": {}}, "There are no predictions."),
        ({"config": {"data": {"general": {"writing": {}}}}}, "No task is configured"),
        ({"record": {"status": "completed", "metrics": {}}}, "Nothing was scored on test."),
        ({"config": with_anchor({"text": "Turn."})}, UNBOUND),
    ],
)
def test_a_run_that_lacks_something_has_a_report_that_says_so(contents, changes, says):
    assert says in Parsed(page(contents(**changes), {})).text


@pytest.mark.parametrize("anchor", [None, {}, {"text": None}])
def test_a_run_without_an_anchor_lacks_no_check_of_it(contents, anchor):
    config = with_anchor(anchor)
    assert UNBOUND not in Parsed(page(contents(config=config), {})).text


def test_a_neural_score_of_answers_that_have_changed_is_called_stale(contents):
    record, known = small_record(), contents().folder.predictions / "test-turn-base.jsonl"
    entry = {"score": 0.71234, "model": "wmt22"}
    entry["predictions_sha256"] = hashlib.sha256(known.read_bytes()).hexdigest()
    record["metrics"]["neural"] = {"test-turn-base": {"comet": entry}}
    run = contents(record=record)
    text = Parsed(page(run, {})).text
    assert "0.7123" in text
    assert "stale" not in text
    with (run.folder.predictions / "test-turn-base.jsonl").open("a") as file:
        file.write("\n")
    text = Parsed(page(run, {})).text
    assert "0.7123" not in text
    assert "comet, wmt22" in text
    assert "stale: the predictions file has changed since, or is gone; run `neural` again" in text


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (1.75, "rose for no source: nothing is seen to be forgotten."),
        (2.0, "rose for no source: nothing is seen to be forgotten."),
        (2.25, "rose for writing: a sign of forgetting."),
    ],
)
def test_the_guard_says_for_which_sources_the_loss_rose(contents, loss, says):
    record = small_record()
    record["metrics"]["test"]["after"]["loss_nats_per_token"]["writing"] = loss
    told = Parsed(page(contents(record=record), {})).text
    assert f"Loss on held-out general rows {says}" in told


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_missing_moment_is_named(contents, moment):
    record = small_record()
    del record["metrics"]["test"][moment]
    words = {"before": "no test score of the base", "after": "no test score after training"}
    assert words[moment] in Parsed(page(contents(record=record), {})).text


def test_a_complete_run_lacks_nothing(contents):
    record = small_record()
    record["metrics"]["test_without_anchor"] = record["metrics"]["test"]
    assert "What this report lacks" not in page(contents(record=record), {})


def test_an_empty_folder_has_a_report(contents):
    files = ("run.json", "plan.json", "metrics.csv")
    run = contents(config={"model": None, "data": None}, answers={}, without=files)
    text = Parsed(page(run, {})).text
    for line in ("Nothing was logged.", "Nothing was scored.", "Nothing is recorded."):
        assert line in text


def test_the_page_does_not_depend_on_when_it_is_made(contents):
    run = contents()
    assert page(run, {}) == page(run, {})


# Colours


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read_on_their_paper(contents, theme):
    blocks = re.findall(r":root \{([^}]*)\}", page(contents(), {}))
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[theme]))
    for text in ("ink", "soft", "accent", "right", "wrong", "missing", "extra"):
        for paper in ("paper", "panel"):
            assert contrast(colours[text], colours[paper]) >= 4.5, (text, paper)
    for marked in ("missing", "extra"):
        assert contrast(colours[marked], colours[f"{marked}-bed"]) >= 4.5
    for name in (f"{kind}{n}" for kind, most in (("t", 6), ("g", 4)) for n in range(1, most + 1)):
        assert contrast(colours[name], colours["paper"]) >= 3, name
