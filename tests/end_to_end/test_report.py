"""The report of the shared run, looked at in a browser: light and dark, on desk and phone."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import FAINT, PICTURES, Tab
from numpy.typing import NDArray
from tiny_runs import Fits, Run

from tell_lightning.cli import main

VIEWS = [("light", 1200), ("dark", 400)]
"""Theme and width in pixels: the one changes colours alone, the other places alone."""
SCORES = """
[...document.querySelectorAll('details')].forEach(each => { each.open = true });
[...document.querySelectorAll('[data-path]')].map(each => {
    const box = each.getBoundingClientRect(), own = each.firstChild;
    const beside = own.nextSibling ? own.nextSibling.innerText : '';
    return [each.dataset.path, own.textContent, beside, box.width * box.height];
})
"""


@dataclass(frozen=True)
class View:
    """The report in one theme at one width."""

    text: str
    scores: list[tuple[str, str, str, float]]
    """Path in the record, text, text of the interval, and the area that it takes."""
    pictures: list[dict[str, Any]]
    pixels: NDArray[np.uint8]
    faint: list[tuple[float, str]]
    """Texts with too little contrast."""
    overflow: int
    """Pixels by which the page is wider than the window."""
    requests: list[str]
    console: list[str]


@pytest.fixture(scope="session")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the shared run, outside its folder, which other tests look at."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    main(["report", str(run.folder), "--output", str(path)])
    return path


@pytest.fixture(scope="session")
def views(tab: Tab, report: Path) -> dict[tuple[str, int], View]:
    """The report in each theme, at each width."""
    return {(scheme, width): look(tab, report, scheme, width) for scheme, width in VIEWS}


def look(tab: Tab, path: Path, scheme: str, width: int) -> View:
    tab.show(scheme, width)
    tab.open(path)
    scores = [tuple(found) for found in tab.evaluate(SCORES)]
    return View(
        text=tab.evaluate("document.body.innerText"),
        scores=scores,
        pictures=tab.evaluate(PICTURES),
        pixels=tab.picture(),
        faint=tab.evaluate(FAINT),
        overflow=tab.evaluate("document.documentElement.scrollWidth") - width,
        requests=tab.requests,
        console=tab.console,
    )


def scores_of(record: dict[str, Any]) -> dict[str, tuple[float, list[float] | None]]:
    """Every number that was scored, by its path, with its interval."""

    def state(path: str, found: dict[str, Any] | None) -> Iterator[tuple[str, Any]]:
        for task, scores in (found or {}).get("tasks", {}).items():
            yield from named(f"{path}/tasks/{task}", scores)
        for source, loss in (found or {}).get("loss_nats_per_token", {}).items():
            yield f"{path}/loss_nats_per_token/{source}", (loss, None)

    def named(path: str, scores: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in scores["values"].items():
            yield f"{path}/{name}", (value, scores["intervals"].get(name))

    metrics = dict(record["metrics"])
    found: dict[str, Any] = {}
    for number, entry in enumerate(metrics.pop("dev_history")):
        found |= dict(state(f"dev_history/{number}", entry))
        found[f"dev_history/{number}/score"] = (entry["score"], None)
    for split, both in metrics.items():
        for moment in ("before", "after"):
            found |= dict(state(f"{split}/{moment}", both[moment]))
        for task, floors in both["floors"].items():
            for floor, scores in floors.items():
                found |= dict(named(f"{split}/floors/{task}/{floor}", scores))
    return found


def number(text: str) -> tuple[float, float]:
    """Read a number off the page: its value, and half a unit of its last digit."""
    plain = text.replace(",", "").replace("\N{MINUS SIGN}", "-")
    scale = 0.01 if plain.endswith("%") else 1.0
    digits = plain.removesuffix("%")
    return float(digits) * scale, 0.51 * scale * 10.0 ** -len(digits.partition(".")[2])


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_shows_every_score_of_the_record(run: Run, views, view):
    wanted = scores_of(run.record)
    shown = {path: (text, beside, area) for path, text, beside, area in views[view].scores}
    assert len(wanted) > 200
    assert set(shown) == set(wanted)
    for path, (value, interval) in wanted.items():
        text, beside, area = shown[path]
        read, half = number(text)
        assert read == pytest.approx(value, abs=half), path
        assert area > 0, path
        assert bool(beside) == bool(interval), path
        for bound, told in zip(interval or [], re.findall(r"[^\[\], ]+", beside), strict=True):
            read, half = number(told + "%" * text.endswith("%"))
            assert read == pytest.approx(bound, abs=half), path


@pytest.mark.parametrize("view", VIEWS)
def test_the_console_is_silent_and_nothing_is_fetched(views, report, view):
    assert views[view].console == []
    assert set(views[view].requests) == {report.as_uri()}


def test_the_browser_would_have_told_of_trouble(tab, tmp_path):
    bad = tmp_path / "bad.html"
    script = "console.error('seen'); undefined.x"
    bad.write_text(f"<img src='missing.png'><script>{script}</script>", encoding="utf-8")
    tab.open(bad)
    assert (tmp_path / "missing.png").as_uri() in tab.requests
    said = " ".join(tab.console)
    assert "seen" in said
    assert "TypeError" in said
    assert "ERR_FILE_NOT_FOUND" in said


@pytest.mark.parametrize("view", VIEWS)
def test_no_picture_is_empty(views, view):
    found = views[view]
    assert len(found.pictures) >= 2 + 2 + 5  # results, plan, curves
    for picture in found.pictures:
        x, y, width, height = (round(picture[key]) for key in ("x", "y", "width", "height"))
        assert width > 300
        assert height > 60
        assert picture["texts"] > 3
        assert len(picture["label"]) > 40
        part = found.pixels[y : y + height, x : x + width].astype(np.int64) @ (1 << 16, 1 << 8, 1)
        assert len(np.unique(part)) > 20, picture["label"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_text_can_be_read_on_its_paper(views, view):
    assert views[view].faint == []
    corner = views[view].pixels[2, 2].mean()
    assert corner > 240 if view[0] == "light" else corner < 40


@pytest.mark.parametrize("view", VIEWS)
def test_the_page_is_no_wider_than_its_window(views, view):
    assert views[view].overflow <= 0


def test_the_page_tells_what_ran(run: Run, views):
    text = views["light", 1200].text
    record = run.record
    for told in (
        record["name"],
        "completed",
        record["git"]["commit"],
        *record["versions"].values(),
        record["base"]["sha256"]["model.safetensors"],
        "Every slot of the run",
        "data.tasks.turn.anchor.text",
        "4, of 4 examples each",
    ):
        assert told in text, told


def test_the_signatures_are_there(run: Run, views):
    signatures = run.record["metrics"]["test"]["after"]["tasks"]["turn"]["signatures"]
    assert signatures
    for signature in signatures.values():
        assert signature in views["light", 1200].text


def test_answers_stand_side_by_side(run: Run, views):
    text = " ".join(views["light", 1200].text.split())
    for task in ("turn", "verdict"):
        assert f"{task}: 24 test rows" in text
        assert f"predictions/test-{task}-base.jsonl" in text
    assert run.jsonl("test-turn-base")[0]["reference"] in text
    assert "24 unreadable" in text or "right" in text


@pytest.mark.long
def test_a_run_of_general_rows_alone_has_a_report(fit: Fits, tmp_path: Path) -> None:
    options = ["--data.tasks={}", "--data.mixture.arm=general_only", "--trainer.max_steps=2"]
    made = fit(*options)
    path = tmp_path / "report.html"
    main(["report", str(made.folder), "--output", str(path)])
    text = path.read_text(encoding="utf-8")
    assert "No task is configured" in text
    assert "General slots over the whole run" in text
    assert json.loads((made.folder / "run.json").read_text())["name"] in text
