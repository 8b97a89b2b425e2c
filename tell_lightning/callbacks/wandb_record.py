"""Send numbers, sample answers, the plan and the adapter of a run to W&B.

A run is one W&B run, online or in the folder's `wandb/`. A resumed run continues it, by the id in
`wandb/id`. The x axis is the number of optimizer steps completed. The summary has the best and the
last value of each score.

An error of W&B never ends a run: it prints one line, and the run folder has all the data anyway. If
the server does not answer, each table and artifact costs twenty seconds, because W&B asks it first.
So after a slow table no table is sent for twenty times as long. At its end, a run waits at most
five minutes (WANDB_FINISH_TIMEOUT) for W&B to send the rest.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info

from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.metrics_log import by_name, read_log
from tell_lightning.callbacks.settings import RunSettings
from tell_lightning.metrics.score_facts import facts_of

STEP = "trainer/global_step"
"""The x axis, named as in Lightning's logger."""
SLOW_SECONDS = 5.0
"""If a table takes longer, the server probably does not answer."""
REST = 20.0
"""Pause after a slow table, as a multiple of the time that it took."""
FINISH_SECONDS = 300.0
"""Longest wait at the end of a run for data that is not sent yet."""
GRACE_SECONDS = 10.0
"""Extra time for W&B to give up; while it sends a file it would go on for hours."""


class WandbRecord(WandbLogger):
    """Lightning's W&B logger, but its errors do not end the run."""

    def __init__(
        self,
        folder: RunFolder,
        run: RunSettings,
        config: Mapping[str, Any],
        trainer: pl.Trainer,
        *,
        step: int,
        offline: bool,
    ) -> None:
        """Start a W&B run, or continue the one of the folder.

        Args:
            folder: The folder of the run.
            run: Name and W&B project of the run.
            config: The complete configuration.
            trainer: Gives the number of optimizer steps completed.
            step: Optimizer step that the run resumes from; until the Trainer starts it says 0.
            offline: Whether to write to the folder only.

        Raises:
            Exception: Any error of W&B when it starts.
        """
        import wandb

        id_file = folder.path / "wandb" / "id"
        self.resumes = id_file.is_file()
        super().__init__(
            project=run.wandb_project,
            name=folder.path.name,
            save_dir=str(folder.path),
            id=id_file.read_text(encoding="utf-8").strip() if self.resumes else None,
            config=dict(config),
            settings=wandb.Settings(
                mode="offline" if offline else "online",  # the logger does not pass on `offline`
                console="off",
                silent=True,
                init_timeout=60,
                finish_timeout=finish_seconds(),
                finish_timeout_raises=True,
            ),
        )
        self._wandb_init.pop("anonymous", None)  # W&B warns of every value
        self._folder = folder
        self._trainer = trainer
        self._first_step = step
        self._offline = offline
        self._defined: set[str] = set()
        self._next_table = 0.0
        self._told: set[str] = set()
        self.closed = False
        id_file.parent.mkdir(parents=True, exist_ok=True)
        id_file.write_text(f"{self.experiment.id}\n", encoding="utf-8")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send numbers at the present step. A NaN is left out."""
        numbers = {name: value for name, value in metrics.items() if not isnan(value)}
        self._attempt("numbers", lambda: self._send(numbers))

    def log_table(
        self,
        key: str,
        columns: list[Any] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Send a table, unless a slow table came shortly before."""
        import wandb

        def send() -> None:
            with self._staged():
                self._send({key: wandb.Table(columns=columns, data=data, dataframe=dataframe)})

        started = time.monotonic()
        if started < self._next_table:
            return
        self._attempt("tables", send)
        now = time.monotonic()
        if now - started > SLOW_SECONDS:
            rest = REST * (now - started)
            self._next_table = now + rest
            slow = f"took {now - started:.0f} s, so none is sent for {rest / 60:.0f} minutes"
            self._tell("slow tables", f"W&B: a table {slow}")

    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: the W&B run has had the complete configuration since its start."""

    def log_plan(self, plan: Mapping[str, Any], path: Path) -> None:
        """Send the plan as part of the configuration, as a table of sources, and as a file."""
        realised = plan["realised"]
        sources = realised["sources"]

        def send() -> None:
            summary = {"plan": {"digest": plan["digest"], **realised}}
            self.experiment.config.update(summary, allow_val_change=True)
            self._save(path)

        self._attempt("the plan", send)
        columns = list(next(iter(sources.values())))
        rows = [[name, *(source[key] for key in columns)] for name, source in sources.items()]
        self.log_table("plan", columns=["source", *columns], data=rows)

    def log_files(
        self, kind: str, files: Mapping[str, Path], *, aliases: list[str], about: Mapping[str, Any]
    ) -> None:
        """Send files as an artifact named after the run and `kind`.

        Args:
            kind: Type of the artifact.
            files: The path of each file by its name in the artifact.
            aliases: Aliases of the artifact, in addition to `latest`.
            about: Metadata.
        """
        import wandb

        def send() -> None:
            name = f"{self._folder.path.name}-{kind}"
            artifact = wandb.Artifact(name, type=kind, metadata=dict(about))
            with self._staged():
                for name, path in files.items():
                    artifact.add_file(
                        str(path),
                        name=name,
                        # Offline a copy is needed: a resumed run replaces its adapter.
                        policy="mutable" if self._offline else "immutable",
                        skip_cache=True,
                    )
                self.experiment.log_artifact(artifact, aliases=aliases)

        self._attempt(f"the {kind} artifact", send)

    def close(self, exit_code: int) -> None:
        """End the W&B run, and wait for the data that is not sent yet.

        Args:
            exit_code: Exit code of the run; 0 is success.
        """
        import wandb

        def send_summary() -> None:
            if self._folder.record.is_file():
                self._save(self._folder.record)
            if self.resumes:
                self._restate_summary()

        self._attempt("the summary", send_summary)
        options = "" if self._offline else "--include-online "
        where = self.experiment.settings.sync_dir
        hint = f"send it with `wandb sync {options}{where}`"
        self._attempt("the rest", lambda: self._finish(exit_code), then=hint)
        self.closed = True
        if self._told:  # otherwise W&B tries again when the process ends, and shows a traceback
            with suppress(Exception):
                wandb.teardown(exit_code)

    def _finish(self, exit_code: int) -> None:
        """End the W&B run; stop W&B's own process if it does not end in time."""
        seconds = finish_seconds() + GRACE_SECONDS
        watch = threading.Timer(seconds, _stop_service)
        watch.start()
        try:
            self.experiment.finish(exit_code=exit_code)
        except Exception as error:
            if watch.finished.is_set():
                raise TimeoutError(f"no end in {seconds:.0f} s") from error
            raise
        finally:
            watch.cancel()

    def _send(self, values: Mapping[str, Any]) -> None:
        for name in values:
            if name not in self._defined and (summary := summary_of(name)):
                self.experiment.define_metric(name, step_metric=STEP, summary=summary)
            self._defined.add(name)
        step = max(self._trainer.global_step, self._first_step)
        self.experiment.log({**values, STEP: step})

    def _save(self, path: Path) -> None:
        """Add a copy to the files of the W&B run; W&B itself would make a link and warn of it."""
        copy = Path(self.experiment.dir) / path.name
        shutil.copyfile(path, copy)
        self.experiment.save(str(copy), base_path=str(copy.parent), policy="now")

    def _restate_summary(self) -> None:
        """Summarise all sessions; W&B forgets those before the last one (wandb issue 9684)."""
        for name, points in by_name(read_log(self._folder.path / "metrics.csv")).items():
            if summary := summary_of(name):
                values = [value for _, value in points]
                words = summary.split(",")
                self.experiment.summary[name] = {word: SUMMARIES[word](values) for word in words}

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Let W&B keep unsent files in the run folder instead of the user's home."""
        before = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = before or str(self._folder.path / "wandb")
        try:
            yield
        finally:
            if before is None:
                del os.environ["WANDB_DATA_DIR"]

    def _attempt(
        self, what: str, action: Callable[[], None], then: str = "the run goes on"
    ) -> None:
        """Call `action`; if it fails, print one line for each kind of data (`what`)."""
        if self.closed:
            return
        try:
            action()
        except Exception as error:  # no error of W&B, its server or the disk may end a run
            self._tell(what, f"W&B: {what} not sent ({reason(error)}); {then}")

    def _tell(self, what: str, line: str) -> None:
        if what not in self._told:
            rank_zero_info(line)
        self._told.add(what)


def open_wandb(
    folder: RunFolder,
    run: RunSettings,
    config: Mapping[str, Any],
    trainer: pl.Trainer,
    *,
    step: int,
) -> WandbRecord | None:
    """Start W&B in the mode of WANDB_MODE. By default it is online if there is an API key.

    The arguments are those of `WandbRecord`.

    Returns:
        The logger; None if W&B is disabled or cannot start even offline.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        offline = mode in {"offline", "dryrun"} or not has_key()
        try:
            logger = WandbRecord(folder, run, config, trainer, step=step, offline=offline)
        except Exception as error:
            if offline:
                raise
            rank_zero_info(f"W&B: not reached ({reason(error)}); this run is logged offline")
            offline = True
            logger = WandbRecord(folder, run, config, trainer, step=step, offline=True)
    except Exception as error:  # as above
        rank_zero_info(f"W&B: does not start ({reason(error)}); metrics.csv holds everything")
        return None
    if offline:
        rank_zero_info(f"W&B: offline; send it with `wandb sync {folder.path}/wandb/offline-run-*`")
    else:
        rank_zero_info(f"W&B: {logger.experiment.url}")
    return logger


def log_plan(trainer: pl.Trainer, plan: Mapping[str, Any], path: Path) -> None:
    """Send the plan to W&B if the run uses it.

    Args:
        trainer: The Trainer with its loggers.
        plan: The content of `plan.json`.
        path: The path of `plan.json`.
    """
    for logger in _records(trainer):
        logger.log_plan(plan, path)


def log_results(trainer: pl.Trainer, folder: RunFolder, selected: Mapping[str, Any]) -> None:
    """Send adapter and test predictions to W&B as artifacts if the run uses it.

    Args:
        trainer: The Trainer with its loggers.
        folder: The finished run.
        selected: The adapter that was kept: its `step`, its `score`, and the criterion `by`.
    """
    alias = "best" if selected["score"] is not None else "last"
    adapter = {path.name: path for path in sorted(folder.adapter.glob("*"))}
    answers = {path.name: path for path in sorted(folder.predictions.glob("test*.jsonl"))}
    for logger in _records(trainer):
        for kind, files in (("model", adapter), ("predictions", answers)):
            if files:
                aliases = [alias, f"step-{selected['step']}"]
                logger.log_files(kind, files, aliases=aliases, about=selected)


SUMMARIES: dict[str, Callable[[Sequence[float]], float]] = {
    "min": min,
    "max": max,
    "first": lambda values: values[0],
    "last": lambda values: values[-1],
}
"""The summaries that W&B knows, computed from all values."""


def summary_of(key: str) -> str | None:
    """Return the summary of a number that W&B shows beside the run.

    Returns:
        For dev scores and losses the best and the last value; for test scores the values before and
        after training, since nothing is chosen by them. Otherwise None, and W&B shows the last
        value; so for a user's own score, of which we do not know whether higher is better.

    >>> summary_of("val/translate/bleu"), summary_of("val/loss/translate"), summary_of("train/lr")
    ('max,last', 'min,last', None)
    """
    stage, _, name = key.partition("/")
    *_, score = name.split("/")
    if stage.startswith("test") and score != "samples":
        return "first,last"
    if name == "loss" or name.startswith("loss/"):
        return "min,last"
    if stage != "val":
        return None
    better = "higher" if name == "score" else facts_of(score).better
    return {"higher": "max,last", "lower": "min,last", "neither": None}[better]


def reason(error: Exception) -> str:
    """Return a short text of an error of W&B."""
    if hasattr(error, "errors"):  # Pydantic's, about a setting from a WANDB_... variable
        first = error.errors()[0]
        return f"WANDB_{'_'.join(map(str, first['loc']))}".upper() + f": {first['msg']}"
    lines = str(error).strip().splitlines()
    return f"{lines[0] if lines else type(error).__name__:.120}"


def _records(trainer: pl.Trainer) -> list[WandbRecord]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbRecord)]


def has_key() -> bool:
    """Say whether W&B has an API key."""
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception:  # any problem with the key means that the run is logged offline
        return False


def finish_seconds() -> float:
    """Return the longest wait for data that is not sent yet."""
    return float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_SECONDS))


def _stop_service() -> None:
    """Kill W&B's own process; calls that wait for it then fail at once."""
    import wandb

    service: Any = wandb.setup()
    with suppress(AttributeError):  # another process started it, or nobody
        service._connection._proc._process.kill()
