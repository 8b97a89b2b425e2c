"""FSDP2 on two processes of the CPU computes, saves and goes on as one process does."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from messages import says
from torch import Tensor
from transformers import PreTrainedModel

from tell_lightning.generation.batched import is_sharded
from tell_lightning.model.lora import add_adapters
from tell_lightning.model.settings import LoraSettings
from tell_lightning.model.sharding import ShardingError, gathered_adapters, shard

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]

TOLERANCE = 1e-5
CLIP = 0.5  # that of sharded.py


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where both write."""
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def one(training: ModuleType, llama_folder: Path, folder: Path) -> Any:
    """Two steps of one process, which leaves `one.ckpt`."""
    run = _one_process(training, llama_folder, steps=2)
    run.trainer.save_checkpoint(folder / "one.ckpt", weights_only=False)
    return run


@pytest.fixture(scope="module")
def two(one: Any, llama_folder: Path, folder: Path) -> dict[str, Any]:
    """What two ranks found, who leave `two.ckpt`."""
    script = Path(__file__).with_name("sharded.py")
    arguments = [str(llama_folder), str(folder / "one.ckpt"), str(folder)]
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found


def _one_process(training: ModuleType, base: Path, **options: Any) -> Any:
    trainer = {"gradient_clip_val": CLIP}
    return training.fit(base, micro_batch=2, accumulate=4, trainer=trainer, **options)


def _largest_difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in theirs)


@pytest.mark.ddp
@pytest.mark.long
def test_two_ranks_have_the_gradients_of_one_process(
    training: ModuleType, one: Any, two: dict[str, Any]
) -> None:
    for ours, theirs in zip(two["gradients"], one.gradients, strict=True):
        assert training.relative_error(ours, theirs) < TOLERANCE


@pytest.mark.ddp
@pytest.mark.long
def test_gradients_are_clipped_by_the_norm_over_all_ranks(two: dict[str, Any]) -> None:
    for row, gradients in zip(two["logged"], two["gradients"], strict=True):
        assert row["train/grad_norm"] > CLIP
        assert float(torch.nn.utils.get_total_norm(gradients.values())) == pytest.approx(CLIP)


@pytest.mark.ddp
@pytest.mark.long
def test_two_ranks_log_what_one_process_logs(one: Any, two: dict[str, Any]) -> None:
    assert two["logged"] == [pytest.approx(row) for row in one.logged]


@pytest.mark.ddp
@pytest.mark.long
def test_every_rank_holds_half_of_the_weights(one: Any, two: dict[str, Any]) -> None:
    assert two["sharded"]
    assert not is_sharded(one.module)
    assert 2 * two["local"] == sum(p.numel() for p in one.module.parameters())


@pytest.mark.ddp
@pytest.mark.long
def test_checkpoints_are_those_of_one_process(one: Any, two: dict[str, Any], folder: Path) -> None:
    ours, theirs = (
        torch.load(folder / f"{name}.ckpt", weights_only=True) for name in ("two", "one")
    )
    assert ours.keys() == theirs.keys()
    assert ours["state_dict"].keys() == one.module.adapter_keys()
    assert _largest_difference(ours["state_dict"], theirs["state_dict"]) < TOLERANCE
    (our_state,), (their_state,) = ours["optimizer_states"], theirs["optimizer_states"]
    assert our_state["param_groups"] == their_state["param_groups"]
    assert our_state["state"].keys() == their_state["state"].keys()
    for number, values in their_state["state"].items():
        assert _largest_difference(our_state["state"][number], values) < TOLERANCE


@pytest.mark.ddp
@pytest.mark.long
def test_either_goes_on_from_the_checkpoint_of_the_other(
    training: ModuleType, llama_folder: Path, two: dict[str, Any], folder: Path
) -> None:
    whole = gathered_adapters(_one_process(training, llama_folder, steps=3).module)
    back = _one_process(training, llama_folder, steps=3, checkpoint=folder / "two.ckpt")
    assert _largest_difference(gathered_adapters(back.module), whole) < TOLERANCE
    assert _largest_difference(two["resumed"], whole) < TOLERANCE


@pytest.mark.ddp
@pytest.mark.long
def test_ranks_answer_as_one_process_does_and_are_cut_again(one: Any, two: dict[str, Any]) -> None:
    model = one.module.model.eval()
    for rank, answer in enumerate(two["answers"]):
        prompt = torch.tensor([[5, 17, 40 + rank]])
        length = 4 + 4 * rank
        ids = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=length,
            min_new_tokens=length,
            do_sample=False,
        )
        assert answer == ids[0].tolist()
    assert two["cut again"]


@pytest.mark.ddp
@pytest.mark.long
def test_adapters_in_float32_share_a_layer_with_a_base_in_bfloat16(
    training: ModuleType, llama_folder: Path, two: dict[str, Any]
) -> None:
    assert two["half types"] == ["torch.bfloat16", "torch.float32"]
    options: dict[str, Any] = {"dtype": "bfloat16", "trainer": {"precision": "bf16-mixed"}}
    run = training.fit(llama_folder, micro_batch=2, accumulate=4, **options)
    for key in ("train/loss", "train/grad_norm"):
        assert two["half"][0][key] == pytest.approx(run.logged[0][key], rel=1e-2)


def test_a_model_without_named_layers_is_refused(
    make_llama: Callable[..., PreTrainedModel],
) -> None:
    base = make_llama()
    base._no_split_modules = set()
    mesh: Any = None
    with pytest.raises(ShardingError) as error:
        shard(add_adapters(base, LoraSettings(rank=2), seed=0), mesh)
    assert str(error.value) == says(
        "trainer.strategy",
        rule=["fsdp2", "_no_split_modules"],
        got="LlamaForCausalLM",
        cure="trainer.strategy: ddp",
    )
