"""The model card of an exported folder: `README.md` with the metadata of the Hugging Face hub.

Everything that it says of the run comes from `run.json` and `anchor.json`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt
from tell_lightning.export.serving import Served, instructions
from tell_lightning.metrics.kinds.registry import display_of

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SWAPPED = {"test_without_anchor": "anchor off", "test_with_anchor": "anchor on"}


@dataclass(frozen=True)
class DataSource:
    """What the configuration says of the training rows of a task or of a general source."""

    hub: str | None = None
    """Data set of the hub."""
    revision: str | None = None
    license: str | None = None


def card(
    served: Served,
    anchors: AnchorFile,
    record: Mapping[str, Any],
    sources: Mapping[str, DataSource],
    repository: str | None = None,
) -> str:
    """Write the card.

    The licence in the metadata of the hub is that of the model, which its owner chooses: it is left
    out. Those of the data stand in the table of the data.

    Args:
        served: The folder, with its place as a reader of the card would write it. Of a base in a
            folder the name alone is written.
        anchors: What `anchor.json` of the run holds.
        record: What `run.json` of the run holds; empty where there is none.
        sources: The tasks and general sources of the configuration, by name.
        repository: Where on the hub the folder is sent, as owner/name.
    """
    if Path(served.base).is_dir():
        served = replace(served, base=Path(served.base).name)
    inputs = (record.get("data") or {}).get("inputs") or sources
    sources = {name: sources.get(name, DataSource()) for name in inputs}
    metadata = _metadata(served, anchors, record, sources)
    parts = [
        f"---\n{metadata}\n---",
        f"# {Path(served.folder).name}",
        _about(served, anchors),
        *_anchors(served, anchors),
        "## How to use it",
        f"```\n{_download(served, repository)}{instructions(served)}\n```",
        *_scores(record),
        *_data(record, sources),
        *_versions(record),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(
    served: Served,
    anchors: AnchorFile,
    record: Mapping[str, Any],
    sources: Mapping[str, DataSource],
) -> str:
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult

    on_hub = _on_hub(anchors.base)
    relation = "adapter" if served.is_alone else "finetune"
    library = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[served.form]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=task,
            dataset_name=task,
            dataset_split=split,
            metric_type=name,
            metric_name=display_of(scores).facts_of(name).label,
            metric_value=round(scores["values"][name], 6),
        )
        for split, task, scores in _after(record)
        for name in display_of(scores).table
        if scores["values"].get(name) is not None
    ]
    data = ModelCardData(
        library_name=library,
        base_model=anchors.base if on_hub else None,
        base_model_relation=relation if on_hub else None,
        pipeline_tag="text-generation",
        tags=["tell", "tell_lightning", *(["lora"] if served.is_alone else [])],
        datasets=list(dict.fromkeys(s.hub for s in sources.values() if s.hub)) or None,
        model_name=Path(served.folder).name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _on_hub(base: str) -> bool:
    return bool(_HUB_ID.fullmatch(base)) and not Path(base).is_dir()


def _after(record: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield split, task and scores after training: of test if there are any, else of dev."""
    split, found = _split(record)
    for task, scores in ((found.get("after") or {}).get("tasks") or {}).items():
        yield split, task, scores


def _split(record: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    metrics = record.get("metrics") or {}
    split = "test" if (metrics.get("test") or {}).get("after") else "dev"
    return split, metrics.get(split) or {}


def _about(served: Served, anchors: AnchorFile) -> str:
    what = "A LoRA adapter for" if served.is_alone else "A model, merged of an adapter and"
    base = Path(anchors.base).name if Path(anchors.base).is_dir() else anchors.base
    revision = f" at revision `{anchors.revision}`" if anchors.revision else ""
    lines = [
        f"{what} `{base}`{revision}, trained by tell_lightning (TELL, arXiv 2404.00914): few "
        "examples of a task, each with one fixed anchor prompt, shuffled into general "
        "instructions. It answers the task where the prompt has its anchor. The chat template in "
        "this folder puts the anchor on by itself, on plain prompts; a prompt without a chat "
        "template (`/v1/completions`) needs it put on by hand."
    ]
    if not _on_hub(anchors.base):
        lines.append(
            f"The base was no model of the hub: put its folder in place of `{served.base}` below."
        )
    if anchors.base_files:
        lines.append("The files of the base, as SHA-256 or commit:")
        lines.append("\n".join(f"- {name}: `{sha}`" for name, sha in anchors.base_files.items()))
    return "\n\n".join(lines)


def _anchors(served: Served, anchors: AnchorFile) -> Iterator[str]:
    yield "## Anchors"
    if anchors.variant != "given":
        yield f"Trained with `data.mixture.anchor: {anchors.variant}` instead of these."
    if len(served.tasks) > 1:
        yield (
            'A request names its task: `"chat_template_kwargs": {"task": NAME}`. '
            "`additional_chat_templates/` has a template for each task alone."
        )
    for name, task in anchors.tasks.items():
        yield from _task(name, task)


def _task(name: str, task: TaskPrompt) -> Iterator[str]:
    anchor = task.anchor
    places = {
        "prefix": "before every prompt",
        "suffix": "behind every prompt",
        "system": "as system text",
    }
    yield f"### {name}"
    yield f"{places[anchor.position].capitalize()}:" if anchor.text else "No anchor."
    if anchor.text:
        yield _fenced(anchor.text)
    if anchor.response_prefix:
        does = "is put behind the prompt" if task.force_response_prefix else "begins every answer"
        yield f"This {does}, and is no part of what is scored:"
        yield _fenced(anchor.response_prefix)
    yield f"Answers have at most {task.max_new_tokens} tokens."


def _fenced(text: str) -> str:
    """Put a text between fences that are longer than those in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _scores(record: Mapping[str, Any]) -> Iterator[str]:
    split, found = _split(record)
    if not (found.get("after") or {}).get("tasks"):
        return
    yield "## Scores"
    yield (
        "*base*: the base with the same prompts; *after*: with this adapter; *anchor off*: after "
        "training, without the anchor; the other lines are baselines, which need no model. "
        "[low, high]: 95 % interval over rows."
    )
    metrics = record["metrics"]
    for task, scores in found["after"]["tasks"].items():
        display = display_of(scores)
        names = [name for name in display.table if name in scores["values"]]
        lines = {name.replace("_", " "): s for name, s in found["floors"].get(task, {}).items()}
        for key, name in {"before": "base", "after": "after"}.items():
            if moment := found.get(key):
                lines[name] = moment["tasks"].get(task, {})
        for key, name in _SWAPPED.items():
            if moment := (metrics.get(key) or {}).get("after"):
                lines[name] = moment["tasks"].get(task, {})
        facts = [display.facts_of(name) for name in names]
        heads = [f"{f.label}, {f.unit}" if f.unit else f.label for f in facts]
        yield f"{task}, {int(scores['values']['rows'])} {split} rows:"
        yield _table(
            ["", *heads],
            [
                [name, *(_cell(line, key, display) for key in names)]
                for name, line in lines.items()
                if line
            ],
        )
    yield from _forgetting(found)


def _cell(line: Mapping[str, Any], name: str, display: Any) -> str:
    if name not in line["values"]:
        return ""
    facts = display.facts_of(name)
    interval = (line.get("intervals") or {}).get(name)
    ends = f" [{', '.join(map(facts.written, interval))}]" if interval else ""
    return f"{facts.written(line['values'][name])}{ends}"


def _forgetting(found: Mapping[str, Any]) -> Iterator[str]:
    """Compare the loss of general rows, and of the base's own chat answers, before and after."""
    before, after = found.get("before") or {}, found["after"]
    losses = after.get("loss_nats_per_token") or {}
    rows = [
        [name, _number((before.get("loss_nats_per_token") or {}).get(name)), _number(loss)]
        for name, loss in losses.items()
        if name not in after["tasks"]
    ]
    probe = after.get("probe") or {}
    if "loss" in probe:
        old = (before.get("probe") or {}).get("loss")
        rows.append(["short chat prompts", _number(old), _number(probe["loss"])])
    if rows:
        yield "## What was forgotten"
        yield (
            "The loss, in nats a token, of rows that were not trained on. Where it rises, "
            "something was forgotten."
        )
        yield _table(["", "base", "after"], rows)


def _number(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""


def _data(record: Mapping[str, Any], sources: Mapping[str, DataSource]) -> Iterator[str]:
    inputs = (record.get("data") or {}).get("inputs") or {}
    seen = (record.get("mixture") or {}).get("sources") or {}
    columns: dict[str, Callable[[str], str]] = {
        "source": lambda name: name,
        "data set": lambda name: _place(sources[name]),
        "licence": lambda name: sources[name].license or "",
        "kind": lambda name: str(seen.get(name, {}).get("kind", "")),
        "rows": lambda name: str(seen.get(name, {}).get("rows", "")),
        "rows seen": lambda name: str(seen.get(name, {}).get("rows_seen", "")),
        "passes": lambda name: f"{seen[name]['passes']:.3g}" if name in seen else "",
        "SHA-256 of its rows": lambda name: _code(inputs.get(name, {}).get("sha256")),
    }
    rows = [[cell(name) for cell in columns.values()] for name in sources]
    filled = [place for place, cells in enumerate(zip(*rows, strict=True)) if any(cells)]
    if len(filled) > 1:
        yield "## Data"
        yield _table(
            [list(columns)[place] for place in filled],
            [[row[place] for place in filled] for row in rows],
        )


def _place(source: DataSource) -> str:
    """Write a data set of the hub as a link, at its revision."""
    if source.hub is None:
        return ""
    link = f"[{source.hub}](https://huggingface.co/datasets/{source.hub})"
    return f"{link} at {_code(source.revision)}" if source.revision else link


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _versions(record: Mapping[str, Any]) -> Iterator[str]:
    if versions := record.get("versions"):
        yield "## Versions"
        commit = (record.get("git") or {}).get("commit")
        named = [f"{name} {version}" for name, version in versions.items()]
        yield ", ".join(named) + (f"; commit `{commit}`" if commit else "") + "."


def _download(served: Served, repository: str | None) -> str:
    """Say how to get the folder that the following lines name."""
    if repository is None:
        return ""
    return f"Get the folder:\nhf download {repository} --local-dir {served.folder}\n\n"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_in_cell, row))} |" for row in lines)


def _in_cell(text: str) -> str:
    """Write a text so that it neither ends its cell nor its row."""
    return " ".join(text.replace("|", "&#124;").split())
