"""What a run will take: seconds, memory and bytes on disk, from speeds that `measure` has measured.

`plan --measure` prints, below the plan:

    Measured on Intel(R) Xeon(R) Processor, AVX512, 1 thread, 32-true, 16 rows in a micro-batch:
    training   2.5 min   2,665 tokens/s: 250 steps of 1,615 tokens
    scoring    1.1 min   before 0.3, dev 5 x 0.1, after 0.2, anchor off 0.1
    memory    0.84 GiB   at the longest batch, 16 rows of 107 tokens (0.57 before it); ...
    disk        6.4 MB   checkpoints 4.8, adapter 0.9, predictions 0.8

Not counted are loading the model, preparing the data, logs and W&B.
"""

import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tell_lightning.callbacks.settings import SWAPPED, most_loss_rows, most_rows
from tell_lightning.commands.check import Config
from tell_lightning.errors import TellError

if TYPE_CHECKING:
    from tell_lightning.data.prepared import PreparedData


CONFIG, RESULT = "config.pickle", "measured.json"
"""What the process that measures reads and writes, in a folder of its parent's."""


class MeasureError(TellError):
    """A run that cannot be measured."""


def measured(config: Config, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Measure in a process of its own, whose peak memory is that of a run.

    Args:
        config: The configuration of the run.
        environment: Variables of the process, on top of the present ones.

    Raises:
        MeasureError: The process was ended by the system.
        SystemExit: It has said itself what is wrong.
    """
    with tempfile.TemporaryDirectory(prefix="tell-measure-") as folder:
        place = hand_over(config, Path(folder))
        command = [sys.executable, "-m", "tell_lightning.commands.measure", str(place)]
        variables = {**os.environ, **(environment or {})}
        code = subprocess.run(
            command, stdout=subprocess.DEVNULL, check=False, env=variables
        ).returncode
        if code == -signal.SIGKILL:
            raise MeasureError(
                "--measure: must find memory for a forward and backward pass, got a process that "
                "the system has killed, as it does where memory runs out. Lower data.micro_batch "
                "or data.max_tokens."
            )
        if code:
            sys.exit(code)
        found: dict[str, Any] = json.loads((place / RESULT).read_text(encoding="utf-8"))
        return found


def hand_over(config: Config, folder: Path) -> Path:
    """Write a configuration for the process that measures, and return the folder."""
    (folder / CONFIG).write_bytes(pickle.dumps(config))
    return folder


def price(rates: Mapping[str, Any], data: "PreparedData", config: Config) -> dict[str, Any]:
    """Compute what a run takes, besides loading the model.

    Args:
        rates: What `measure` has returned.
        data: The data of the run, opened.
        config: Its configuration.

    Returns:
        `rates`, and the seconds, tokens and bytes of training, scoring and disk.
    """
    steps = data.steps(config.trainer["max_steps"])
    counts = data.describe(steps)["realised"]
    tokens = sum(source["tokens"] for source in counts["sources"].values())
    if not counts["complete"]:
        positions = data.units.positions(steps * config.data.optimizer_batch)
        tokens = round(tokens * positions / counts["positions"])
    scorings = _Scorings(rates, data, config, steps)
    seconds = scorings.seconds()
    disk = {
        "checkpoints": rates["bytes"]["checkpoint"] * (2 if scorings.has_dev else 1),
        "adapter": rates["bytes"]["adapter"],
        "predictions": round(scorings.rows() * rates["bytes"]["prediction"]),
    }
    training = {
        "steps": steps,
        "tokens": tokens,
        "seconds": tokens / rates["tokens_per_second"] + rates["compiling_seconds"],
    }
    return {
        **rates,
        "training": training,
        "scoring": {"seconds": sum(seconds.values()), "parts": seconds, "dev": scorings.dev},
        "disk": {"bytes": sum(disk.values()), "parts": disk},
    }


class _Scorings:
    """The scorings of a run and the rows of each."""

    def __init__(
        self, rates: Mapping[str, Any], data: "PreparedData", config: Config, steps: int
    ) -> None:
        self.rates, self.data, self.eval = rates, data, config.eval
        self.has_test = config.eval.test and bool(data.evaluation["test"])
        self.has_dev = bool(data.evaluation["dev"])
        every = config.eval.every_steps or max(1, steps // 5)
        self.dev = -(-steps // every) if self.has_dev else 0
        self.anchored = [
            name
            for name in data.evaluation["test"]
            if data.settings.tasks[name].anchor.text and config.eval.anchor_check
        ]

    def answers(self, split: str) -> dict[str, int]:
        """Return the number of rows of each task that are answered."""
        most = self._most(split)
        rows = self.data.evaluation[_rows_of(split)]
        return {name: len(of) if most is None else min(most, len(of)) for name, of in rows.items()}

    def of_split(self, split: str, tasks: Sequence[str] | None = None) -> float:
        """Return the seconds of one scoring: answers and losses, of all tasks or of some."""
        from tell_lightning.data.prepared import first_of_each

        rows = self.answers(split)
        limits = (self.eval.dev_rows, self.eval.test_rows, self.eval.loss_rows)
        most = most_loss_rows(split, *limits)
        scored = first_of_each(self.data.loss_rows[_rows_of(split)], most)
        names = rows if tasks is None else tasks
        seconds: float = sum(rows[name] * self.rates["seconds_per_row"][name] for name in names)
        tokens = sum(len(row.input_ids) for name, row in scored if tasks is None or name in tasks)
        seconds += tokens * self.rates["seconds_per_loss_token"]
        return seconds / int(self.rates["devices"])

    def seconds(self) -> dict[str, float]:
        """Return the seconds of the scorings, by when they happen."""
        dev = self.of_split("dev") if self.has_dev else 0.0
        test = self.of_split("test") if self.has_test else 0.0
        chats = (1 + self.eval.before if self.has_test else self.dev + self.eval.before) or 1
        swapped = (
            self.of_split(SWAPPED[0], self.anchored) if self.has_test and self.anchored else 0.0
        )
        parts = {
            "before": (dev + test) if self.eval.before else 0.0,
            "dev": self.dev * dev,
            "after": test,
            "anchor off": swapped,
            "chat": chats * self.rates["seconds_of_chat"] / self.rates["devices"],
        }
        return {name: value for name, value in parts.items() if value}

    def _most(self, split: str) -> int | None:
        return most_rows(split, self.eval.dev_rows, self.eval.test_rows)

    def rows(self) -> int:
        """Return the number of answers that are written."""
        dev = sum(self.answers("dev").values()) if self.has_dev else 0
        test = self.answers("test") if self.has_test else {}
        swapped = sum(self.answers(SWAPPED[0])[name] for name in self.anchored) if test else 0
        times = 1 + self.eval.before
        return dev * (self.dev + self.eval.before) + sum(test.values()) * times + swapped


def _rows_of(split: str) -> str:
    """Return the split whose rows another one has."""
    return "test" if split in SWAPPED else split


def print_price(found: Mapping[str, Any]) -> None:
    """Print what a run takes, in a few aligned lines."""
    training, scoring, disk = found["training"], found["scoring"], found["disk"]
    memory, rows = found["memory"], found["longest"]["rows"]
    per_step = training["tokens"] / training["steps"]
    unit = "bin" if found["unit"] == "bins" else "row"
    parts = [f"{name} {_minutes(seconds)}" for name, seconds in scoring["parts"].items()]
    if scoring["dev"]:
        each = scoring["parts"]["dev"] / scoring["dev"]
        parts[[*scoring["parts"]].index("dev")] = f"dev {scoring['dev']} x {_minutes(each)}"
    compiling = found["compiling_seconds"]
    once = f", and {_minutes(compiling)} min to compile" if compiling else ""
    lines = [
        (
            "training",
            f"{_minutes(training['seconds'])} min",
            f"{found['tokens_per_second']:,.0f} tokens/s: {training['steps']:,} steps of "
            f"{per_step:,.0f} tokens{once}",
        ),
        ("scoring", f"{_minutes(scoring['seconds'])} min", ", ".join(parts) or "nothing"),
        (
            "memory",
            f"{_gib(memory['training'])} GiB",
            f"at the longest batch, {_counted(rows, unit)} of {found['longest']['tokens']:,} "
            f"tokens ({_gib(memory['before'])} before it); answers {_gib(memory['scoring'])}; "
            f"available {_gib(memory['available'])}",
        ),
        (
            "disk",
            f"{_megabytes(disk['bytes'])} MB",
            ", ".join(f"{name} {_megabytes(size)}" for name, size in disk["parts"].items()),
        ),
    ]
    devices = "" if found["devices"] == 1 else f"one of {found['devices']} devices, "
    print(
        f"\nMeasured on {devices}{found['device']}, {found['precision']}, "
        f"{_counted(found['micro_batch'], unit)} in a micro-batch:"
    )
    wide = max(len(value) for _, value, _ in lines)
    for name, value, more in lines:
        print(f"{name:<9} {value:>{wide}}   {more}")
    print("Loading and set-up come on top. Answers may end sooner once the model is trained.")


def _counted(number: int, unit: str) -> str:
    return f"{number:,} {unit}{'' if number == 1 else 's'}"


def _minutes(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.2f}" if minutes < 0.1 else f"{minutes:,.1f}"


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.1f}"
