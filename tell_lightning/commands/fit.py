"""`fit`: train adapters, score them before and after, and write one run folder."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tell_lightning.callbacks.folder import (
    LAST,
    RunFolder,
    begin,
    claim,
    current_neural_scores,
    existing_folder,
    held,
    new_folder,
    read_record,
    write_json,
)
from tell_lightning.commands.arguments import KEYS, CommandParser
from tell_lightning.commands.check import Config, check, check_training
from tell_lightning.commands.config_files import read_config
from tell_lightning.commands.evaluate import check_run_base
from tell_lightning.commands.general import with_written_rows
from tell_lightning.commands.plan import advice_lines, print_plan, say_contradictions
from tell_lightning.commands.preview import print_lines, scoring_lines
from tell_lightning.commands.reference import keys_help
from tell_lightning.commands.room import room_to_score, room_to_train
from tell_lightning.commands.settled import rate_facts, with_rate, with_steps
from tell_lightning.commands.startup import quieten
from tell_lightning.data.base_files import ACCEPT, ACCEPT_HELP
from tell_lightning.data.splits import read_splits
from tell_lightning.files import full_disk
from tell_lightning.settings import ConfigError

DESCRIPTION = """
Train adapters, score them before and after training, and write everything into one new folder.

A resumed run goes on with the configuration of the session that wrote its checkpoint. Typed keys
win over it. With --folder, the same command line begins a run, goes on with it after a stop, and
does nothing once it has ended: a scheduler may start it again and again.
"""
SESSION = ("command", "started", "versions", "git", "machine")
"""What `run.json` says of the present session; on resume it moves to `earlier_sessions`."""

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from tell_lightning.callbacks.run_record import RunRecord
    from tell_lightning.commands.session import Session
    from tell_lightning.model.rate import Rate


def fit(arguments: list[str], *, callbacks: Sequence["Callback"] = ()) -> None:
    """Run the command.

    Args:
        arguments: What follows the command on the command line.
        callbacks: Callbacks besides those of the configuration and of every run.
    """
    started = time.perf_counter()
    parser = CommandParser("fit", DESCRIPTION, keys=KEYS, list_keys=keys_help)
    parser.add_argument("--resume", metavar="RUN", help="the folder of a run to go on with")
    parser.add_argument(
        "--folder",
        metavar="RUN",
        help="the folder of the run: go on if it has begun, else begin it",
    )
    parser.add_argument(ACCEPT, action="store_true", help=ACCEPT_HELP)
    asked, options = parser.parse_with_keys(arguments)
    folder = _run_to_resume(asked.resume, asked.folder)
    if folder:
        # The saved configuration comes first, so typed keys win.
        options = ["-c", str(folder.latest_config), *options]
    config = check(options)
    check_training(config)
    if folder:
        _check_place(folder, config)
    if folder and asked.folder and _has_ended(folder, config):
        print(f"Run: {asked.folder} has ended: nothing is left to do")
        return
    config, written = with_written_rows(config)
    splits = read_splits(config.data)  # before torch is imported: a bad row is refused at once
    checkpoint = _checkpoint(folder) if folder else None

    quieten()
    from tell_lightning.callbacks.loggers import logged
    from tell_lightning.callbacks.run_record import RunRecord
    from tell_lightning.commands.session import open_session
    from tell_lightning.model.rate import rate_of

    rate = rate_of(config.model)
    config = with_rate(config, rate)
    with nullcontext(folder) if folder else _claimed(config, asked.folder) as folder:
        session = open_session(config, folder, splits, training=True, callbacks=callbacks)
        if checkpoint and not asked.accept_base:
            check_run_base(folder, config.model)
        if session.trainer.is_global_zero:
            say_contradictions(splits)
        # Before the base is loaded and anything is written.
        step = _prepare(session, config, folder, checkpoint)
        if config.data.mixture.cycles is None:
            config = with_steps(config, session.trainer.max_steps)
        lines = [*written, *scoring_lines(session.datamodule.prepared, config.eval)]
    with held(folder) if session.trainer.is_global_zero else nullcontext():
        facts = _earlier_facts(folder) if checkpoint else None
        spent = session.throughput.spent
        record = RunRecord(folder, facts, spent=spent, started=started)
        log = logged(session.trainer, folder, config.run, config.values, step=step)
        with log, _recorded(record):
            _fit(session, config, rate, folder, record, checkpoint, lines)


def _check_place(folder: RunFolder, config: Config) -> None:
    """Refuse another name or place for a run that is resumed.

    Raises:
        ConfigError: It has another one.
    """
    saved = read_config(str(folder.latest_config)).get("run", {})
    for key in ("name", "dir"):
        if (wanted := config.values["run"][key]) != saved.get(key, wanted):
            raise ConfigError(
                f"run.{key}: must stay '{saved[key]}' on resume, for the run goes on in its "
                f"folder, got '{wanted}'. Leave it out, or start a new run."
            )


def _run_to_resume(resume: str | None, wanted: str | None) -> RunFolder | None:
    """Return the folder of the run to go on with; None: a new run.

    Args:
        resume: The value of `--resume`.
        wanted: The value of `--folder`. Every rank decides for itself, maybe after rank 0 has
            written to the folder, but always before the first checkpoint, which needs all ranks.

    Raises:
        ConfigError: Both are given.
        RunFolderError: The run to resume does not exist.
    """
    if resume and wanted:
        raise ConfigError(
            f"--folder: must stand without --resume, got both. Leave out --resume {resume}: "
            "--folder goes on with a run that has begun."
        )
    if wanted:
        folder = RunFolder(Path(wanted))
        return folder if (folder.checkpoints / LAST).is_file() else None
    return existing_folder(resume) if resume else None


def _has_ended(folder: RunFolder, config: Config) -> bool:
    """Say whether a run has taken all the steps that are asked for, or stopped by itself."""
    record = read_record(folder)
    has_stop = config.data.mixture.cycles is not None or record.get("ended_by") == "patience"
    all_taken = record.get("steps", 0) >= (config.trainer["max_steps"] or -1)
    return record.get("status") == "completed" and (has_stop or all_taken)


@contextmanager
def _claimed(config: Config, wanted: str | None) -> Iterator[RunFolder]:
    """Make the folder of a new run for this process alone; remove it if the run does not start.

    Args:
        config: Names the folder, unless one is wanted.
        wanted: The value of `--folder`.

    Raises:
        RunFolderError: The folder cannot be made, or holds something else.
    """
    from lightning.pytorch.utilities import rank_zero_only

    folder = RunFolder(Path(wanted)) if wanted else new_folder(config.run.dir, config.run.name)
    parent = folder.path.parent
    made = [] if parent.exists() else [parent]
    first: bool = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if wanted and first:
        begin(folder)
    while not wanted and first and not claim(folder):
        folder = new_folder(config.run.dir, config.run.name)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            for empty in (folder.path, *made):
                empty.rmdir()
        raise


def _earlier_facts(folder: RunFolder) -> dict[str, Any]:
    """Return the record of a resumed run: its sessions so far, without how the last one ended."""
    facts = read_record(folder)
    for ended in ("error", "ended_by"):
        facts.pop(ended, None)
    session = {key: facts.pop(key) for key in SESSION if key in facts}
    earlier = [*facts.get("earlier_sessions", []), session]
    return facts | {"status": "running", "earlier_sessions": earlier}


def _prepare(session: "Session", config: Config, folder: RunFolder, checkpoint: Path | None) -> int:
    """Set up the data, and make every check that needs no weights.

    Returns:
        The optimizer step to go on from.

    Raises:
        TellError: Batches that do not divide, too few rows, a checkpoint that does not fit.
    """
    from tell_lightning.model.base import load_skeleton
    from tell_lightning.model.compiled import check_compiler
    from tell_lightning.model.lora import check_lora

    datamodule, trainer = session.datamodule, session.trainer
    check_lora(load_skeleton(config.model), config.model.lora)
    if config.model.compile:
        check_compiler(trainer.strategy.root_device.type)
    datamodule.trainer = trainer  # as Lightning does when it starts
    datamodule.prepare_data()
    datamodule.setup("fit")
    session.evaluation.every_steps = config.eval.every_steps or max(1, trainer.max_steps // 5)
    return 0 if checkpoint is None else _check_resume(session, folder, checkpoint)


def _check_resume(session: "Session", folder: RunFolder, checkpoint: Path) -> int:
    """Refuse a checkpoint of another data order, or a completed run with nothing left to do.

    Returns:
        The optimizer step that the checkpoint was written after.
    """
    saved = _load(checkpoint)
    step = int(saved["global_step"])
    session.datamodule.load_state_dict(saved[type(session.datamodule).__qualname__])
    done = read_record(folder).get("status") == "completed"
    done = done and step == session.trainer.max_steps
    if done and session.datamodule.prepared.stop is not None:
        raise ConfigError(
            f"--resume: the run must not have ended, got all {step} steps of its "
            f"data.mixture.cycles: {session.datamodule.settings.mixture.cycles:g}. "
            "Start a new run for more."
        )
    if done or step > session.trainer.max_steps:
        raise ConfigError(
            f"--resume: trainer.max_steps must be above the {step} steps that the run has taken, "
            f"got {session.trainer.max_steps}. Raise it: --trainer.max_steps=N."
        )
    return step


def _load(checkpoint: Path) -> dict[str, Any]:
    """Read a checkpoint of ours.

    Raises:
        ConfigError: It is damaged, or something else.
    """
    import pickle

    import torch

    needs = {"state_dict", "global_step", "loops", "window_sums", "TellDataModule"}
    try:
        saved: dict[str, Any] = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--resume: the checkpoint must be whole, got {checkpoint}: {reason}. "
            "Copy it again, or start the run anew."
        ) from error
    if missing := sorted(needs - saved.keys()):
        raise ConfigError(
            f"--resume: the checkpoint must be one that `fit` wrote, got {checkpoint} without "
            f"{', '.join(missing)}. Name the folder of a run."
        )
    return saved


def _fit(
    session: "Session",
    config: Config,
    rate: "Rate",
    folder: RunFolder,
    record: "RunRecord",
    checkpoint: Path | None,
    lines: list[str],
) -> None:
    from lightning.pytorch.utilities import rank_zero_info

    from tell_lightning.callbacks.micro_batch import FoundMicroBatch
    from tell_lightning.callbacks.run_record import scores_json
    from tell_lightning.callbacks.selection import described
    from tell_lightning.export.adapter import save_adapter
    from tell_lightning.model.sharding import gathered_adapters

    trainer, module, datamodule = session.trainer, session.module, session.datamodule
    if trainer.is_global_zero:
        _write_inputs(session, config, rate, folder, record, resuming=checkpoint is not None)
        print_lines(lines)
    if config.data.micro_batch == "auto":
        resuming = checkpoint is not None
        note = partial(_note_micro_batch, config, folder, record, resuming=resuming)
        trainer.callbacks.append(FoundMicroBatch(datamodule, note))  # type: ignore[attr-defined]
    has_test = config.eval.test and bool(datamodule.evaluation["test"])
    has_dev = bool(datamodule.evaluation["dev"])
    if checkpoint is None and config.eval.before:
        with room_to_score(config):
            rank_zero_info("Before training, the base with the same prompts:")
            if has_test:
                trainer.test(module, datamodule=datamodule, verbose=False)
            if has_dev:
                trainer.validate(module, datamodule=datamodule, verbose=False)
        record.write(metrics=scores_json(session.evaluation))
    if module.model is not None:
        rank_zero_info(str(module.parameter_count))
    with room_to_train(config):
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    selected = _select(session, config, has_dev)
    rank_zero_info(f"Adapter: {described(selected)}")
    weights = gathered_adapters(module.model)  # each rank may hold a part
    if trainer.is_global_zero:
        files = record.facts["base"]["sha256"]
        save_adapter(folder.adapter, module, datamodule, weights=weights, base_files=files)
    if has_test:
        with room_to_score(config):
            rank_zero_info("After training:")
            trainer.test(module, datamodule=datamodule, verbose=False)
            if config.eval.anchor_check and datamodule.swap_anchor():
                trainer.test(module, datamodule=datamodule, verbose=False)
    _finish(session, record, folder, selected)


def _write_inputs(
    session: "Session",
    config: Config,
    rate: "Rate",
    folder: RunFolder,
    record: "RunRecord",
    *,
    resuming: bool,
) -> None:
    """Write config.yaml, plan.json and the first run.json; print the plan."""
    from tell_lightning.callbacks.run_record import promise
    from tell_lightning.callbacks.wandb_record import log_plan
    from tell_lightning.data.base_files import base_digests
    from tell_lightning.model.base import base_dtype

    datamodule = session.datamodule
    device_type = session.trainer.strategy.root_device.type
    dtype, precision = base_dtype(config.model, device_type), str(session.trainer.precision)
    folder.path.mkdir(parents=True, exist_ok=True)
    _write_config(config, folder, datamodule.tried, resuming=resuming)
    steps = session.trainer.max_steps
    plan = datamodule.prepared.describe(steps)
    plan["learning_rate"] = rate_facts(_known(rate, folder), config.model, steps)
    write_json(folder.path / "plan.json", plan)
    log_plan(session.trainer, plan, folder.path / "plan.json")
    print(f"Run: {folder.path}")
    if device_type == "cpu" and precision.startswith("bf16"):
        print(f"Computes in bfloat16 (trainer.precision: {precision}, base: {dtype}).")
    print_plan(plan)
    print_lines(advice_lines(plan))
    record.write(
        base={
            "name": config.model.base,
            "revision": config.model.revision,
            "sha256": base_digests(config.model.base, config.model.revision),
            "dtype": dtype,
        },
        precision=precision,
        reproducible=promise(device_type),
        data={"inputs": plan["inputs"], "plan_digest": plan["digest"]},
        mixture=plan["realised"],
        learning_rate=plan["learning_rate"],
    )


def _known(rate: "Rate", folder: RunFolder) -> "Rate":
    """Return a rate with the reason that the first session of a resumed run wrote down for it."""
    known = read_record(folder).get("learning_rate", {})
    return rate._replace(why=known["why"]) if known.get("value") == rate.value else rate


def _write_config(
    config: Config, folder: RunFolder, micro_batch: int | None, *, resuming: bool
) -> None:
    """Write config.yaml, with the micro-batch that `auto` has found."""
    if micro_batch is not None:
        data = {**config.values["data"], "micro_batch": micro_batch}
        config = replace(config, values={**config.values, "data": data})
    path = folder.draft_config if resuming else folder.config
    path.write_text(config.to_yaml(), encoding="utf-8")


def _note_micro_batch(
    config: Config, folder: RunFolder, record: "RunRecord", micro_batch: int, *, resuming: bool
) -> None:
    """Write down which micro-batch `auto` has found, for a resume to use."""
    _write_config(config, folder, micro_batch, resuming=resuming)
    record.write(micro_batch=micro_batch)


def _select(session: "Session", config: Config, has_dev: bool) -> dict[str, Any]:
    """Load the adapter to export, and return which one it is."""
    import torch

    from tell_lightning.callbacks.selection import BestCheckpoint, selected_from

    trainer = session.trainer
    best = next((c for c in trainer.checkpoint_callbacks if isinstance(c, BestCheckpoint)), None)
    if config.eval.select == "best" and has_dev and best is not None and best.best_model_path:
        saved = torch.load(best.best_model_path, map_location="cpu", weights_only=True)
        session.module.load_state_dict(saved["state_dict"])
        step = session.module.trained_steps = int(saved["global_step"])
        assert best.best_model_score is not None
        score = float(best.best_model_score)
        facts = {"by": "best dev score", "step": step, "score": score}
        return facts | selected_from(session.evaluation, step)
    return {"by": "last step", "step": trainer.global_step, "score": None}


def _finish(
    session: "Session", record: "RunRecord", folder: RunFolder, selected: dict[str, Any]
) -> None:
    """Write the final run.json; print the scores, the cost and a next command."""
    from tell_lightning.callbacks.run_record import scores_json
    from tell_lightning.callbacks.throughput import peak_memory_bytes
    from tell_lightning.callbacks.wandb_record import log_results
    from tell_lightning.commands.tables import print_cost, print_next, print_scores

    trainer, throughput = session.trainer, session.throughput
    neural = current_neural_scores(folder, record.facts.get("metrics", {}))  # on resume
    metrics = scores_json(session.evaluation) | ({"neural": neural} if neural else {})
    record.write(
        status="completed",
        finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        ended_by="patience" if _out_of_patience(session) else "steps",
        metrics=metrics,
        selected=selected,
        steps=trainer.global_step,
        devices=trainer.world_size,
        micro_batch=session.datamodule.micro_batch,
        parameters=session.module.parameter_count._asdict(),
        first_step_seconds=throughput.first_step,
        tokens_per_second=round(throughput.tokens_per_second(trainer), 1),
        peak_memory_bytes=peak_memory_bytes(),
    )
    if trainer.is_global_zero:
        log_results(trainer, folder, selected)
        print_scores(metrics)
        print_cost(record.facts)
        print_next(folder.path, next(iter(session.datamodule.settings.tasks), None))


def _out_of_patience(session: "Session") -> bool:
    from tell_lightning.callbacks.selection import Patience

    trainer = session.trainer
    stopped = any(c.stopped for c in trainer.early_stopping_callbacks if isinstance(c, Patience))
    return stopped and trainer.global_step < trainer.max_steps


@contextmanager
def _recorded(record: "RunRecord") -> Iterator[None]:
    """Record in run.json how a run failed or was interrupted."""
    try:
        yield
    except BaseException as error:
        if record.folder.path.is_dir():
            status = "failed" if isinstance(error, Exception) else "interrupted"
            record.write_end(status, _reason(error))
            if (record.folder.checkpoints / LAST).is_file():
                resume = shlex.join(["--resume", str(record.folder.path)])
                print(f"Go on with: python -m tell_lightning fit {resume}")
        raise


def _reason(error: BaseException) -> str:
    from tell_lightning.callbacks.termination import Terminated

    if isinstance(error, Terminated):
        return error.signal
    # Lightning turns Ctrl+C into an exit.
    reason = error.__context__ if isinstance(error, SystemExit) else error
    if full := full_disk(error):
        return full
    return f"{type(reason).__name__}: {reason}"


def _checkpoint(folder: RunFolder) -> Path:
    path = folder.checkpoints / LAST
    if not path.is_file():
        raise ConfigError(
            f"--resume: the run must have a checkpoint, got none at {path}. "
            "Start it anew, with a smaller run.checkpoint_every_steps."
        )
    return path
