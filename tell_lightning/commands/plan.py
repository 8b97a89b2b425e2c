"""`plan`: show what would be trained, without a model."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tell_lightning.commands.arguments import KEYS, CommandParser, whole_number
from tell_lightning.commands.check import check, check_training
from tell_lightning.commands.general import with_written_rows
from tell_lightning.commands.preview import print_lines, scoring_lines
from tell_lightning.commands.price import measured, price, print_price
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.settled import rate_facts, rate_line
from tell_lightning.commands.startup import quieten
from tell_lightning.commands.tables import print_rows
from tell_lightning.data.leaks import contradictions
from tell_lightning.data.plan import Plan
from tell_lightning.data.report import CHANGES, table
from tell_lightning.data.settings import DataSettings
from tell_lightning.data.splits import Splits, read_splits
from tell_lightning.data.variants import variant_anchor, variant_prefix
from tell_lightning.export.serving import serving_notes
from tell_lightning.settings import ConfigError

if TYPE_CHECKING:
    from tell_lightning.data.prepared import PreparedData

DESCRIPTION = """
Show what would be trained, without a model: the resolved mixture and, with --show, the first
examples as the model will read them.

With --positions, show instead of the mixture which row is at each position of the stream:

    {"position": 41, "source": "translate", "row": 7, "cycle": 0, "id": "velsk-0312"}

With --measure, load the model, take a few steps and answer a few rows on this machine, and say what
the run will take: time, memory and disk. Nothing of it is kept.
"""
MARKS = {"anchor": ("⟦anchor ", "⟧"), "supervised": ("⟦train ", "⟧"), "prompt": ("", "")}
COLOURS = {
    "anchor": ("\x1b[36m", "\x1b[0m"),
    "supervised": ("\x1b[1;32m", "\x1b[0m"),
    "prompt": ("", ""),
}
BLOCK = 4096
"""Number of positions that are looked up together."""


def plan(arguments: list[str]) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
    """
    asked, options = _parser().parse_with_keys(arguments)
    if asked.format and not asked.positions:
        raise ConfigError(
            f"--format: must go with --positions, got '{asked.format}' alone. "
            "Write --positions A:B, too."
        )
    config = check(options)
    check_training(config)
    config, written = with_written_rows(config)
    splits = read_splits(config.data)
    say_contradictions(splits)
    quieten()
    from tell_lightning.data.prepared import PreparedData
    from tell_lightning.data.tokenizer import load_tokenizer
    from tell_lightning.model.base import load_skeleton
    from tell_lightning.model.lora import check_lora
    from tell_lightning.model.rate import rate_of

    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    data = PreparedData(config.data, tokenizer, seed=config.seed, given=splits)
    data.prepare()
    data.open()
    check_lora(load_skeleton(config.model), config.model.lora)
    rate = rate_of(config.model)
    if asked.positions:
        _print_positions(data, asked.positions, asked.format or "table")
        return
    steps = data.steps(config.trainer["max_steps"])
    resolved = data.describe(steps) | {"learning_rate": rate_facts(rate, config.model, steps)}
    print_plan(resolved)
    data.check_supply(steps)
    scoring, notes = scoring_lines(data, config.eval), serving_notes(config.model.lora)
    print_lines([*advice_lines(resolved), *written, *scoring, *notes])
    if asked.measure:
        print_price(price(measured(config), data, config))
    if asked.show:
        _show(data, asked.show)


def _parser() -> CommandParser:
    parser = CommandParser("plan", DESCRIPTION, keys=KEYS, list_keys=keys_help)
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--show",
        type=whole_number(0),
        metavar="N",
        help="show N examples, first one of each source, with anchor, prompt and supervised tokens "
        "told apart",
    )
    either.add_argument(
        "--positions",
        type=_positions,
        metavar="A:B",
        help="show the rows at the positions from A up to, not including, B",
    )
    either.add_argument(
        "--measure",
        action="store_true",
        help="measure on this machine, with the model, what the run will take",
    )
    parser.add_argument(
        "--format", choices=("table", "jsonl"), help="how --positions prints; default: table"
    )
    return parser


def print_plan(plan: Mapping[str, Any]) -> None:
    """Print the resolved mixture of a run.

    Args:
        plan: What `plan.json` holds.
    """
    realised = plan["realised"]
    print_rows(table(realised), f"Plan {plan['digest'][:12]}")
    left_out = [
        f"{name}: {reason}"
        for name, report in plan["inputs"].items()
        for reason in reasons_left_out(report["counts"])
    ]
    print(
        f"{realised['positions']:,} examples {_batches(plan)}; a cycle has {plan['cycle']:,}; at "
        f"most {realised['longest_gap']} examples in a row without a task example."
    )
    print(_task_share(realised["task_share"]))
    if plan["length"] is not None:
        print(f"{plan['steps']:,} steps: {plan['length']}.")
    print(rate_line(plan["learning_rate"]))
    if not realised["complete"]:
        print("The run is longer: these are the counts of its first examples.")
    print(f"Left out: {'; '.join(left_out) or 'nothing'}.")
    for note in plan["notes"]:
        print(note)


def advice_lines(plan: Mapping[str, Any]) -> list[str]:
    """Return what is probably not meant in a plan, as notes. An error comes before notes.

    Args:
        plan: What `plan.json` holds.
    """
    return [f"note: {line}" for line in plan["advice"]]


def say_contradictions(splits: Splits) -> None:
    """Tell the user of training prompts of a task that have several responses."""
    for name, pool in splits.train.items():
        if found := contradictions(pool.records):
            (first, second), *_ = found
            print(
                f"data.tasks.{name}.train: a prompt should have one response, got another one in "
                f"{len(found):,} rows, such as {second.where} beside {first.where}. Remove those "
                "that are wrong.",
                file=sys.stderr,
            )


def reasons_left_out(counts: Mapping[str, int]) -> list[str]:
    """Say how many rows of a file are not used, one text for each reason."""
    return [
        f"{count:,} {reason.replace('_', ' ')}"
        for reason, count in counts.items()
        if count and reason not in {"read", "kept", *CHANGES}
    ]


def _batches(plan: Mapping[str, Any]) -> str:
    """Say what a step takes, and how full packed bins are."""
    batch, bins = plan["optimizer_batch"], plan["bins"]
    if bins is None:
        return f"in batches of {batch}"
    full = "" if bins["filled"] is None else f", {bins['filled']:.0%} full"
    return f"in {bins['number']:,} bins of {bins['tokens']:,} tokens{full}, {batch} a batch"


def _task_share(share: Mapping[str, float]) -> str:
    return (
        f"Task share: {share['examples']:.1%} of the examples, {share['tokens']:.1%} of the "
        f"tokens, {share['label_tokens']:.1%} of the label tokens."
    )


def _positions(text: str) -> range:
    # Positions are 64-bit integers.
    found = re.fullmatch(r"([0-9]{1,18}):([0-9]{1,18})", text)
    positions = range(int(found[1]), int(found[2])) if found else range(0)
    if not positions:
        raise argparse.ArgumentTypeError(
            "must be A:B, whole numbers of at most 18 digits with A below B, got "
            f"'{text}'. Write --positions 0:32 for the first 32."
        )
    return positions


def _print_positions(data: "PreparedData", positions: range, form: str) -> None:
    """Print the row at each position, one line each and nothing else."""
    sources = data.plan.sources
    widths = {
        "position": max(len("position"), len(str(positions[-1]))),
        "cycle": max(len("cycle"), len(str(positions[-1] // data.plan.cycle))),
        "source": max(len("source"), *(len(source.name) for source in sources)),
        "row": max(len("row"), *(len(str(source.rows - 1)) for source in sources)),
    }
    line = (
        "{position:>%(position)d}  {cycle:>%(cycle)d}  {source:<%(source)d}  {row:>%(row)d}  {id}"
    )
    line %= widths
    if form == "table":
        print(line.format(**{name: name for name in (*widths, "id")}))
    for slot in _slots(data, positions):
        print(json.dumps(slot, ensure_ascii=False) if form == "jsonl" else line.format(**slot))


def _slots(data: "PreparedData", positions: range) -> Iterator[dict[str, Any]]:
    """Look positions up, block by block."""
    plan = data.plan
    ids = [rows.select_columns(["id"]) for rows in data.rows]
    for start in range(0, len(positions), BLOCK):
        found = plan.at(positions[start : start + BLOCK])
        names = np.empty(len(found.positions), dtype=object)
        for index in np.unique(found.sources).tolist():
            chosen = found.sources == index
            names[chosen] = ids[index][found.rows[chosen].tolist()]["id"]
        for (position, source, row), name in zip(found, names, strict=True):
            yield {
                "position": position,
                "source": plan.sources[source].name,
                "row": row,
                "cycle": position // plan.cycle,
                "id": name,
            }


def _show(data: "PreparedData", count: int) -> None:
    style = COLOURS if sys.stdout.isatty() else _marks(sys.stdout.encoding)
    legend = "  ".join(f"{before}{kind}{after}" for kind, (before, after) in style.items())
    print(f"\n{legend}")
    for position, source, row in data.plan.at(np.array(examples_to_show(data.plan, count))):
        name = data.plan.sources[source].name
        tokens = data.rows[source][row]
        supervised = sum(tokens["supervised"])
        print(
            f"\nposition {position}: {name}, {tokens['id']}, {len(tokens['input_ids'])} tokens, "
            f"{supervised} supervised"
        )
        print(
            _mark(
                data.encoder.tokenizer,
                tokens,
                _anchor_texts(data.settings, name, tokens["id"]),
                style,
            )
        )


def examples_to_show(plan: Plan, count: int) -> list[int]:
    """Choose positions of a plan: the first one of each source, then the first of all others."""
    firsts: dict[int, int] = {}
    for start in range(0, plan.cycle, BLOCK):
        if len(firsts) == len(plan.sources):
            break
        found = plan.at(range(start, min(start + BLOCK, plan.cycle)))
        for source, place in zip(*np.unique(found.sources, return_index=True), strict=True):
            firsts.setdefault(int(source), int(found.positions[place]))
    chosen = [firsts[source] for source in sorted(firsts)][:count]
    others = [position for position in range(count + len(chosen)) if position not in chosen]
    return [*chosen, *others[: count - len(chosen)]]


def _marks(encoding: str) -> Mapping[str, tuple[str, str]]:
    """Return marks that the encoding of the output has."""
    try:
        "".join(sum(MARKS.values(), ())).encode(encoding)
    except UnicodeEncodeError:
        return {
            kind: (before.replace("⟦", "[["), after.replace("⟧", "]]"))
            for kind, (before, after) in MARKS.items()
        }
    return MARKS


def _anchor_texts(settings: DataSettings, source: str, row: str) -> list[str]:
    """Return the texts to mark: those of the anchor of a row."""
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
            # After the anchor, switch back to the colour of the text around it.
            piece = piece.replace(
                anchor, f"{start}{anchor}{end}{before if style is COLOURS else ''}"
            )
        text += f"{before}{piece}{after}"
    return text
