"""The LightningModule: what it logs, what its checkpoints hold, and its dropout."""

from collections.abc import Callable
from math import isnan
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tell_lightning.data.batches import IGNORE
from tell_lightning.model.lora import AdapterError
from tell_lightning.model.module import TellModule
from tell_lightning.model.settings import LoraSettings, OptimizerSettings

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

STILL = OptimizerSettings(lr=0.0)
DROPOUT = LoraSettings(rank=4, alpha=8, dropout=0.5)


@pytest.fixture
def module(training: ModuleType, llama_folder: Path) -> TellModule:
    """A built module whose adapters do something, without dropout."""
    made: TellModule = training.make_module(training.TellModule, llama_folder)
    made.configure_model()
    training.warm_up(made)
    return made


@pytest.fixture
def nats(module: TellModule, training: ModuleType) -> Callable[[list[int]], list[float]]:
    """The losses of all supervised tokens at some positions, one example at a time."""

    def compute(positions: list[int]) -> list[float]:
        losses: list[Tensor] = []
        for position in positions:
            batch = training.batch_of([position])
            with torch.no_grad():
                logits = module.model(batch.input_ids).logits[0, :-1]
            labels = batch.labels[0, 1:]
            kept = functional.cross_entropy(logits, labels, reduction="none")[labels != IGNORE]
            losses += [*kept]
        return [float(loss) for loss in losses]

    return compute


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


# Building


def test_builds_once_and_is_in_training_mode(module: TellModule) -> None:
    model = module.model
    module.configure_model()
    assert module.model is model
    assert all(part.training for part in module.model.modules())


@pytest.mark.parametrize(("asked", "calls"), [(False, 1), (True, 2)])
def test_activation_checkpointing_computes_every_layer_again(
    training: ModuleType, llama_folder: Path, asked: bool, calls: int
) -> None:
    module = training.make_module(training.TellModule, llama_folder, activation_checkpointing=asked)
    module.configure_model()
    counts = [0, 0]

    def count(layer: int) -> Callable[..., None]:
        def add(*_: Any) -> None:
            counts[layer] += 1

        return add

    for index, layer in enumerate(module.model.get_base_model().model.layers):
        # Before the call: computing again stops as soon as it has what the backward pass needs.
        layer.mlp.register_forward_pre_hook(count(index))
    training.token_losses(module.model, training.batch_of([0, 1]))[0].sum().backward()
    assert counts == [calls, calls]


def test_activation_checkpointing_changes_no_gradient(
    training: ModuleType, llama_folder: Path
) -> None:
    plain, checkpointed = (
        training.fit(
            llama_folder,
            micro_batch=2,
            accumulate=4,
            lora=DROPOUT,
            activation_checkpointing=asked,
        ).gradients[0]
        for asked in (False, True)
    )
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=0, atol=0)


# Logging


def test_the_logged_loss_is_the_token_mean_of_the_optimizer_batch(
    training: ModuleType, llama_folder: Path, nats: Callable[[list[int]], list[float]]
) -> None:
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, optimizer=STILL)
    (logged,) = run.logged
    assert logged["train/loss"] == pytest.approx(mean(nats(list(range(8)))), rel=1e-5)
    for source, first in (("task", 0), ("general", 1)):
        losses = nats(list(range(first, 8, 2)))
        assert logged[f"train/loss/{source}"] == pytest.approx(mean(losses), rel=1e-5)
        assert logged[f"train/label_tokens/{source}"] == len(losses)
        assert logged[f"train/examples/{source}"] == 4


def test_a_window_of_several_steps_is_one_mean(
    training: ModuleType, llama_folder: Path, nats: Callable[[list[int]], list[float]]
) -> None:
    """Steps of six examples, so that the windows of two steps differ; an odd step is left."""
    run = training.fit(
        llama_folder,
        micro_batch=2,
        accumulate=3,
        steps=5,
        optimizer=STILL,
        trainer={"log_every_n_steps": 2},
    )
    windows = [nats(list(range(12))), nats(list(range(12, 24)))]
    assert [row["step"] for row in run.logged] == [1, 3]
    assert [row["train/loss"] for row in run.logged] == pytest.approx(
        [mean(window) for window in windows], rel=1e-5
    )
    assert [row["train/examples/task"] for row in run.logged] == [6, 6]


def test_a_source_that_a_window_does_not_see_has_no_loss(
    training: ModuleType, llama_folder: Path
) -> None:
    run = training.fit(llama_folder, micro_batch=1, accumulate=1, steps=3, optimizer=STILL)
    assert isnan(run.logged[0]["train/loss/general"])
    assert run.logged[0]["train/examples/general"] == 0
    assert run.logged[1]["train/loss/general"] == run.logged[1]["train/loss"]
    assert isnan(run.logged[2]["train/loss/general"])  # and not the one before


def test_evaluation_logs_the_token_mean_of_each_source(
    training: ModuleType, llama_folder: Path, nats: Callable[[list[int]], list[float]]
) -> None:
    run = training.fit(
        llama_folder,
        micro_batch=2,
        accumulate=1,
        optimizer=STILL,
        lora=DROPOUT,  # which must be off while validating, and on again afterwards
        trainer={"limit_val_batches": 1.0},
    )
    wanted = {
        "val/loss/task": mean(nats([0, 2, 4])),
        "val/loss/general": mean(nats([1, 3])),
    }
    for key, value in wanted.items():
        assert float(run.trainer.callback_metrics[key]) == pytest.approx(value, rel=1e-5)
    assert all(part.training for part in run.module.model.modules())
    (tested,) = run.trainer.test(run.module, datamodule=run.trainer.datamodule, verbose=False)
    assert tested == {"test/loss/task": pytest.approx(mean(nats([6])), rel=1e-5)}


# Checkpoints


@pytest.fixture
def checkpoint(training: ModuleType, llama_folder: Path, tmp_path: Path) -> Path:
    """After two of four steps, with dropout."""
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, steps=2, lora=DROPOUT)
    run.trainer.save_checkpoint(tmp_path / "two.ckpt")
    return tmp_path / "two.ckpt"


def test_the_state_holds_the_adapters_alone(module: TellModule) -> None:
    state = module.state_dict()
    assert state.keys() == module.adapter_keys()
    assert len(state) == 2 * 7 * 2
    assert all(".lora_" in name for name in state)


def test_a_checkpoint_loads_without_running_code(checkpoint: Path, module: TellModule) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["state_dict"].keys() == module.adapter_keys()
    assert checkpoint.stat().st_size < 400_000
    module.load_state_dict(saved["state_dict"])
    for name, value in module.state_dict().items():
        assert torch.equal(value, saved["state_dict"][name])


# Our loader starts at the position that it is given, which Lightning cannot know.
@pytest.mark.filterwarnings("ignore:.*your dataloader is not resumable.*:UserWarning")
def test_a_resumed_run_ends_where_an_unbroken_one_does(
    training: ModuleType, llama_folder: Path, checkpoint: Path
) -> None:
    whole, resumed = (
        training.fit(
            llama_folder, micro_batch=2, accumulate=4, steps=4, lora=DROPOUT, checkpoint=start
        )
        for start in (None, checkpoint)
    )
    assert resumed.trainer.global_step == 4
    assert resumed.seeds == whole.seeds[8:]
    for name, value in whole.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], value)


@pytest.mark.parametrize(
    ("lora", "count", "name", "shapes"),
    [
        (LoraSettings(rank=8), 28, "mlp.down_proj.lora_A", "[4, 64] instead of [8, 64]"),
        (
            LoraSettings(rank=4, target_modules=["q_proj"]),
            24,
            "mlp.down_proj.lora_A",
            "[4, 64] instead of none",
        ),
    ],
)
def test_a_checkpoint_of_other_adapters_is_refused(
    training: ModuleType,
    llama_folder: Path,
    module: TellModule,
    lora: LoraSettings,
    count: int,
    name: str,
    shapes: str,
) -> None:
    other = training.make_module(training.TellModule, llama_folder, lora=lora)
    other.configure_model()
    with pytest.raises(AdapterError) as raised:
        other.load_state_dict(module.state_dict())
    assert str(raised.value) == (
        "checkpoint: must hold the adapters that model.lora describes, got "
        f"{count} that differ, such as model.base_model.model.model.layers.0.{name}.default.weight "
        f"({shapes}). Use the configuration of the run that wrote it."
    )


def test_a_checkpoint_that_lacks_an_adapter_is_refused(module: TellModule) -> None:
    state = module.state_dict()
    lacking = state.popitem()[0]
    with pytest.raises(AdapterError, match=f"got 1 that differ, such as {lacking} .none instead"):
        module.load_state_dict(state)


# Dropout


def test_dropout_depends_on_the_seed_alone(training: ModuleType, llama_folder: Path) -> None:
    found = []
    for global_seed, dropout_seed in ((1, None), (2, None), (1, 99)):
        torch.manual_seed(global_seed)
        run = training.fit(
            llama_folder, micro_batch=2, accumulate=4, lora=DROPOUT, dropout_seed=dropout_seed
        )
        found.append(run.gradients[0])
    first, again, other = found
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)


def test_every_micro_step_of_every_step_has_its_own_dropout(
    training: ModuleType, llama_folder: Path
) -> None:
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, steps=3, lora=DROPOUT)
    assert len(run.seeds) == len(set(run.seeds)) == 12


def test_every_rank_has_its_own_dropout(
    module: TellModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = set()
    for rank in range(4):
        trainer = SimpleNamespace(global_rank=rank, global_step=7)
        monkeypatch.setattr(TellModule, "trainer", trainer)
        module._micro_step = 0
        module._seed_dropout()
        seeds.add(torch.initial_seed())
    assert len(seeds) == 4
