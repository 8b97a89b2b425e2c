"""The report of two suites: the folder of the report, and one inside it with its own testbeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_experiments import FOLDERS, write_experiments

from tell_lightning.experiment import statistics
from tell_lightning.report.experiments.claims import claims, compared
from tell_lightning.report.experiments.contents import Key, read_experiments, read_suites
from tell_lightning.report.experiments.estimates import Estimates
from tell_lightning.report.experiments.page import written
from tell_lightning.report.experiments.sections import with_interval

AGAINST_SFT = {"kind": "contrast", "against": "sft", "equivalence": 1.0}


def claim(name: str, *cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**FOLDERS[name], "cells": list(cells), **changes}


def cells(testbed: str, arms: list[str], n: list[int]) -> dict[str, Any]:
    return {"testbeds": [testbed], "arms": arms, "n": n, "seeds": 5}


PAIR = ["tell", "sft"]
TOY = {
    "same_data": claim("same_data", cells("translate", PAIR, [10, 30, 100, 300])),
    "anchor": claim("anchor", cells("translate", ["mix_without_anchor"], [10])),
}
REAL = {
    "same_data": claim(
        "same_data", cells("judge", PAIR, [10]), title="Ten", rule={**AGAINST_SFT, "n": 10}
    ),
    "prompt": claim("anchor", title="The prompt"),
    "hundred": claim(
        "same_data", cells("judge", PAIR, [100]), title="A hundred", rule={**AGAINST_SFT, "n": 100}
    ),
}


@pytest.fixture(autouse=True, scope="module")
def few_draws() -> Iterator[None]:
    """Draw less than a report does: known effects are large, and minutes are saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "DRAWS", 300)
        yield


def write_suites(root: Path, **real: Any) -> Path:
    """Write both; `real` says what the inner one lacks."""
    write_experiments(root / "inner", folders=REAL, **real)
    return write_experiments(root, folders=TOY)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both, with all their runs."""
    return write_suites(tmp_path_factory.mktemp("both") / "toy")


@pytest.fixture(scope="module")
def both(toy: Path) -> str:
    """Their report in Markdown."""
    return written(*read_suites(toy)).markdown


def row(text: str, title: str) -> list[str]:
    """Return the cells of the overview's row of a claim."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {title} |"))
    return [each.strip() for each in line.strip("|").split("|")[1:]]


def test_a_claim_has_its_verdicts_of_both_suites_in_one_row(both):
    assert "\n| Claim | toy | inner |\n" in both
    outer, inner = row(both, "The same data, better")
    assert outer.startswith("**undecided**, TELL less SFT at n = 10, points: ✓ Translate +")
    assert inner.startswith("**undecided** (Ten), TELL less SFT at n = 10, points: ? Judge +")
    assert row(both, "A hundred")[0] == ""
    headings = ("The same data, better", "inner: Ten", "The anchor matters", "inner: A hundred")
    places = [both.index(f"\n### {heading}: ") for heading in headings]
    assert places == sorted(places)


def test_a_claim_stands_beside_the_one_of_its_folder_name_or_else_of_its_rule(tmp_path):
    root = write_suites(tmp_path / "toy", leave_out=lambda cell: True)
    found = compared([claims(each, each.name) for each in read_suites(root)])
    assert [[[each.title for each in suite] for suite in row.claims] for row in found] == [
        [["toy: The same data, better"], ["inner: Ten"]],
        [["toy: The anchor matters"], ["inner: The prompt"]],
        [[], ["inner: A hundred"]],
    ]


def test_the_outer_suite_reads_as_it_does_alone(toy, both):
    alone = written(read_experiments(toy)).markdown.splitlines()
    del alone[alone.index("## Overview") : alone.index("## Claims")]
    lines = iter(both.splitlines())
    assert [line for line in alone if line not in lines] == []  # all of them, in this order


def test_leverage_has_its_losses_and_its_price_on_each_testbed(toy, both):
    inner = read_suites(toy)[1]
    estimates = Estimates(inner)
    tell, sft = Key("judge", "tell", 10), Key("judge", "sft", 10)
    known = {what: estimates.contrast(tell, sft, what) for what in ("score", "loss", "general")}
    wanted = [
        with_interval(found.estimate, what, change=True) for what, found in known.items() if found
    ]
    ratio = estimates.ratio("judge", "sft", 10)
    assert ratio is not None
    tokens = [80 * 16 * 125 // 5 + 300 * 125, 80 * 16 * 30 // 5]  # as the results say
    wanted += [str(ratio.examples), str(ratio.tokens), *(f"{each:,}" for each in tokens)]
    line = next(line for line in both.splitlines() if line.startswith("| Judge | 10 | "))
    assert line == f"| Judge | 10 | {' | '.join([*wanted, '0.2', '0.2'])} |"


def test_a_suite_says_how_many_runs_it_has(tmp_path):
    root = write_suites(
        tmp_path / "toy",
        leave_out=lambda cell: cell.seed > 2 or cell.n > 10,
        fail=lambda cell: cell.seed == 0 and cell.arm == "sft",
    )
    text = written(*read_suites(root)).markdown
    assert "Runs: 45 of 45 completed" in text
    assert "\ninner: Runs: 5 of 20 completed, 1 failed" in text
    assert row(text, "The same data, better")[1] == "**no verdict, 5 of 10 runs, 1 failed** (Ten)"
    assert row(text, "A hundred") == ["", "**no runs yet**"]
    assert "| Judge | 100 | 0 of 10 runs completed |" in text


def test_a_folder_without_runs_spoils_no_report(tmp_path):
    root = write_suites(tmp_path / "toy", leave_out=lambda cell: True)
    report = written(*read_suites(root))
    assert row(report.markdown, "The same data, better")[1] == "**no runs yet** (Ten)"
    assert "✓ Translate" in report.markdown
    assert "inner: The prompt" in report.html


def test_a_folder_inside_has_a_report_of_its_own(toy):
    (inner,) = read_suites(toy / "inner")
    assert "### Ten: " in written(inner).markdown


def test_results_in_another_place_are_of_the_named_folder_alone(toy):
    (found,) = read_suites(toy, toy)
    assert (found.name, found.planned) == ("toy", 45)
