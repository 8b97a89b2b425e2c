"""W&B beside the run folder: its numbers, samples of the answers, the plan, the adapter.

Enters: what the Trainer logs, and files of the run folder. Leaves: one W&B run, online or in the
folder's `wandb/`; a resumed run goes on in it, by the id in `wandb/id`. The x axis is the optimizer
steps completed, and each score stands in the summary with its best and its last value.

Trouble with W&B never ends a run: it costs one line on the screen, and everything is in the run
folder anyhow. A server that does not answer costs twenty seconds with each table and artifact, for
W&B asks it first; so after one that took long no table is sent for twenty times as long. The end of
the run waits for what is not sent yet for five minutes at most (WANDB_FINISH_TIMEOUT).
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
"""The x axis; the name is that of Lightning's logger."""
SLOW_SECONDS = 5.0
"""A table that took longer has met a server that does not answer."""
REST = 20.0
"""How long no table is sent after a slow one, over the time that it took."""
FINISH_SECONDS = 300.0
"""How long the end of a run waits for what is not sent yet."""
GRACE_SECONDS = 10.0
"""How much longer W&B may take to give up; with a file under way it would try for hours."""


class WandbRecord(WandbLogger):
    """Lightning's W&B logger, which ends no run and sends nothing that it cannot."""

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
        """Start the W&B run, or go on with that of the folder.

        Args:
            folder: The run's folder.
            run: Names.
            config: The complete configuration.
            trainer: Knows the optimizer steps completed.
            step: Optimizer step that the run goes on from; the Trainer learns it when it starts.
            offline: Whether to write to the folder alone.

        Raises:
            Exception: Whatever W&B raises when it cannot start.
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
                mode="offline" if offline else "online",  # the logger's `offline` does not reach it
                console="off",
                silent=True,
                init_timeout=60,
                finish_timeout=_finish_seconds(),
                finish_timeout_raises=True,
            ),
        )
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, whatever it is
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
        """Send numbers, at the optimizer steps completed; one that does not exist is left out."""
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
        """Send a table."""
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
        """Do nothing: the W&B run has the whole configuration from its start."""

    def log_plan(self, plan: Mapping[str, Any], path: Path) -> None:
        """Send the plan: into the configuration, as a table of its sources, and as a file."""
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
        """Send files as an artifact.

        Args:
            kind: Its type; with the run's name it makes the name.
            files: Path by name in the artifact.
            aliases: What it is to be found by, beside `latest`.
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
                        # Offline a copy is taken: a run that goes on writes its adapter anew.
                        policy="mutable" if self._offline else "immutable",
                        skip_cache=True,
                    )
                self.experiment.log_artifact(artifact, aliases=aliases)

        self._attempt(f"the {kind} artifact", send)

    def close(self, exit_code: int) -> None:
        """End the W&B run, and wait for what is not sent yet.

        Args:
            exit_code: 0, or how the run failed.
        """
        import wandb

        def sum_up() -> None:
            if self._folder.record.is_file():
                self._save(self._folder.record)
            if self.resumes:
                self._restate_summary()

        self._attempt("the summary", sum_up)
        options = "" if self._offline else "--include-online "
        where = self.experiment.settings.sync_dir
        hint = f"send it with `wandb sync {options}{where}`"
        self._attempt("the rest", lambda: self._finish(exit_code), then=hint)
        self.closed = True
        if self._told:  # else W&B tries again when the process ends, and shows a traceback
            with suppress(Exception):
                wandb.teardown(exit_code)

    def _finish(self, exit_code: int) -> None:
        """End the W&B run, and W&B's own process where it does not give up in time."""
        seconds = _finish_seconds() + GRACE_SECONDS
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
        """Put a copy into the W&B run's files; W&B itself would link to it, and warn of that."""
        copy = Path(self.experiment.dir) / path.name
        shutil.copyfile(path, copy)
        self.experiment.save(str(copy), base_path=str(copy.parent), policy="now")

    def _restate_summary(self) -> None:
        """Give best and last of all sessions; W&B's own forgets those before (wandb issue 9684)."""
        for name, points in by_name(read_log(self._folder.path / "metrics.csv")).items():
            if summary := summary_of(name):
                values = [value for _, value in points]
                whole = {word: SUMMARIES[word](values) for word in summary.split(",")}
                self.experiment.summary[name] = whole

    @contextmanager
    def _staged(self) -> Iterator[None]:
        """Let W&B keep files that are not sent yet in the run folder, not in the user's home."""
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
        """Send something; where it fails, say so, once a kind."""
        if self.closed:
            return
        try:
            action()
        except Exception as error:  # W&B, its process, its server, the disk: none may end a run
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
    """Start W&B as WANDB_MODE says; without it, an API key means online. No key means offline.

    The arguments are those of `WandbRecord`.

    Returns:
        The logger; None where W&B is disabled, or does not even start offline.
    """
    mode = os.environ.get("WANDB_MODE")
    if mode == "disabled":
        return None
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        import wandb

        wandb.setup(settings=wandb.Settings(silent=True))
        offline = mode in {"offline", "dryrun"} or not _has_key()
        try:
            made = WandbRecord(folder, run, config, trainer, step=step, offline=offline)
        except Exception as error:
            if offline:
                raise
            rank_zero_info(f"W&B: not reached ({reason(error)}); this run is logged offline")
            offline = True
            made = WandbRecord(folder, run, config, trainer, step=step, offline=True)
    except Exception as error:  # as above
        rank_zero_info(f"W&B: does not start ({reason(error)}); metrics.csv holds everything")
        return None
    if offline:
        rank_zero_info(f"W&B: offline; send it with `wandb sync {folder.path}/wandb/offline-run-*`")
    else:
        rank_zero_info(f"W&B: {made.experiment.url}")
    return made


def log_plan(trainer: pl.Trainer, plan: Mapping[str, Any], path: Path) -> None:
    """Send the plan to W&B, where the run has it.

    Args:
        trainer: Has the loggers.
        plan: What `plan.json` holds.
        path: That file.
    """
    for logger in _records(trainer):
        logger.log_plan(plan, path)


def log_results(trainer: pl.Trainer, folder: RunFolder, selected: Mapping[str, Any]) -> None:
    """Send adapter and test predictions to W&B as artifacts, where the run has it.

    Args:
        trainer: Has the loggers.
        folder: The finished run.
        selected: Which adapter was kept: its `step`, the `score`, and `by` what.
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
"""What W&B's words for a summary make of all values."""


def summary_of(key: str) -> str | None:
    """Say what of a number's history W&B is to show beside the run.

    Returns:
        The best and the last value of what dev sets and losses say; of test sets, which nothing is
        chosen by, that before and that after training; else None, as for a score of the user's own,
        whose best is not known: W&B shows the last.

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
    """Say in half a line why W&B failed."""
    if hasattr(error, "errors"):  # Pydantic's, of the settings, which WANDB_... variables give
        first = error.errors()[0]
        return f"WANDB_{'_'.join(map(str, first['loc']))}".upper() + f": {first['msg']}"
    lines = str(error).strip().splitlines()
    return f"{lines[0] if lines else type(error).__name__:.120}"


def _records(trainer: pl.Trainer) -> list[WandbRecord]:
    return [logger for logger in trainer.loggers if isinstance(logger, WandbRecord)]


def _has_key() -> bool:
    import wandb

    try:
        return bool(wandb.login(prompt=False, verify=False))
    except Exception:  # whatever is wrong with the key, the run is logged offline
        return False


def _finish_seconds() -> float:
    return float(os.environ.get("WANDB_FINISH_TIMEOUT", FINISH_SECONDS))


def _stop_service() -> None:
    """Kill W&B's own process; whatever waits for it fails at once."""
    import wandb

    service: Any = wandb.setup()
    with suppress(AttributeError):  # it was started by another process, or not at all
        service._connection._proc._process.kill()
