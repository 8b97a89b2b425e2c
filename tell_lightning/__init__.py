"""Token-Efficient Leverage Learning (TELL, arXiv 2404.00914) on PyTorch Lightning.

The parts are ordinary Lightning and work with any Trainer and logger:

    data = TellDataModule(tasks={...}, general={...}, tokenizer="microworld", root="microworld")
    model = TellModule(base="microworld", lora={"rank": 8})
    trainer = pl.Trainer(max_steps=100, callbacks=[GenerationEvaluation(every_steps=50)])
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data)
    save_adapter("adapter", model, data)

`tune("mine.yaml", minutes=30)` searches for the best adapter, as the command does.

Names are imported when they are first used, so that `--help` needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tell_lightning.callbacks.evaluation import GenerationEvaluation as GenerationEvaluation
    from tell_lightning.commands.tuned import Tuned as Tuned
    from tell_lightning.commands.tuned import tune as tune
    from tell_lightning.data.anchors import Anchor as Anchor
    from tell_lightning.data.batches import Batch as Batch
    from tell_lightning.data.batches import Item as Item
    from tell_lightning.data.batches import collate as collate
    from tell_lightning.data.datamodule import TellDataModule as TellDataModule
    from tell_lightning.data.reading import DataLocation as DataLocation
    from tell_lightning.data.records import Fields as Fields
    from tell_lightning.data.settings import General as General
    from tell_lightning.data.settings import Mixture as Mixture
    from tell_lightning.data.settings import Task as Task
    from tell_lightning.errors import TellError as TellError
    from tell_lightning.export.adapter import save_adapter as save_adapter
    from tell_lightning.generation.instructions import generate_general as generate_general
    from tell_lightning.metrics.settings import Baseline as Baseline
    from tell_lightning.metrics.settings import Scoring as Scoring
    from tell_lightning.model.module import TellModule as TellModule
    from tell_lightning.model.settings import LoraSettings as LoraSettings
    from tell_lightning.model.settings import OptimizerSettings as OptimizerSettings

__version__ = "0.1.0"

_MODULES = {
    "Anchor": "data.anchors",
    "Baseline": "metrics.settings",
    "Batch": "data.batches",
    "DataLocation": "data.reading",
    "Fields": "data.records",
    "General": "data.settings",
    "GenerationEvaluation": "callbacks.evaluation",
    "Item": "data.batches",
    "LoraSettings": "model.settings",
    "Mixture": "data.settings",
    "OptimizerSettings": "model.settings",
    "Scoring": "metrics.settings",
    "Task": "data.settings",
    "TellDataModule": "data.datamodule",
    "TellError": "errors",
    "TellModule": "model.module",
    "Tuned": "commands.tuned",
    "collate": "data.batches",
    "generate_general": "generation.instructions",
    "save_adapter": "export.adapter",
    "tune": "commands.tuned",
}
__all__ = [*sorted(_MODULES), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
