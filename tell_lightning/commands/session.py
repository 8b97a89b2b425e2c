"""Make the Trainer, module, data module and callbacks of a run from its configuration."""

import sys
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything

from tell_lightning.callbacks.audit import Audit
from tell_lightning.callbacks.checkpoints import (
    AtomicCheckpoints,
    LastCheckpoint,
)
from tell_lightning.callbacks.evaluation import GenerationEvaluation
from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.progress import Phases, PlainProgress, StepsBar
from tell_lightning.callbacks.resume import Resume
from tell_lightning.callbacks.selection import BestCheckpoint, Patience
from tell_lightning.callbacks.termination import Termination
from tell_lightning.callbacks.throughput import Throughput
from tell_lightning.commands.check import Config
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.splits import Splits
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.model.base import default_precision
from tell_lightning.model.module import TellModule
from tell_lightning.model.sharding import FullySharded
from tell_lightning.settings import ConfigError, explain


@dataclass(frozen=True)
class Session:
    """The Trainer of a run and the parts that its command uses."""

    trainer: Trainer
    module: TellModule
    datamodule: TellDataModule
    evaluation: GenerationEvaluation
    throughput: Throughput


def open_session(
    config: Config,
    folder: RunFolder,
    splits: Splits | None,
    *,
    training: bool,
    adapter: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Session:
    """Make the Trainer of a run and its parts.

    Args:
        config: The checked configuration.
        folder: Where the run goes.
        splits: The records of all files, if they have been read.
        training: Whether checkpoints are kept and numbers logged.
        adapter: An adapter folder to load.
        callbacks: More callbacks; they come after the scoring.
    """
    seed_everything(config.seed)
    tokenizer = load_tokenizer(config.model.base, **config.model.hub_options)
    datamodule = TellDataModule.from_settings(
        config.data, tokenizer=tokenizer, seed=config.seed, splits=splits
    )
    module = TellModule(**vars(config.model), seed=config.seed, adapter=adapter)
    evaluation = GenerationEvaluation(
        dev_rows=config.eval.dev_rows,
        test_rows=config.eval.test_rows,
        loss_rows=config.eval.loss_rows,
        batch_tokens=config.eval.batch_tokens,
        temperature=config.eval.temperature,
        samples=config.eval.samples,
        table_rows=config.eval.table_rows,
        probe=config.eval.probe,
        folder=folder.predictions,
    )
    throughput = Throughput()
    progress = StepsBar if sys.stdout.isatty() else PlainProgress
    used: list[Callback] = [throughput, progress(config.data.tasks), Phases(), evaluation]
    used += callbacks
    if training:
        if config.data.audit:
            used.append(Audit(folder, datamodule))
        termination = Termination()
        used += [Resume(config.eval.patience), termination]
        if any(task.has("dev") for task in config.data.tasks.values()):
            used.append(BestCheckpoint(folder.checkpoints, evaluation))
            if config.eval.patience is not None:
                used.append(Patience(config.eval.patience, evaluation))
        used.append(
            LastCheckpoint(
                folder,
                termination,
                every_steps=config.run.checkpoint_every_steps,
                every_minutes=config.run.checkpoint_every_minutes,
            )
        )
    trainer = make_trainer(config, folder, used, training=training)
    return Session(trainer, module, datamodule, evaluation, throughput)


def make_trainer(
    config: Config, folder: RunFolder, callbacks: list[Callback], *, training: bool, **changes: Any
) -> Trainer:
    """Make the Trainer that a configuration describes.

    Args:
        config: The checked configuration.
        folder: Where the run goes.
        callbacks: Callbacks besides those of the configuration.
        training: Whether checkpoints are kept.
        changes: Options of the Trainer that win over the configuration.

    Raises:
        ConfigError: The machine has not what the options ask for, or they do not fit together.
    """
    asked = _instantiated(config.trainer)
    accelerator = str(asked["accelerator"])
    return _trainer(
        asked
        | {
            "callbacks": [*_listed(asked["callbacks"]), *callbacks],
            "plugins": [*_listed(asked["plugins"]), AtomicCheckpoints()],
            "logger": _listed(asked["logger"]),  # the command adds those of a run
            "enable_checkpointing": training,
            "precision": asked["precision"] or default_precision(config.model, accelerator),
            "default_root_dir": str(folder.path),
            "max_epochs": -1,  # steps are the measure
            "num_sanity_val_steps": 0,  # the base is scored before training instead
            # What FSDP2 gathers in inference mode cannot be trained with afterwards.
            "inference_mode": asked["inference_mode"] and not _is_sharded(asked["strategy"]),
            "enable_progress_bar": sys.stdout.isatty(),
            "enable_model_summary": False,  # one line says what is trained
        }
        | changes
    )


def _trainer(options: Mapping[str, Any]) -> Trainer:
    """Make the Trainer.

    Raises:
        ConfigError: The machine has not what the options ask for, or they do not fit together.
    """
    try:
        trainer = Trainer(**options)
    except (MisconfigurationException, ValueError, TypeError) as error:
        keys = ("accelerator", "devices", "strategy", "precision")
        given = ", ".join(f"{key} {options[key]}" for key in keys)
        raise ConfigError(
            f"trainer: its keys must fit this machine and each other, got {given}: "
            f"{' '.join(str(error).split())} Change one of these keys, or leave it out."
        ) from error
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        # Lightning would save inside the signal handler, and train on until the job is killed.
        environment.auto_requeue = False
    precision = str(options["precision"])
    if precision.startswith("16") and trainer.strategy.root_device.type == "cpu":
        raise ConfigError(
            f"trainer.precision: must be 32-true or bf16-mixed on a CPU, got {precision}. Leave it "
            "out, or use a machine with a GPU."
        )
    return trainer


def _instantiated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of the Trainer against its signature, and create the objects they name.

    Raises:
        ConfigError: A value of another type, or a class path that cannot be imported.
    """
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(
        Trainer, "trainer", instantiate=False, fail_untyped=False, sub_configs=True
    )
    try:
        parsed = parser.parse_object({"trainer": dict(options)})
    except ArgumentError as error:
        raise ConfigError(explain(str(error), set(options), {})) from error
    return dict(parser.instantiate_classes(parsed).trainer)


def _is_sharded(strategy: Any) -> bool:
    return strategy == "fsdp2" or isinstance(strategy, FullySharded)


def _listed(value: Any) -> list[Any]:
    """Return an option that may be one object, a list or nothing as a list."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]
