"""Figures as SVG that can be read: by eye, by a theme and by a screen reader."""

import re
from xml.etree import ElementTree as ET

import pytest

from tell_lightning.report.drawing import (
    Bars,
    Cells,
    Chart,
    Estimate,
    Line,
    bars_svg,
    cells_svg,
    chart_svg,
    intervals_svg,
)

TWO = [Line("turn", [(0, 4.0), (10, 1.0)], "t1", True), Line("<b>", [(0, 3.0), (10, 1.01)], "g1")]
CHART = Chart("Loss", "steps", "nats", TWO, levels=[("floor", 2.0)], mark=("kept", 10.0))
CELLS = Cells(
    "Slots", "step", "slot", [0, 1, 1, 0, 1], ["t1", "g1"], ["turn", "x"], 2, 1, cycles=[0, 3]
)
BARS = Bars("Shares", "step", "share", [[0.5], [0.25]], ["t1"], ["turn"], 2.0, level=("s", 0.2))
FIGURES = {
    "chart": chart_svg(CHART),
    "intervals": intervals_svg("BLEU", "0 to 100", [Estimate("a", 2, "2", (1, 3))], 100),
    "cells": cells_svg(CELLS),
    "bars": bars_svg(BARS),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labels_words_and_no_colour_of_its_own(name):
    svg = ET.fromstring(FIGURES[name])
    assert svg.get("role") == "img"
    assert len(svg.findtext("desc", "")) > 20
    assert svg.get("aria-label", "").endswith(svg.findtext("desc", ""))
    assert [node for node in svg.iter("text") if "label" in node.get("class", "")]
    assert not re.findall(r"#[0-9a-f]{3,6}|(?:fill|stroke)=", FIGURES[name])


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_outside_a_figure(name):
    svg = ET.fromstring(FIGURES[name])
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    for node in svg.iter():
        for key, most in (("x", width), ("x1", width), ("x2", width), ("y", height)):
            if key in node.attrib:
                assert -1 <= float(node.attrib[key]) <= most + 1, (node.tag, node.attrib)


def test_names_are_escaped_and_kept_apart():
    svg = ET.fromstring(FIGURES["chart"])
    names = {n.text: float(n.get("y", 0)) for n in svg.iter("text") if n.get("class") == "name"}
    assert set(names) == {"turn", "<b>"}
    assert abs(names["turn"] - names["<b>"]) >= 13


def test_lines_differ_by_their_marks_and_not_by_colour_alone():
    spots = [n.get("d", "") for n in ET.fromstring(FIGURES["chart"]).iter() if n.tag == "path"]
    shapes = {re.sub(r"^M[\d. ]+", "", d) for d in spots if d.endswith("z")}
    assert len(shapes) == 2


def test_a_chart_of_one_point_or_of_equal_values_is_drawn():
    for points in ([(0.0, 1.0)], [(0.0, 0.0), (5.0, 0.0)]):
        svg = ET.fromstring(chart_svg(Chart("One", "steps", "y", [Line("a", points, "t1")])))
        assert [n for n in svg.iter("path") if n.get("class") == "line t1"]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    points = [(0.0, 10.0), (1.0, 1.0), (2.0, 0.1)]
    chart = Chart("Log", "steps", "y", [Line("a", points, "t1")], logarithmic=True)
    (path,) = [n for n in ET.fromstring(chart_svg(chart)).iter("path")]
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path.get("d", ""))]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.05)


def test_each_cell_wears_its_source():
    svg = ET.fromstring(FIGURES["cells"])
    counts = {n.get("class"): n.get("d", "").count("M") for n in svg.iter("path")}
    assert counts == {"cells t1": 2, "cells g1": 3, "cycle": 2}
    assert "2 of turn, 3 of x" in svg.findtext("desc", "")


def test_what_was_not_trained_lies_under_a_veil():
    assert "veil" not in cells_svg(CELLS)
    svg = ET.fromstring(cells_svg(Cells(**{**vars(CELLS), "done": 2})))
    assert [n for n in svg.iter("rect") if n.get("class") == "veil"]
    assert "veil" in bars_svg(Bars(**{**vars(BARS), "done": 1.0}))
    assert "veil" not in bars_svg(Bars(**{**vars(BARS), "done": 2.0}))
