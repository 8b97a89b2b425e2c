"""What is kept of each trial: plain values, the same in the study and in `trials/NNNN.json`.

number, arm, params, settings      which point of which arm, and its overlay
state, reason, seconds             complete, pruned or failed; why not complete
steps, tokens                      of all folds together
score, loss                        of the answers of all folds, 0 to 1, higher is better;
nats a token
folds                              for each fold its score, loss, and the score of each row
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tell_lightning.experiment.results import as_text
from tell_lightning.files import write_whole

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
COLUMNS = ("number", "arm", "lr", "steps", "task_share", "force_response_prefix", "state")
MORE = ("score", "loss", "seconds", "task_tokens", "general_tokens", "reason")

Record = Mapping[str, Any]


def write_record(folder: Path, record: Record) -> None:
    """Write a trial as `trials/NNNN.json`, completely or not at all."""
    place = folder / "trials"
    place.mkdir(exist_ok=True)
    write_whole(
        place / f"{record['number']:04d}.json", as_text(record).encode("utf-8", "backslashreplace")
    )


def read_records(folder: Path) -> list[Record]:
    """Read the trials of a folder, in the order of their numbers."""
    files = sorted((folder / "trials").glob("[0-9]*.json"))
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def table(records: Iterable[Record]) -> str:
    """Write the trials as CSV, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *MORE])
    for record in sorted(records, key=lambda each: int(each["number"])):
        tokens = record.get("tokens") or {}
        flat = {
            **record.get("params", {}),
            **record,
            "steps": record.get("params", {}).get("steps"),
            "task_tokens": tokens.get("task"),
            "general_tokens": tokens.get("general"),
        }
        writer.writerow([_cell(flat.get(name)) for name in (*COLUMNS, *MORE)])
    return text.getvalue()


def ranked(records: Iterable[Record], arm: str | None = None) -> list[Record]:
    """Sort complete trials, the best first: the highest score, of equal ones the lowest loss.

    Args:
        records: Trials.
        arm: Those of this arm alone; None: all.
    """
    complete = [
        record for record in records if record["state"] == COMPLETE and arm in {None, record["arm"]}
    ]
    return sorted(complete, key=_rank)


def value(score: float, loss: float | None) -> float:
    """Return the number that the sampler maximises: the score; the loss decides between equal ones.

    With few rows many trials have the same score. The loss counts less than any difference between
    two scores of up to 100 rows.

    >>> value(0.5, 1.0) > value(0.5, 2.0), value(0.51, 9.0) > value(0.5, 0.1)
    (True, True)
    """
    penalty = 1.0 if loss is None or not math.isfinite(loss) else loss / (1 + abs(loss))
    return score - LOSS_WEIGHT * penalty


LOSS_WEIGHT = 0.009


def _rank(record: Record) -> tuple[float, float, int]:
    loss = record["loss"]
    return -record["score"], math.inf if loss is None else loss, int(record["number"])


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value).replace("\n", " ")
