"""Result files: one for each run of an experiment, complete or absent, and their content.

Two of them can be compared line by line: sorted keys, one line for a list of numbers. No torch.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tell_lightning.errors import TellError
from tell_lightning.experiment.cells import Cell
from tell_lightning.experiment.forms import MAPPING, NUMBER, TEXT, Form, is_whole
from tell_lightning.experiment.items import holds_items, items
from tell_lightning.experiment.overlays import value_of
from tell_lightning.experiment.specification import Experiment
from tell_lightning.files import as_json, parse_yaml, write_whole
from tell_lightning.metrics.settings import Scoring

COMPLETED, FAILED = "completed", "failed"

_SCORING = ("kind", "label_key", "labels", "positive")

_LOSS = Form("a number or null", lambda value: value is None or NUMBER.holds(value), "1.5")
_NUMBERS = Form(
    "a mapping of names to numbers or null",
    lambda value: isinstance(value, Mapping) and all(map(_LOSS.holds, value.values())),
    "{}",
)
_TOKENS = Form(
    "a mapping of names to numbers",
    lambda value: isinstance(value, Mapping) and all(map(NUMBER.holds, value.values())),
    "{}",
)
_SEED = Form("a whole number from 0 on", is_whole, "0")
_NEEDED: dict[str, Form] = {
    **dict.fromkeys(("name", "status", "config_digest", "cell.testbed", "cell.arm"), TEXT),
    **dict.fromkeys(("cell.n", "cell.seed"), _SEED),
    "seconds": NUMBER,
}
_PART = {"loss": _LOSS, "items": Form("a statistic and its rows", holds_items, "{}")}
_OPTIONAL = {
    **dict.fromkeys(("dev", "git", "machine", "rules", "settings", "versions"), MAPPING),
    **dict.fromkeys(("passes", "processor_seconds", "steps"), NUMBER),
    "general_loss": _NUMBERS,
    "dev.values": _NUMBERS,
}
"""The values of a result that are read, by dotted key: those of every result, those of test rows,
and those that may be missing or null."""

Result = Mapping[str, Any]
"""What a result file holds."""


class ResultError(TellError):
    """A result file that cannot be used."""


def read_results(folder: Path) -> dict[str, Result]:
    """Read every result of a folder, by name; an absent folder has none.

    Raises:
        ResultError: A file is not a result.
    """
    return {path.stem: read_result(path) for path in sorted(folder.glob("[!.]*.json"))}


def read_result(path: Path) -> Result:
    """Read one result.

    Raises:
        ResultError: It is not a result.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ResultError(
            f"{path}: a result must be JSON, got: {error}. Delete it, and it is run again."
        ) from error
    if wrong := _wrong(facts):
        raise ResultError(f"{path}: {wrong}. Delete it, and it is run again.")
    result: Result = facts
    return result


def _wrong(facts: Any) -> str:
    """Describe the first value of a result that is missing or has another form; empty if none."""
    if not isinstance(facts, dict):
        return f"a result must hold keys, got {facts!r:.60}"
    needed = _NEEDED
    if facts.get("status") == COMPLETED:
        needed = needed | {"tokens": _TOKENS}
        for part in ("test", "test_anchor_off"):
            if facts.get(part):
                needed |= {f"{part}.{key}": form for key, form in _PART.items()}
    given = {key: form for key, form in _OPTIONAL.items() if value_of(facts, key) is not None}
    for key, form in {**needed, **given}.items():
        if not form.holds(value := value_of(facts, key)):
            got = "nothing" if value is None else f"{value!r:.60}"
            return f"a result must hold {key}, {form.says}, got {got}"
    return ""


def write_result(folder: Path, facts: Result) -> Path:
    """Write a result file completely or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{facts['name']}.json"
    write_whole(path, as_text(facts).encode("utf-8", "backslashreplace"))
    return path


def as_text(facts: Mapping[str, Any]) -> str:
    """Write plain values as JSON: sorted keys, a list of numbers on one line.

    >>> print(as_text({"b": [[1, 2], [3, 4]], "a": "x"}), end="")
    {
     "a": "x",
     "b": [
      [1, 2],
      [3, 4]
     ]
    }
    """
    text = as_json(facts, sort_keys=True, indent=1)
    number = r"-?[0-9][0-9.eE+-]*"
    lists = re.compile(rf"\[\s+({number}(?:,\s+{number})*)\s+\]")
    return lists.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def completed(experiment: Experiment, cell: Cell, folder: Path, seconds: float) -> dict[str, Any]:
    """Make the result of a run that ended well.

    Args:
        experiment: The experiment.
        cell: The cell.
        folder: The run's folder: `run.json`, `plan.json`, `config.yaml` and `predictions/`.
        seconds: What it took in all.
    """
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    config = parse_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
    metrics = record["metrics"]
    testbed = experiment.testbeds[cell.testbed]
    said = config["data"]["tasks"][testbed.task].get("scoring") or {}
    given: dict[str, Any] = {key: said[key] for key in _SCORING if key in said}
    scoring = Scoring(**given)

    def scored(split: str, moment: str) -> dict[str, Any] | None:
        found = (metrics.get(split) or {}).get(moment)
        if not found or testbed.task not in found["tasks"]:
            return None
        losses = found["loss_nats_per_token"]
        return {
            "values": found["tasks"][testbed.task]["values"],
            "loss": losses.get(testbed.task),
        }

    moment = "after" if experiment.arms[cell.arm].trains else "before"

    def with_items(split: str) -> dict[str, Any] | None:
        result = scored(split, moment)
        if result is not None:
            (path,) = (folder / "predictions").glob(f"{split}-{testbed.task}-{_file(moment)}.jsonl")
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            result["items"] = items(testbed.score, lines, scoring)
        return result

    swapped = next((name for name in metrics if name.startswith("test_with")), "")
    sources = plan["realised"]["sources"] if experiment.arms[cell.arm].trains else {}
    tasks = [source for source in sources.values() if source["kind"] == "task"]
    return {
        "status": COMPLETED,
        "reason": None,
        "settings": {
            "lr": value_of(config, "model.optimizer.lr"),
            "task_share": value_of(config, "data.mixture.task_share"),
            "max_steps": value_of(config, "trainer.max_steps"),
        },
        "score": testbed.score,
        "test": with_items("test"),
        "test_anchor_off": with_items(swapped) if swapped else None,
        "dev": scored("dev", moment),
        "floors": _floors(metrics, testbed.task, testbed.score),
        "general_loss": {
            when: _general_loss(metrics, when, config["data"]["general"])
            for when in ("before", "after")
        },
        "steps": record.get("steps", 0),
        "shots": (record.get("shots") or {}).get(testbed.task),
        "passes": round(max((source["passes"] for source in tasks), default=0.0), 3),
        "tokens": {
            kind: sum(source["tokens"] for source in sources.values() if source["kind"] == kind)
            for kind in ("task", "general")
        },
        "seconds": round(seconds, 2),
        "tokens_per_second": record.get("tokens_per_second"),
        "machine": record["machine"],
        "versions": record["versions"],
        "base_sha256": ((record.get("base") or {}).get("sha256") or {}).get("model.safetensors"),
        "started": record["started"],
    }


def seconds_of(result: Result) -> float:
    """Return what a run has cost in seconds; other work on the machine does not count.

    Without a GPU this is processor time, where it was kept.
    """
    gpus = (result.get("machine") or {}).get("gpus")
    kept = None if gpus else result.get("processor_seconds")
    return float(result["seconds"] if kept is None else kept)


def points(value: float, score: str) -> float:
    """Return a score as metrics give it in points from 0 to 100.

    >>> points(31.2, "bleu"), points(0.5, "exact_match")
    (31.2, 50.0)
    """
    return value if score == "bleu" else 100 * value


def _file(moment: str) -> str:
    return "base" if moment == "before" else "step-*"


def _floors(metrics: Mapping[str, Any], task: str, score: str) -> dict[str, dict[str, float]]:
    for split in ("test", "dev"):
        floors = (metrics.get(split) or {}).get("floors", {}).get(task)
        if floors:
            return {name: {score: found["values"][score]} for name, found in floors.items()}
    return {}


def _general_loss(metrics: Mapping[str, Any], when: str, general: Iterable[str]) -> float | None:
    """Return the mean loss of the held-out general rows, of the test scoring if there is one."""
    for split in ("test", "dev"):
        found = (metrics.get(split) or {}).get(when)
        if found:
            losses = found["loss_nats_per_token"]
            known = [losses[name] for name in general if name in losses]
            return sum(known) / len(known) if known else None
    return None
