"""Send a search to W&B: one group, with a run for each trial and one for the verdict.

The runs are written when the search has ended, from its records: trials train in processes without
W&B, and no server can delay one. What has been sent is not sent again when the search goes on. As
everywhere, an error of W&B is one line: the folder has all the data.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tell_lightning.callbacks.wandb_record import finish_seconds, has_key, reason
from tell_lightning.files import as_json, write_whole

SENT = "sent.json"
COLUMNS = ("name", "score", "low", "high", "over_sft", "p", "loss", "minutes", "tokens")


def log_search(
    folder: Path,
    *,
    project: str,
    group: str,
    records: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> list[str]:
    """Send what has not been sent yet.

    Args:
        folder: The folder of the search; W&B's files go to its `wandb/`.
        project: W&B project.
        group: Name of the group.
        records: The trials.
        facts: What `run.json` has under `tune`, with the verdict.

    Returns:
        Lines for the screen.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return []
    os.environ.setdefault("WANDB_SILENT", "true")
    place = folder / "wandb"
    place.mkdir(exist_ok=True)
    sent = _read(place / SENT)
    try:
        offline = mode in {"offline", "dryrun"} or not has_key()
        for record in records:
            name = f"trial-{record['number']:04d}"
            if name not in sent:
                _send(folder, project, group, name, offline, *_of_trial(record))
                sent[name] = True
                write_whole(place / SENT, as_json(sent).encode())
        verdict = facts["verdict"]
        if sent.get("verdict") != verdict["sentence"]:
            _send(folder, project, group, "verdict", offline, *_of_verdict(facts))
            sent["verdict"] = verdict["sentence"]
            write_whole(place / SENT, as_json(sent).encode())
    except Exception as error:  # no error of W&B, its server or the disk may end a search
        return [f"W&B: the search is not sent ({reason(error)}); the folder has everything"]
    if offline:
        return [f"W&B: offline; send it with `wandb sync {place}/offline-run-*`"]
    return [f"W&B: group {group} of project {project}"]


Sent = tuple[str, Mapping[str, Any], Sequence[Mapping[str, Any]], Mapping[str, Any]]
"""Kind of the run, its configuration, the rows of its history, and its summary."""


def _of_trial(record: Mapping[str, Any]) -> Sent:
    config = {"arm": record["arm"], **(record.get("params") or {}), "number": record["number"]}
    history = [
        {"fold": fold["fold"], "fold/score": fold["score"], "fold/loss": fold["loss"]}
        for fold in record.get("folds") or ()
    ]
    names = ("state", "reason", "score", "loss", "seconds", "steps")
    summary = {name: record[name] for name in names if record.get(name) is not None}
    tokens = {f"tokens/{kind}": count for kind, count in (record.get("tokens") or {}).items()}
    return "trial", config, history, summary | tokens


def _of_verdict(facts: Mapping[str, Any]) -> Sent:
    import wandb

    verdict = facts["verdict"]
    rows = []
    for each in (*verdict["arms"], *verdict["rivals"]):
        score, over = each.get("score") or {}, each.get("over_sft") or {}
        flat = {
            **each,
            "score": score.get("value"),
            **_bounds(score),
            "over_sft": over.get("value"),
        }
        rows.append([{**flat, "p": over.get("p")}.get(name) for name in COLUMNS])
    table = wandb.Table(columns=list(COLUMNS), data=rows)
    names = ("sentence", "outcome", "measure", "seeds", "rows", "on")
    summary = {name: verdict[name] for name in names} | {"best_trial": facts["best"]}
    difference = verdict["difference"] or {}
    summary |= {f"difference/{name}": of for name, of in difference.items()}
    config = {name: facts[name] for name in ("folds", "space", "minutes")}
    return "verdict", config, [{"arms": table}], summary


def _bounds(score: Mapping[str, Any]) -> dict[str, Any]:
    return {name: score.get(name) for name in ("low", "high")}


def _send(
    folder: Path,
    project: str,
    group: str,
    name: str,
    offline: bool,
    kind: str,
    config: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
) -> None:
    """Write one run from its beginning to its end."""
    import wandb

    run = wandb.init(
        project=project,
        group=group,
        name=name,
        job_type=kind,
        config=dict(config),
        dir=str(folder),
        reinit="finish_previous",
        settings=wandb.Settings(
            mode="offline" if offline else "online",
            console="off",
            silent=True,
            init_timeout=60,
            finish_timeout=finish_seconds(),
            finish_timeout_raises=True,
        ),
    )
    for row in history:
        run.log(dict(row))
    run.summary.update(dict(summary))
    run.finish(exit_code=1 if summary.get("state") == "failed" else 0)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
