"""Show the main panels of a run in a W&B workspace, or in a picture made from the run folder.

    python experiments/dashboard/dashboard.py RUN --out panels.png
    python experiments/dashboard/dashboard.py RUN --entity NAME        needs .[dashboard] and a key

Both show the same panels, which `panels` defines: numbers of `metrics.csv` under a title. The
workspace shows them for every run of the project.
"""

import argparse
import json
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tell_lightning.callbacks.folder import RunFolder, existing_folder
from tell_lightning.callbacks.metrics_log import by_name, read_log
from tell_lightning.errors import TellError
from tell_lightning.metrics.kinds.registry import BUILT_IN, built_in
from tell_lightning.metrics.score_facts import facts_of

STEP = "trainer/global_step"
SCORES = {
    "translation": ("bleu", "chrf"),
    "judge": ("balanced_accuracy", "f1", "json_valid"),
    "text": ("exact_match",),
}
"""The scores shown for each kind of task, on one axis."""
# Okabe and Ito's palette, which colour-blind readers can distinguish; general sources are grey.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREYS = ("#8A8A8A", "#BDBDBD", "#5C5C5C")
SHOWN = 3
"""Number of rows of each table in the picture."""


@dataclass(frozen=True)
class Panel:
    """One panel."""

    section: str
    title: str
    kind: Literal["lines", "shares", "table"]
    """Lines over optimizer steps; stacked shares of the sum; a table of answers."""
    keys: tuple[str, ...]
    """Log keys of the numbers or of the table."""
    unit: str = ""
    """Unit of the y axis."""

    @property
    def labels(self) -> list[str]:
        """The label of each key: the label of a score, else the name of the source."""
        names = [key.rpartition("/")[2] for key in self.keys]
        return [facts_of(name).label if self.section == "Scores" else name for name in names]


def panels(folder: RunFolder, logged: set[str]) -> list[Panel]:
    """Return the panels of a run.

    Args:
        folder: The folder of the run.
        logged: The names in `metrics.csv`; a panel without any of them is left out.
    """

    def keys(start: str, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(key for name in names if (key := f"{start}/{name}") in logged)

    kinds = {name: source["kind"] for name, source in _sources(folder).items()}
    tasks = {
        name: task.get("scoring", {}).get("kind", "text")
        for name, task in _config(folder)["data"]["tasks"].items()
    }
    general = [name for name, kind in kinds.items() if kind == "general"]
    charts = [
        Panel("Scores", f"{task}, dev rows", "lines", keys(f"val/{task}", _scores(kind)))
        for task, kind in tasks.items()
    ]
    nats = "nats per label token"
    charts += [
        Panel("Loss", "training, per source", "lines", keys("train/loss", kinds), nats),
        Panel("Loss", "dev rows, per task", "lines", keys("val/loss", tasks), nats),
        Panel("Mixture", "examples trained on", "shares", keys("train/examples", kinds), "share"),
        Panel("Forgetting", "held-out general rows", "lines", keys("val/loss", general), nats),
    ]
    tables = [
        Panel("Samples", f"{task}, dev rows", "table", (f"val/{task}/samples",)) for task in tasks
    ]
    scored = any(key.startswith("val/") for key in logged)
    return [panel for panel in charts if panel.keys] + (tables if scored else [])


def _scores(kind: str) -> Sequence[str]:
    """Name the scores of a kind of task that are shown; of a class path none is known."""
    return SCORES.get(kind) or (built_in(kind).table if kind in BUILT_IN else ())


def workspace(found: Sequence[Panel], *, entity: str, project: str, name: str) -> Any:
    """Make a W&B workspace of the panels, without sending it."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    def build(panel: Panel) -> Any:
        if panel.kind == "table":
            return wr.WeavePanelSummaryTable(table_name=panel.keys[0])
        return wr.LinePlot(
            title=panel.title,
            x=STEP,
            y=list(panel.keys),
            title_x="optimizer steps",
            title_y=panel.unit or None,
            plot_type="pct-area" if panel.kind == "shares" else "line",
        )

    sections = [
        ws.Section(
            name=section,
            panels=[build(panel) for panel in found if panel.section == section],
            is_open=True,
            layout_settings=ws.SectionLayoutSettings(columns=2, rows=1),
        )
        for section in dict.fromkeys(panel.section for panel in found)
    ]
    return ws.Workspace(entity=entity, project=project, name=name, sections=sections)


def draw(found: Sequence[Panel], folder: RunFolder, out: Path) -> None:
    """Draw the same panels from `metrics.csv` and the predictions."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    plt.rcParams |= {"font.family": "sans-serif", "font.size": 9, "axes.titlesize": 10}
    charts = [panel for panel in found if panel.kind != "table"]
    tables = [panel for panel in found if panel.kind == "table"]
    rows = math.ceil(len(charts) / 2)
    heights = [1.0] * rows + [0.85] * len(tables)
    figure = plt.figure(figsize=(11, 2.7 * sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights)
    log = by_name(read_log(folder.path / "metrics.csv"))
    colours = source_colours(folder)
    for index, panel in enumerate(charts):
        axes = figure.add_subplot(grid[index // 2, index % 2])
        _chart(axes, panel, log, colours)
    for index, panel in enumerate(tables):
        _table(figure.add_subplot(grid[rows + index, :]), panel, folder)
    figure.suptitle(folder.path.name, x=0.01, ha="left", fontsize=11)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(
        out, dpi=100, facecolor="white", metadata={"Software": None}, pil_kwargs={"optimize": True}
    )
    plt.close(figure)


def source_colours(folder: RunFolder) -> dict[str, str]:
    """Give each task a colour and each general source a grey."""
    sources = _sources(folder)
    colours, greys = iter(COLOURS * len(sources)), iter(GREYS * len(sources))
    return {
        name: next(greys if about["kind"] == "general" else colours)
        for name, about in sources.items()
    }


def _config(folder: RunFolder) -> dict[str, Any]:
    return dict(yaml.safe_load(folder.latest_config.read_text(encoding="utf-8")))


def _sources(folder: RunFolder) -> dict[str, Any]:
    plan = json.loads((folder.path / "plan.json").read_text(encoding="utf-8"))
    return dict(plan["realised"]["sources"])


def _chart(axes: Any, panel: Panel, log: dict[str, Any], colours: dict[str, str]) -> None:
    palette = [colours.get(name, COLOURS[n]) for n, name in enumerate(panel.labels)]
    if panel.kind == "shares":
        steps = [step for step, _ in log[panel.keys[0]]]
        counts = [[value for _, value in log[key]] for key in panel.keys]
        totals = [sum(column) or 1.0 for column in zip(*counts, strict=True)]
        shares = [[v / t for v, t in zip(row, totals, strict=True)] for row in counts]
        axes.stackplot(steps, shares, labels=panel.labels, colors=palette)
        axes.set_ylim(0, 1)
    else:
        for index, (key, label) in enumerate(zip(panel.keys, panel.labels, strict=True)):
            steps, values = zip(*log[key], strict=True)
            (line,) = axes.plot(steps, values, color=palette[index], label=label)
            if key.startswith("val/"):
                line.set(marker="o", markersize=4)
            if label not in colours:  # scores of one task, whose lines may overlap
                line.set(linestyle=("-", "--", ":")[index % 3])
        axes.set_ylim(bottom=0)
    axes.set_title(f"{panel.section}: {panel.title}", loc="left")
    axes.set_xlabel("optimizer steps")
    axes.set_ylabel(panel.unit)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    if panel.kind == "shares":
        axes.legend(loc="upper right", framealpha=1, edgecolor="white")
    else:
        axes.legend(loc="best", frameon=False)


def _table(axes: Any, panel: Panel, folder: RunFolder) -> None:
    """Write the first answers of the last scoring, each above its reference."""
    task = panel.keys[0].split("/")[1]
    axes.axis("off")
    files = sorted(folder.predictions.glob(f"dev-{task}-step-*.jsonl"))
    if not files:
        axes.set_title(f"{panel.section}: {panel.title}, none yet", loc="left")
        return
    step = int(files[-1].stem.rpartition("-")[2])
    axes.set_title(f"{panel.section}: {panel.title}, step {step}", loc="left")
    lines = files[-1].read_text(encoding="utf-8").splitlines()[:SHOWN]
    for index, row in enumerate(map(json.loads, lines)):
        for offset, name in enumerate(("prediction", "reference")):
            height = 0.96 - (index * 2.3 + offset) / (2.3 * SHOWN)
            text = "".join(c if c.isprintable() else " " for c in str(row.get(name, "")))
            text = textwrap.shorten(text, 130, placeholder=" …")
            axes.text(0, height, name, color="#666666", va="top", transform=axes.transAxes)
            axes.text(0.08, height, text, va="top", transform=axes.transAxes, parse_math=False)


def main() -> None:
    """Draw the panels, or send them to W&B."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("run", metavar="RUN", help="the folder that `fit` wrote")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, help="picture to write; needs no network")
    where.add_argument("--entity", help="W&B user or team whose project gets the workspace")
    options = parser.parse_args()
    try:
        folder = existing_folder(options.run)
        if not (folder.path / "metrics.csv").is_file():
            raise TellError(f"RUN: must have logged something, got no metrics.csv in {options.run}")
    except TellError as error:
        parser.error(str(error))
    shown = panels(folder, set(by_name(read_log(folder.path / "metrics.csv"))))
    if options.out:
        draw(shown, folder, options.out)
        return
    project = _config(folder)["run"]["wandb_project"]
    print(workspace(shown, entity=options.entity, project=project, name="TELL").save().url)


if __name__ == "__main__":
    main()
