"""`plan`: show what would be trained, without a model.

    plan [-c FILE]... [--show N] [--KEY=VALUE]...

The resolved mixture, and N rendered examples from the start of the stream with anchor, prompt and
supervised tokens told apart: by colour on a terminal, by marks in a file.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tell_lightning.commands.check import ConfigError, check, print_help
from tell_lightning.commands.startup import quieten, take_option
from tell_lightning.commands.tables import print_rows
from tell_lightning.data.report import table
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.sources import read_sources
from tell_lightning.data.variants import variant_anchor, variant_prefix

if TYPE_CHECKING:
    from tell_lightning.data.datamodule import TellDataModule

MARKS = {"anchor": ("⟦anchor ", "⟧"), "supervised": ("⟦train ", "⟧"), "prompt": ("", "")}
COLOURS = {
    "anchor": ("\x1b[36m", "\x1b[0m"),
    "supervised": ("\x1b[1;32m", "\x1b[0m"),
    "prompt": ("", ""),
}


def plan(arguments: list[str]) -> None:
    """Run the verb.

    Args:
        arguments: What follows the verb on the command line.
    """
    if {"-h", "--help"} & set(arguments):
        print_help("plan")
        return
    shown, options = take_option(arguments, "--show")
    if shown is not None and not shown.isdigit():
        raise ConfigError(f"--show: must be a number of examples, got '{shown}'. Write --show 3.")
    config = check(options)
    text = read_sources(config.data)
    quieten()
    from tell_lightning.data.datamodule import TellDataModule
    from tell_lightning.model.base import load_tokenizer

    datamodule = TellDataModule(**vars(config.data))
    datamodule.connect(load_tokenizer(config.model), seed=config.seed, text=text)
    datamodule.prepare_data()
    datamodule.setup()
    print_plan(datamodule.describe(config.trainer["max_steps"] * config.data.optimizer_batch))
    if shown:
        _show(datamodule, int(shown))


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the resolved mixture of a run.

    Args:
        plan: What `plan.json` holds.
    """
    realised = plan["realised"]
    print_rows(table(realised), f"Plan {plan['digest'][:12]}")
    left_out = [
        f"{name}: {count} {reason.replace('_', ' ')}"
        for name, report in plan["inputs"].items()
        for reason, count in report["counts"].items()
        if count and reason not in {"read", "kept"}
    ]
    print(
        f"{realised['positions']:,} examples in batches of {plan['optimizer_batch']}; a cycle has "
        f"{plan['cycle']:,}; at most {realised['longest_gap']} examples in a row without a task "
        "example."
    )
    if realised["positions_counted"] < realised["positions"]:
        print(f"Counted over the first {realised['positions_counted']:,} examples.")
    print(f"Left out: {'; '.join(left_out) or 'nothing'}.")


def _show(datamodule: "TellDataModule", count: int) -> None:
    style = COLOURS if sys.stdout.isatty() else MARKS
    legend = "  ".join(f"{before}{kind}{after}" for kind, (before, after) in style.items())
    print(f"\n{legend}")
    for position, source, row in datamodule.plan.at(range(count)):
        name = datamodule.plan.sources[source].name
        tokens = datamodule.rows[source][row]
        supervised = sum(tokens["supervised"])
        print(
            f"\nposition {position}: {name}, {tokens['id']}, {len(tokens['input_ids'])} tokens, "
            f"{supervised} supervised"
        )
        print(
            _mark(
                datamodule.encoder.tokenizer,
                tokens,
                _anchor_texts(datamodule.settings, name, tokens["id"]),
                style,
            )
        )


def _anchor_texts(settings: DataSettings, source: str, row: str) -> list[str]:
    """Return the texts of the anchor that a row of a source carries, to be marked."""
    if source not in settings.tasks:
        return []
    anchor, variant = settings.tasks[source].anchor, settings.mixture.anchor
    carried = variant_anchor(anchor, variant, row=row)
    prompt = "" if variant == "none" else carried.text
    return [text for text in (prompt, variant_prefix(anchor, variant).strip()) if text]


def _mark(
    tokenizer: Any,
    tokens: Mapping[str, list[int]],
    anchors: list[str],
    style: Mapping[str, tuple[str, str]],
) -> str:
    """Decode runs of supervised and other tokens, with the anchor's text marked inside them."""
    runs: list[tuple[bool, list[int]]] = []
    for token, flag in zip(tokens["input_ids"], tokens["supervised"], strict=True):
        if not runs or runs[-1][0] != bool(flag):
            runs.append((bool(flag), []))
        runs[-1][1].append(token)
    text = ""
    for flag, ids in runs:
        before, after = style["supervised" if flag else "prompt"]
        piece = tokenizer.decode(ids)
        for anchor in anchors:
            start, end = style["anchor"]
            # The colour of what surrounds the anchor is taken up again after it.
            piece = piece.replace(
                anchor, f"{start}{anchor}{end}{before if style is COLOURS else ''}"
            )
        text += f"{before}{piece}{after}"
    return text
