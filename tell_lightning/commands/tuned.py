"""`tell_lightning.tune`: the command of that name, from Python."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tell_lightning.commands.tune import read_options, run
from tell_lightning.experiment.overlays import merged, value_of
from tell_lightning.microworld.world import WORLDS
from tell_lightning.settings import ConfigError


@dataclass(frozen=True)
class Tuned:
    """What a search has left."""

    folder: Path
    """A run like any other, for `report`, `export` and `predict`, with the trials beside it."""
    best: Mapping[str, Any]
    """The best trial: `arm`, `params`, `score` from 0 to 1, `loss`, and more."""
    verdict: Mapping[str, Any]
    """Tuned TELL against tuned SFT, the base and the few-shot prompt."""

    @property
    def sentence(self) -> str:
        """What to use, and how sure that is."""
        return str(self.verdict["sentence"])

    @property
    def adapter(self) -> Path:
        """The folder of the best adapter, trained on all task rows."""
        return self.folder / "adapter"


def tune(
    config: str | Path | Mapping[str, Any] | Sequence[str | Path],
    *,
    minutes: float | None = None,
    trials: int | None = None,
    folder: str | Path | None = None,
    workers: int | None = None,
    storage: str | None = None,
    wandb: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Tuned:
    """Search for the best adapter within a budget, and say whether TELL has helped.

    The same as the command `tune`, with the same lines on the screen and the same folder; called
    again, it goes on. Trials run in processes of their own: in a script, call it below
    `if __name__ == "__main__":`.

    Args:
        config: A file, several of them, or the configuration itself as a mapping, whose relative
            `data.root` lies in the present folder.
        minutes: The time for all of it; give this or `trials`.
        trials: Number of trials of the search.
        folder: Where everything goes; None: `tune-NAME` in `run.dir`.
        workers: Processes at a time; None: one for each GPU, or one for each core without any.
        storage: The storage of Optuna where several machines search together.
        wandb: Whether every trial and the verdict are sent to W&B at the end, as one group.
        overrides: Values by dotted key, such as `{"model.base": "microworld"}`.

    Raises:
        TellError: A mistake in the configuration, the data or the budget, told in one line.
    """
    given = {
        "--minutes": minutes,
        "--trials": trials,
        "--folder": folder,
        "--workers": workers,
        "--storage": storage,
    }
    words = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    words += ["--wandb"] if wandb else []
    words += [f"--{key}={_written(value)}" for key, value in (overrides or {}).items()]
    with tempfile.TemporaryDirectory(prefix="tell-tune-") as place:
        files = _files(config, Path(place))
        options, keys = _options([*(word for file in files for word in ("-c", file)), *words])
        done = run(options, keys)
    record = json.loads((done / "run.json").read_text(encoding="utf-8"))["tune"]
    trial = (done / "trials" / f"{record['best']:04d}.json").read_text(encoding="utf-8")
    return Tuned(done, json.loads(trial), record["verdict"])


def _options(words: list[str]) -> tuple[Any, list[str]]:
    """Read the words as the command does; what would end a command is an error here.

    Raises:
        ConfigError: The budget is missing or given twice.
    """
    budgets = [word for word in words if word.startswith(("--minutes=", "--trials="))]
    if len(budgets) != 1:
        raise ConfigError(
            f"tune: needs minutes or trials, got {' and '.join(budgets) or 'neither'}. "
            "Give one of the two."
        )
    return read_options(words)


def _files(config: Any, place: Path) -> list[str]:
    """Name the files of a configuration; a mapping is written to a folder."""
    if isinstance(config, str | Path):
        return [str(config)]
    if not isinstance(config, Mapping):
        return [str(file) for file in config]
    values: dict[str, Any] = dict(config)
    root = value_of(values, "data.root")
    if root is not None and root not in WORLDS:  # it would be looked for beside the file
        values = merged(values, {"data": {"root": os.path.abspath(os.path.expanduser(root))}})
    path = place / "config.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return [str(path)]


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
