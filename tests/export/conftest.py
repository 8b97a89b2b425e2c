"""The embedded base model with adapters that do something."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.records import Fields
from tell_lightning.data.tokenizer import load_tokenizer
from tell_lightning.export.anchor_file import AnchorFile, TaskPrompt
from tell_lightning.model.base import load_base
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.settings import LoraSettings, ModelSettings


@pytest.fixture(scope="session")
def settings() -> ModelSettings:
    return ModelSettings(base="microworld", lora=LoraSettings(rank=4, alpha=8))


@pytest.fixture(scope="session")
def tokenizer(settings: ModelSettings) -> Any:
    return load_tokenizer(settings.base)


@pytest.fixture
def make_model(settings: ModelSettings) -> Callable[..., Any]:
    def make(*, seed: int = 0, rank: int = 4) -> Any:
        model = add_adapters(load_base(settings), LoraSettings(rank=rank, alpha=8), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def anchors() -> AnchorFile:
    translate = Anchor(text="Þýddu á ensku.", response_prefix="English: ")
    judge = Anchor(text='Say "true" or\nnot.', position="system")
    return AnchorFile(
        base="microworld",
        revision=None,
        variant="given",
        template_digest="0123",
        tasks={
            "translate": TaskPrompt(translate, 96, Fields(prompt="source")),
            "judge": TaskPrompt(judge, 40),
        },
    )
