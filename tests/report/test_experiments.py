"""The report of experiments: the numbers of the statistics, and what it lacks."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from small_experiments import CHOSEN, FOLDERS, SEEDS, SIZES, write_experiments

from tell_lightning.cli import main
from tell_lightning.experiment import statistics
from tell_lightning.experiment.contrasts import contrasts, factorial
from tell_lightning.experiment.evidence import curve, data_equivalence, losses
from tell_lightning.experiment.results import Result, read_results
from tell_lightning.experiment.rules import verdicts
from tell_lightning.experiment.specification import Experiment, read_experiment
from tell_lightning.report.experiments.contents import Contents, Key, read_experiments
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.headline import headline
from tell_lightning.report.experiments.page import Written, written

CORE = {
    name: {
        **FOLDERS[name],
        "cells": [{**group, "testbeds": ["translate"]} for group in FOLDERS[name]["cells"]],
    }
    for name in ("same_data", "anchor")
}
"""Of one testbed, which takes a third of the time."""
SMALL = {"tuning": FOLDERS["tuning"]}


class Page(HTMLParser):
    """Texts by what number they are, tags, addresses, and all text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: dict[str, str] = {}
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self._path: str | None = None
        self._tag = ""
        self._text: list[str] = []
        self.feed(text)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._tag = tag
        self._path = dict(attrs).get("data-path")
        self.addresses += [str(v) for k, v in attrs if k in {"src", "href", "srcset", "action"}]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self._path is not None:
            assert self.numbers.setdefault(self._path, data) == data, self._path
            self._path = None
        if self._tag != "style":
            self._text.append(data)


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Draw less than a report does: known effects are large, and minutes are saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "DRAWS", 500)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiments(tmp_path_factory.mktemp("known") / "experiments")


@pytest.fixture(scope="module")
def contents(root: Path) -> Contents:
    return read_experiments(root)


@pytest.fixture(scope="module")
def report(contents: Contents) -> Written:
    return written(contents)


@pytest.fixture(scope="module")
def page(report: Written) -> Page:
    return Page(report.html)


def plain(text: str) -> str:
    return text.replace("\N{MINUS SIGN}", "-").replace(" \N{DAGGER}", "").replace("+", "")


def interval(estimate, digits: int = 1) -> str:
    texts = [f"{v:.{digits}f}" for v in (estimate.value, estimate.low, estimate.high)]
    first, low, high = ("0.0" if text == "-0.0" else text for text in texts)
    return f"{first} [{low}, {high}]"


def used_results(experiment: Experiment) -> dict[str, Result]:
    """Read the results of an experiment and of those that it uses."""
    folders = [*experiment.uses, experiment.folder]
    return {name: each for f in folders for name, each in read_results(f / "results").items()}


def test_the_numbers_of_the_page_are_those_of_the_statistics(root, page):
    results = used_results(read_experiment(root / "tenfold"))
    wanted = {}
    for testbed in ("translate", "judge", "compose"):
        for arm in ("tell", "sft", "sft_equal_steps", "mix_without_anchor", "late_mix"):
            for what, found, digits in (
                ("score", curve(results, testbed, arm), 1),
                ("loss", curve(results, testbed, arm, of=losses), 3),
            ):
                for point in found:
                    path = f"{what}/{testbed}/{arm}/{point.n}"
                    wanted[path] = interval(point.estimate, digits)
        for row in contrasts(testbed, results):
            arm = row.name.removeprefix("tell - ")
            wanted[f"contrast/{testbed}/{arm}/10"] = interval(row.estimate)
            wanted[f"holm/{testbed}/{arm}/10"] = f"{row.p_holm:.3f}"
        for effect in factorial(testbed, results):
            wanted[f"effect/{testbed}/{effect.name}"] = interval(effect.estimate)
        for n in (10, 100):
            ratio = data_equivalence(results, testbed, n)
            assert ratio is not None
            wanted[f"der/{testbed}/sft/{n}"] = str(ratio.examples)
    assert len(wanted) > 100
    shown = {path: plain(page.numbers[path]) for path in wanted}
    assert shown == wanted


def test_each_claim_has_its_verdicts_with_their_reasons(root, page, contents):
    for study in contents.studies:
        experiment = study.experiment
        for verdict in verdicts(experiment, used_results(experiment)):
            text = plain(page.text)
            assert plain(verdict.reason) in text
            assert verdict.verdict in text
    assert "reproduced on translate, judge, compose" in page.text


def test_the_markdown_has_the_numbers_of_the_page(report, page):
    text = report.markdown
    for path, number in page.numbers.items():
        assert number in text, path
    assert "\n## Claims\n" in text
    assert text.count("| --- |") > 10


def test_every_seed_is_drawn(report):
    html = report.html
    panel = re.search(r'aria-label="Translate: score.*?</svg>', html, re.DOTALL)
    assert panel
    shown = len(re.findall(r'class="seed t1 strong"', panel[0]))
    assert shown == SEEDS * len(SIZES)


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert {"script", "img", "iframe"}.isdisjoint(page.tags)
    assert all(re.fullmatch(r"#[\w.-]+|data:,", address) for address in page.addresses)
    assert "svg" in page.tags


def test_the_same_results_give_the_same_bytes(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    assert written(read_experiments(root)) == written(read_experiments(root))


def test_the_report_says_what_failed_and_what_is_missing(tmp_path):
    def fail(cell):
        return cell.arm == "arbitrary_anchor" and cell.seed == 3 and cell.n == 10

    def leave_out(cell):
        return cell.arm == "general_only" and cell.seed > 0

    root = write_experiments(tmp_path / "experiments", folders=CORE, fail=fail, leave_out=leave_out)
    text = written(read_experiments(root))
    told = Page(text.html).text
    assert "The anchor matters: of 82 runs 7 not run yet, 1 failed" in told
    assert "OutOfMemory: <b>too</b> | large" in told
    assert "OutOfMemory: &lt;b>too&lt;/b> \\| large" in text.markdown
    assert "translate-arbitrary_anchor-n10-s3" in told
    assert "146 of 154 completed, 1 failed" in told


def test_a_result_of_another_configuration_is_left_out_and_named(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    arms = yaml.safe_load((root / "arms.yaml").read_text())
    arms["mix_without_anchor"]["set"]["model.optimizer.lr"] = 0.5
    (root / "arms.yaml").write_text(yaml.safe_dump(arms, sort_keys=False))
    text = written(read_experiments(root))
    told = Page(text.html).text
    assert "The anchor matters: of 82 runs 16 made with another configuration: left out" in told
    assert "anchor | 16 | translate-mix_without_anchor-n10-s0, " in text.markdown
    assert "138 of 154 completed" in told
    assert "contrast/translate/mix_without_anchor/10" not in Page(text.html).numbers
    assert "translate-mix_without_anchor-n10-s0 was made with another configuration, " in told
    by_name = {study.experiment.name: study for study in read_experiments(root).studies}
    assert [each.verdict for each in by_name["anchor"].verdicts] == ["none", "none"]
    assert by_name["same_data"].otherwise == []  # other results stay


def test_a_claim_whose_cells_failed_has_no_verdict(tmp_path):
    root = write_experiments(
        tmp_path / "experiments",
        folders=CORE,
        fail=lambda cell: cell.arm == "mix_without_anchor",
    )
    page = Page(written(read_experiments(root)).html)
    assert "no verdict" in page.text
    assert "translate-mix_without_anchor-n10-s0 failed (OutOfMemory" in page.text
    assert "contrast/translate/mix_without_anchor/10" not in page.numbers
    assert "contrast/translate/sft/10" in page.numbers


def test_a_rule_that_was_changed_after_the_results_gives_no_verdict(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    path = root / "same_data" / "experiment.yaml"
    values = yaml.safe_load(path.read_text())
    values["rule"]["at_least"] = 2
    path.write_text(yaml.safe_dump(values))
    contents = read_experiments(root)
    assert "the rule was changed" in Page(written(contents).html).text
    row = next(line for line in headline(contents).splitlines() if "The same data" in line)
    assert row.endswith("| no verdict | **no verdict** |")


def test_where_no_arm_differs_nothing_is_reproduced(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE, effect=False)
    contents = read_experiments(root)
    found = {
        (study.experiment.name, verdict.testbed): verdict.verdict
        for study in contents.studies
        for verdict in study.verdicts
    }
    assert len(found) == 4
    assert set(found.values()) <= {"undecided", "refuted"}
    assert "\N{CHECK MARK} reproduced" not in Page(written(contents).html).text.split("Claims")[0]


def test_few_seeds_are_called_exploratory(page):
    assert page.numbers["contrast/translate/late_mix/10"].endswith("\N{DAGGER}")
    assert not page.numbers["contrast/translate/sft/10"].endswith("\N{DAGGER}")
    assert "Exploratory: fewer than 5 seeds" in page.text


def test_leverage_is_given_for_each_amount_of_general_data_and_each_share(contents, page):
    estimates = Estimates(contents)
    for variant in ("general_30", "general_1000", "share_0.05"):
        first, second = Key("translate", "tell", 10, variant), Key("translate", "sft", 10)
        found = estimates.contrast(first, second)
        assert found is not None
        shown = plain(page.numbers[f"leverage/translate/tell/10/{variant}"])
        assert shown == interval(found.estimate)
    for label in ("General rows", "Task share", "Parts of the composition"):
        assert label in page.text


def test_a_single_seed_of_an_arm_spoils_no_report(tmp_path):
    root = write_experiments(
        tmp_path / "experiments",
        folders=CORE,
        leave_out=lambda cell: cell.arm == "sft" and cell.seed > 0,
    )
    page = Page(written(read_experiments(root)).html)
    assert page.numbers["p/translate/sft/10"] == "1.000"


def test_folders_without_any_result_have_a_report(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE, leave_out=lambda cell: True)
    text = Page(written(read_experiments(root)).html).text
    assert "0 of 154 completed" in text
    assert "Not run yet" in text


# The command


def test_the_command_writes_page_markdown_and_headline(tmp_path, capsys):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    report = written(read_experiments(root))
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- headline -->\nold\n<!-- /headline -->\nafter\n")
    output = tmp_path / "out.html"
    main(["report", str(root), "--output", str(output), "--readme", str(readme)])
    assert f"Report: {output}" in capsys.readouterr().out
    assert output.read_text() == report.html
    assert output.with_suffix(".md").read_text() == report.markdown
    before, table, after = re.split("<!-- /?headline -->\n", readme.read_text())
    assert (before, after) == ("before\n", "after\n")
    lines = table.strip().splitlines()
    assert len(lines) <= 12
    assert lines[0] == "| Claim | Translate | Verdict |"
    assert "154 of 154 runs" in lines[-1]
    assert "0123456789ab" in lines[-1]


def test_one_experiment_has_a_report_of_its_own(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    page = Page(written(read_experiments(root / "anchor")).html)
    assert "The anchor matters" in page.text
    assert "The same data, better" not in page.text
    assert "der/translate/sft/10" in page.numbers  # of cells that it borrows


def test_results_in_another_place_have_a_report_there(tmp_path, capsys):
    root = write_experiments(tmp_path / "experiments", folders=CORE)
    place = tmp_path / "place"
    for name in CORE:
        (place / name).mkdir(parents=True)
        (root / name / "results").rename(place / name / "results")
    base = {"trainer": {"max_steps": 7}}  # as a -c might have it: not known, so not checked
    (root / "base.yaml").write_text(yaml.safe_dump(base))
    (place / "tuning").mkdir()
    (place / "tuning" / "chosen.json").write_text(json.dumps(CHOSEN))
    main(["report", str(root), "--results", str(place)])
    assert f"Report: {place / 'report.html'}" in capsys.readouterr().out
    told = Page((place / "report.html").read_text()).text
    assert "154 of 154 completed" in told
    assert "model.optimizer.lr 0.004" in told
    assert "## Claims" in (place / "report.md").read_text()
    assert not (root / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "lacks"),
    [("nothing", "<!-- headline -->"), ("<!-- headline -->\n", "<!-- /headline -->")],
)
def test_a_readme_without_the_marks_is_a_mistake(tmp_path, capsys, text, lacks):
    root = write_experiments(tmp_path / "experiments", folders=SMALL)
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(SystemExit):
        main(["report", str(root), "--output", str(tmp_path / "x.html"), "--readme", str(readme)])
    told = capsys.readouterr().err
    assert f"without {lacks}. Add both on lines of their own" in told
    assert readme.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["ROOT", "--output", "x.md"], "--output: must name the page, got 'x.md'"),
        (["runs/x", "--readme", "README.md"], "--readme: needs a folder of experiments"),
        (["runs/x", "--results", "there"], "--results: needs a folder of experiments"),
        (["ROOT", "--results", "none"], "got 'none' with none of tuning. Name the folder that you"),
        (["ROOT", "--readme", "none.md"], "--readme: must be a text file with the marks"),
    ],
)
def test_a_mistake_at_the_command_line_is_named(tmp_path, capsys, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    copy = write_experiments(tmp_path / "e", folders=SMALL)
    with pytest.raises(SystemExit):
        main(["report", *(argument.replace("ROOT", str(copy)) for argument in arguments)])
    assert told in capsys.readouterr().err


def test_what_tuning_chose_is_told(tmp_path):
    root = write_experiments(tmp_path / "experiments", folders=SMALL)
    text = Page(written(read_experiments(root)).html).text
    assert "model.optimizer.lr 0.004" in text
    assert json.loads((root / "tuning" / "chosen.json").read_text())["judge"]["tell"]["10"]
