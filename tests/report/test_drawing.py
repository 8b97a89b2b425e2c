"""Figures as SVG that can be read: by eye, by a theme and by a screen reader."""

import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from tell_lightning.report.canvas import Axis
from tell_lightning.report.drawing import Block, Blocks, Chart, Intervals, Level, Line, Point, Row

CHART = Chart(
    "Loss",
    "steps",
    "nats",
    [
        Line("turn", [Point(0, 4.0, (3.5, 4.5), [3.6, 4.4]), Point(10, 1.0, (0.9, 1.1))], "t1"),
        Line("<b>", [Point(0, 3.0), Point(10, 1.01)], "g1", shape=1),
    ],
    [Level("baseline", 2.0), Level("SFT", 2.5, "t2", (2.4, 2.6))],
    mark=("kept", 10.0),
)
ROWS = Intervals(
    "BLEU",
    "0 to 100",
    [
        Row("a", "2 [1, 3]", "t1", 2, (1, 3), [1.5, 2.5]),
        Row("b", "9", "t2", 9, (5, 12), hollow=True, beyond="right", heading="others"),
    ],
    references=[1.0],
)
BLOCKS = Blocks(
    "Slots",
    "2 of turn, 3 of x",
    "step",
    "slot",
    length=3,
    columns=3,
    high=2,
    y_ticks={1.5: "1", 0.5: "2"},
    tall=100,
    blocks={
        "t1": [Block(0, 1, 1, 1), Block(1, 0, 1, 1)],
        "g1": [Block(0, 0, 1, 1), Block(1, 1, 1, 1), Block(2, 1, 1, 1)],
    },
    cycles=[0, 1.5],
    level=0.5,
    mark=("kept", 0.0),
)
FIGURES = {"chart": CHART, "intervals": ROWS, "blocks": BLOCKS}


def drawn(figure: Chart | Intervals | Blocks) -> ET.Element:
    return ET.fromstring(figure.svg())


def paths(figure: Chart | Intervals | Blocks, class_: str) -> list[str]:
    return [n.get("d", "") for n in drawn(figure).iter("path") if n.get("class") == class_]


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_labels_words_and_no_colour_of_its_own(name):
    svg = drawn(FIGURES[name])
    assert svg.get("role") == "img"
    assert svg.get("aria-label", "").startswith(f"{FIGURES[name].title}. ")
    assert len(svg.get("aria-label", "")) > 20
    assert [node for node in svg.iter("text") if "label" in node.get("class", "")]
    assert not re.findall(r"#[0-9a-f]{3,6}|(?:fill|stroke|style)=", FIGURES[name].svg())


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_lies_outside_a_figure(name):
    svg = drawn(FIGURES[name])
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    places = [
        (float(node.attrib[x]), float(node.attrib[y]))
        for node in svg.iter()
        for x, y in (("x", "y"), ("cx", "cy"))
        if x in node.attrib
    ]
    for node in svg.iter("path"):
        pairs = re.findall(r"[ML]([\d.-]+) ([\d.-]+)", node.get("d", ""))
        places += [(float(x), float(y)) for x, y in pairs]
    assert len(places) > 10
    for x, y in places:
        assert -1 <= x <= width + 1
        assert -1 <= y <= height + 1


def test_a_chart_says_its_numbers_in_words():
    words = drawn(CHART).get("aria-label", "")
    assert "turn: 4 [3.5, 4.5] at 0, 1 [0.9, 1.1] at 10" in words
    assert "<b>: 3 at 0, 1.01 at 10, lowest 1.01, highest 3" in words
    assert "baseline: 2; SFT: 2.5 [2.4, 2.6]; kept at 10." in words


def test_names_are_escaped_and_kept_apart():
    names = {
        n.text: float(n.get("y", 0)) for n in drawn(CHART).iter("text") if n.get("class") == "name"
    }
    assert set(names) == {"turn", "<b>", "baseline", "SFT"}
    assert abs(names["turn"] - names["<b>"]) >= 13


def test_a_long_name_is_broken_and_leaves_room():
    long = [replace(CHART.lines[0], name="General data, then the task alone")]
    svg = drawn(replace(CHART, lines=long, levels=[]))
    names = [n for n in svg.iter("text") if n.get("class") == "name"]
    assert [n.text for n in names] == ["General data,", "then the task", "alone"]
    assert all(float(n.get("x", 0)) + 7 * len(n.text or "") < 370 for n in names)


def test_lines_differ_by_their_marks_and_not_by_colour_alone():
    spots = paths(CHART, "spot t1") + paths(CHART, "spot g1")
    assert len(spots) == 6  # two of each line, and one at each name
    assert len({re.sub(r"^M[\d.]+ [\d.]+", "", spot) for spot in spots}) == 2


def test_intervals_are_a_band_or_bars_and_every_seed_is_a_dot():
    assert len(paths(CHART, "band t1")) == 1
    assert paths(CHART, "bar t1") == []
    bars = replace(CHART, bars=True)
    assert paths(bars, "band t1") == []
    assert paths(bars, "bar t1")[0].count("M") == 2
    assert len([n for n in drawn(CHART).iter("circle") if n.get("class") == "seed t1"]) == 2


def test_a_level_goes_through_the_whole_chart():
    (line, key), (grid, *_) = paths(CHART, "line level"), paths(CHART, "grid")
    assert re.findall(r"[ML]([\d.]+) ", line) == re.findall(r"[ML]([\d.]+) ", grid)
    assert key != line
    assert len(paths(CHART, "band t2")) == 1


def test_a_chart_of_one_point_or_of_equal_values_is_drawn():
    for points in ([Point(0.0, 1.0)], [Point(0.0, 0.0), Point(5.0, 0.0)]):
        assert paths(Chart("One", "steps", "y", [Line("a", points, "t1")]), "line t1")


def test_a_value_that_is_no_number_is_drawn_at_the_edge():
    points = [Point(0.0, 1.0), Point(1.0, float("nan")), Point(2.0, float("inf")), Point(3.0, 2.0)]
    (line,) = paths(Chart("Gap", "steps", "y", [Line("a", points, "t1")]), "line t1")
    assert "nan" not in line
    assert "inf" not in line


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors():
    points = [Point(0.0, 10.0), Point(1.0, 1.0), Point(2.0, 0.1)]
    chart = Chart("Log", "steps", "y", [Line("a", points, "t1")], logarithmic_y=True)
    (path,) = paths(chart, "line t1")
    ys = [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]
    assert ys[1] - ys[0] == pytest.approx(ys[2] - ys[1], abs=0.05)
    assert "y, log scale" in chart.svg()


@pytest.mark.parametrize(
    ("values", "logarithmic"), [([1, 5], True), ([1, 3], False), ([0, 5], False), ([-1, 5], False)]
)
def test_an_axis_is_logarithmic_only_where_values_differ_much_and_can_be(values, logarithmic):
    assert Axis.over(values, 0, 100, logarithmic=True).logarithmic is logarithmic


def test_a_row_shows_its_interval_and_on_which_side_the_truth_may_lie():
    assert [path.count("M") for path in paths(ROWS, "whisker t1")] == [3]
    plain = replace(ROWS, rows=[ROWS.rows[0], replace(ROWS.rows[1], beyond="")])
    assert paths(plain, "whisker t2") != paths(ROWS, "whisker t2")
    assert len(paths(ROWS, "spot t2 hollow")) == 1
    texts = [n.text for n in drawn(ROWS).iter("text")]
    assert {"a", "2 [1, 3]", "others"} <= set(texts)


def test_each_block_wears_its_source():
    counts = {n.get("class"): n.get("d", "").count("M") for n in drawn(BLOCKS).iter("path")}
    assert (counts["blocks t1"], counts["blocks g1"]) == (2, 3)
    assert len(paths(BLOCKS, "cycle")) == 2
    assert "2 of turn, 3 of x" in drawn(BLOCKS).get("aria-label", "")


def test_blocks_have_the_size_of_their_values():
    path = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)", paths(BLOCKS, "blocks t1")[0])
    (x1, y1, width, height), (x2, y2, *_) = ([float(each) for each in found] for found in path)
    assert height == pytest.approx(BLOCKS.tall / BLOCKS.high)
    assert x2 - x1 == pytest.approx(width, abs=0.02)
    assert y2 - y1 == pytest.approx(height, abs=0.02)


def test_what_was_not_trained_lies_under_a_veil():
    def veils(**changes: float) -> list[ET.Element]:
        nodes = drawn(replace(BLOCKS, **changes)).iter("rect")
        return [node for node in nodes if node.get("class") == "veil"]

    assert veils() == []
    assert len(veils(done=1.0)) == 1
    assert veils(done=3.0) == []
