"""The report of experiments, looked at in a browser: light and dark, on desk and phone."""

from pathlib import Path

import numpy as np
import pytest
from browser import FAINT, PICTURES
from small_experiments import write_experiments

from tell_lightning.cli import main

pytestmark = pytest.mark.long
CROWDED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
    const texts = [...svg.querySelectorAll('text.name, text.value, text.heading')];
    const boxes = texts.map(each => [each.getBoundingClientRect(), each.textContent]);
    return boxes.flatMap(([one, text], index) => boxes.slice(index + 1).filter(([other]) =>
        Math.min(one.right, other.right) - Math.max(one.left, other.left) > 1 &&
        Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top) > 4
    ).map(([, beside]) => text + ' | ' + beside));
})
"""
"""Names and numbers in figures that lie on each other."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "experiments"
    write_experiments(folder, leave_out=lambda cell: cell.arm == "late_mix" and cell.seed == 2)
    main(["report", str(folder)])
    return folder / "report.html"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 400)])
def test_the_page_of_experiments_can_be_read(tab, report, scheme, width):
    tab.show(scheme, width)
    tab.open(report)
    assert tab.console == []
    assert set(tab.requests) == {report.as_uri()}
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    assert tab.evaluate(FAINT) == []
    assert tab.evaluate(CROWDED) == []
    assert "of 246 runs 3 not run yet" in tab.evaluate("document.body.innerText")
    pictures, pixels = tab.evaluate(PICTURES), tab.picture()
    assert len(pictures) > 3 * 7
    for picture in pictures:
        x, y, wide, high = (round(picture[key]) for key in ("x", "y", "width", "height"))
        assert wide > 300, picture["label"]
        part = pixels[y : y + high, x : x + wide].astype(np.int64) @ (1 << 16, 1 << 8, 1)
        assert len(np.unique(part)) > 20, picture["label"]
