"""Draw the beginning of a run's training stream for the README.

    python experiments/figures/stream.py [--out docs/stream.svg] [--seed 42]

Each square is a position of the plan of the demo; the figure shows the first ones.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from tell_lightning.commands.check import check
from tell_lightning.data.permutation import derive_key
from tell_lightning.data.plan import resolve_plan

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLOURS = {"translate": "#D55E00", "judge": "#0072B2", "instructions": "#D9D9D9"}
LABELS = {
    "translate": "task: translate, 50 examples, each behind its anchor",
    "judge": "task: judge, 50 examples, each behind its anchor",
    "instructions": "general instructions, 20,000 rows",
}
COLUMNS, ROWS = 64, 5
INK, QUIET = "#222222", "#666666"


def main() -> None:
    """Write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/stream.svg"))
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure = draw(source_names(options.seed))
    figure.savefig(options.out, bbox_inches="tight", facecolor="white", metadata={"Date": None})


def source_names(seed: int) -> list[str]:
    """Return the sources of the first positions of the plan."""
    mixture = check([]).data.mixture
    plan = resolve_plan(
        mixture,
        {"translate": mixture.task_examples or 0, "judge": mixture.task_examples or 0},
        {"instructions": (20_000, None)},
        seed=derive_key(seed, "order"),
    )
    return [plan.sources[index].name for index in plan.at(range(COLUMNS * ROWS)).sources]


def draw(names: Sequence[str]) -> Figure:
    """Draw a square for each source name, and the steps of a run below."""
    plt.rcParams |= {"font.family": "sans-serif", "svg.hashsalt": "stream", "svg.fonttype": "none"}
    figure, axes = plt.subplots(figsize=(9, 2.9))
    axes.set_xlim(-1, COLUMNS + 1)
    axes.set_ylim(-4.4, ROWS + 4.6)
    axes.axis("off")
    for index, (name, label) in enumerate(LABELS.items()):
        top = ROWS + 3.4 - 1.15 * index
        axes.add_patch(Rectangle((0, top), 0.85, 0.85, color=COLOURS[name]))
        axes.text(1.5, top + 0.42, label, va="center", color=INK)
    for position, name in enumerate(names):
        row, column = divmod(position, COLUMNS)
        corner = (column, ROWS - 1 - row)
        axes.add_patch(Rectangle(corner, 0.85, 0.85, color=COLOURS[name]))
    caption = "position \u2192 (source, row), by seed alone"
    axes.text(COLUMNS, ROWS + 1.55, caption, ha="right", va="center", color=QUIET)
    steps = ["batches of 32", "LoRA causal LM", "greedy answers", "BLEU, F1, \u2026", "run.json"]
    width, gap = 10.9, 2.3
    for index, step in enumerate(steps):
        left = index * (width + gap) + 0.3
        axes.add_patch(
            FancyBboxPatch(
                (left, -3.2), width, 1.5, boxstyle="round,pad=0.25", fc="white", ec=QUIET, lw=0.8
            )
        )
        axes.text(left + width / 2, -2.45, step, ha="center", va="center", color=INK)
        if index:
            arrow = {"arrowstyle": "->", "color": QUIET}
            axes.annotate("", (left - 0.4, -2.45), (left - gap + 0.4, -2.45), arrowprops=arrow)
    return figure


if __name__ == "__main__":
    main()
