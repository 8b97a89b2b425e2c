"""LightningCLI with our sections: it builds the Trainer, the module and the data module.

Enters: a command line that `check` has accepted. Leaves: the three objects, connected, with the
callbacks and loggers of a run. The classes are fixed; the verbs call the Trainer themselves.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tell_lightning.callbacks.audit import Audit
from tell_lightning.callbacks.checkpoints import LastCheckpoint, WholeFiles, selection_callbacks
from tell_lightning.callbacks.evaluation import Evaluation
from tell_lightning.callbacks.folder import RunFolder
from tell_lightning.callbacks.progress import progress_callback
from tell_lightning.callbacks.resume import Resume
from tell_lightning.callbacks.settings import EvalSettings, RunSettings
from tell_lightning.callbacks.termination import Termination
from tell_lightning.callbacks.throughput import Throughput
from tell_lightning.commands.check import DEFAULT, Config
from tell_lightning.commands.config_files import without_default_tasks
from tell_lightning.data.datamodule import TellDataModule
from tell_lightning.data.splits import Splits
from tell_lightning.model.base import load_tokenizer
from tell_lightning.model.module import TellModule
from tell_lightning.model.sharding import FullySharded


@dataclass(frozen=True)
class Session:
    """Everything that a Trainer verb needs."""

    trainer: Trainer
    module: TellModule
    datamodule: TellDataModule
    tokenizer: Any
    evaluation: Evaluation
    throughput: Throughput


class TellTrainer(Trainer):
    """Lightning's Trainer, which may have no number of steps yet: that of the cycles is set later.

    `check` accepts null for it; Lightning's own parser takes integers alone.
    """

    def __init__(self, *, max_steps: int | None = None, **options: Any) -> None:
        """Take the options of Lightning's Trainer."""
        super().__init__(max_steps=-1 if max_steps is None else max_steps, **options)


class TellCLI(LightningCLI):
    """Reads the command line and instantiates; runs nothing."""

    def __init__(
        self, arguments: list[str], config: Config, folder: RunFolder, *, training: bool
    ) -> None:
        """Parse and instantiate.

        Args:
            arguments: The command line of the verb.
            config: What `check` made of it.
            folder: Where the run goes.
            training: Whether checkpoints are kept and numbers logged.
        """
        self.training = training
        self.checked = config
        self.folder = folder
        self.evaluation = Evaluation(config.eval, folder)
        self.throughput = Throughput()
        super().__init__(
            TellModule,
            TellDataModule,
            trainer_class=TellTrainer,
            save_config_callback=None,  # written by the verb, with resumes kept apart
            parser_kwargs={"default_config_files": [DEFAULT]},
            seed_everything_default=config.seed,
            run=False,
            args=without_default_tasks(arguments),
            auto_configure_optimizers=False,  # the adapters do not exist yet at this point
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the sections that are not Lightning's."""
        parser.add_class_arguments(RunSettings, "run")
        parser.add_class_arguments(EvalSettings, "eval")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with what a run always has, beside what the user asked for."""
        config = self.checked
        asked = self._get(self.config_init, "trainer")
        terminal = sys.stdout.isatty()
        has_dev = any(task.has("dev") for task in config.data.tasks.values())
        callbacks = [
            *_asked(asked["callbacks"]),
            self.throughput,
            progress_callback(terminal=terminal),
            self.evaluation,
        ]
        if self.training:
            if config.data.audit:
                callbacks.append(Audit(self.folder))
            termination = Termination()
            callbacks += [Resume(config.eval.patience), termination]
            if has_dev:
                callbacks += selection_callbacks(self.folder, config.eval)
            every = config.run.checkpoint_every_steps
            callbacks.append(LastCheckpoint(self.folder, every, termination))
        return super().instantiate_trainer(
            callbacks=callbacks,
            plugins=[*_asked(asked["plugins"]), WholeFiles()],
            logger=_asked(asked["logger"]),  # the verb adds those of a run
            enable_checkpointing=self.training,
            precision=asked["precision"] or default_precision(str(asked["accelerator"])),
            default_root_dir=str(self.folder.path),
            max_epochs=-1,  # steps are the measure
            check_val_every_n_epoch=None,
            val_check_interval=1,  # set by Evaluation, once the accumulation is known
            num_sanity_val_steps=0,  # the base is scored before training instead
            # What FSDP2 gathers in inference mode cannot be trained with afterwards.
            inference_mode=asked["inference_mode"] and not _is_sharded(asked["strategy"]),
            use_distributed_sampler=False,  # the stream and the evaluation deal rows out themselves
            enable_progress_bar=terminal,
            enable_model_summary=False,  # one line says what is trained
        )


def default_precision(accelerator: str) -> str:
    """Choose bf16 autocast on a GPU, float32 elsewhere."""
    return "bf16-mixed" if accelerator != "cpu" and torch.cuda.is_available() else "32-true"


def _is_sharded(strategy: Any) -> bool:
    return strategy == "fsdp2" or isinstance(strategy, FullySharded)


def open_session(
    arguments: list[str],
    config: Config,
    folder: RunFolder,
    text: Splits | None,
    *,
    training: bool,
) -> Session:
    """Build and connect everything that a Trainer verb needs.

    Args:
        arguments: The command line of the verb.
        config: What `check` made of it.
        folder: Where the run goes.
        text: The sources, where they have been read.
        training: Whether checkpoints are kept and numbers logged.
    """
    tokenizer = load_tokenizer(config.model)
    cli = TellCLI(arguments, config, folder, training=training)
    cli.datamodule.connect(tokenizer, seed=config.seed, text=text)
    cli.model.connect(seed=config.seed, packed=config.data.packing)
    return Session(
        trainer=cli.trainer,
        module=cli.model,
        datamodule=cli.datamodule,
        tokenizer=tokenizer,
        evaluation=cli.evaluation,
        throughput=cli.throughput,
    )


def _asked(value: Any) -> list[Any]:
    """Return what the configuration gives as one object, a list or nothing."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list) else [value]
