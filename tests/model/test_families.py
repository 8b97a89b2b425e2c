"""What holds of a Llama holds of other families, or is refused, or is said to be left out."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from families import FAMILIES, family
from peft import PeftModel
from tiny_tokenizers import character_tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from tell_lightning.data.batches import Item, collate
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.layout import Layout, layout_of
from tell_lightning.generation.prefix import Prefix
from tell_lightning.model.evaluating import evaluating
from tell_lightning.model.isolation import IsolationError, check_isolation
from tell_lightning.model.loss import token_losses

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
    # of PEFT, about the experts that 'all-linear' finds by themselves
    pytest.mark.filterwarnings("ignore:The following (rank|alpha)_pattern keys:RuntimeWarning"),
]
QUICK = {"llama", "mpt", "mamba"}
each = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.long) for name in FAMILIES],
)
SLOWER = {
    "mpt": Layout.PADDED,
    "gpt-neo": Layout.PADDED,
    "recurrent-gemma": Layout.EQUAL,
    "minimax": Layout.EQUAL,
    "rwkv": Layout.ALONE,
    "xlstm": Layout.UNCACHED,
}
"""The families whose answers would change in the fastest layout."""
TOLERANCE = 1e-5


@pytest.fixture
def settings(name: str, tmp_path: Path) -> dict[str, Any]:
    """A base in a folder, and the attention that it supports."""
    model = family(name)
    model.save_pretrained(tmp_path / "base")
    attention = "sdpa" if model._supports_sdpa else "eager"
    return {"base": tmp_path / "base", "attn_implementation": attention}


@pytest.fixture
def module(training: ModuleType, settings: dict[str, Any]) -> Any:
    """A module with adapters that do something."""
    module = training.make_module(training.TellModule, **settings)
    module.configure_model()
    training.warm_up(module)
    return module


def alone(model: Any, item: Item) -> Tensor:
    """The summed loss of an example, as one would write it down in a line."""
    logits = model(input_ids=torch.tensor([list(item.input_ids)]), use_cache=False).logits[0]
    targets = torch.tensor(item.input_ids).where(torch.tensor(item.supervised), -100)
    return functional.cross_entropy(logits[:-1].float(), targets[1:], reduction="sum")


@each
def test_a_step_is_the_one_of_a_plain_loop(
    training: ModuleType, settings: dict[str, Any], module: Any
) -> None:
    run = training.fit(**settings, micro_batch=4, accumulate=2)
    optimizer = module_optimizer(module)
    items = training.items()
    tokens = sum(sum(item.supervised) for item in items)
    (sum(alone(module.model, item) for item in items) / tokens).backward()
    assert training.relative_error(run.gradients[0], training.gradients_of(module)) < 1e-4
    optimizer.step()
    wanted = {n: p.detach() for n, p in module.named_parameters() if p.requires_grad}
    found = {n: p.detach() for n, p in run.module.named_parameters() if p.requires_grad}
    assert training.relative_error(found, wanted) < 1e-3  # AdamW divides by small numbers


def module_optimizer(module: Any) -> torch.optim.Optimizer:
    settings = module.settings.optimizer
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trained, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )


@each
def test_packed_examples_have_the_losses_of_each_alone_or_are_refused(
    training: ModuleType, module: Any
) -> None:
    items = training.items()
    try:
        check_isolation(module.model)
    except IsolationError:
        return
    batch = collate([items[:3], items[3:]], training.NAMES)
    with torch.no_grad():
        losses, examples = token_losses(module.model.eval(), batch)
        wanted = torch.stack([alone(module.model, item) for item in items])
    found = torch.zeros(len(items)).index_add(0, examples, losses)
    assert torch.allclose(found, wanted, rtol=TOLERANCE)


def test_most_families_can_be_packed() -> None:
    """The test above would pass too if all were refused."""
    for name in ("llama", "qwen3", "gemma3", "mistral-window", "gpt2", "olmo2", "mixtral"):
        check_isolation(family(name))


PREFIX = [(7 * n) % 90 + 3 for n in range(24)]
PROMPTS = [[*PREFIX, *tail] for tail in ([5], [9, 11, 30, 44, 5, 60, 61], [8, 8], [70, 3], [4] * 9)]
DECODING = Decoding(stop_ids=(0,), max_new_tokens=8)


@each
def test_answers_are_the_same_alone_in_a_batch_and_with_a_prefix(
    name: str, module: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model: Any = module.model
    prefix = Prefix()
    prefix.add(PROMPTS)
    wanted = [by_hand(model, prompt) for prompt in PROMPTS]
    for shared in (None, prefix):
        found = generate(
            model, character_tokenizer(), PROMPTS, DECODING, budget=Budget(10_000), prefix=shared
        )
        assert [answer.token_ids for answer in found] == wanted
    said = [record for record in caplog.records if record.name.startswith("tell_lightning")]
    assert len(said) == (name in SLOWER)  # once for all calls
    with torch.inference_mode(), evaluating(model):
        assert layout_of(model) == SLOWER.get(name, Layout.PREFIX)


def by_hand(model: Any, prompt: list[int]) -> tuple[int, ...]:
    """The answer, of a pass over everything for each token."""
    ids = list(prompt)
    with torch.no_grad(), evaluating(model):
        while len(ids) < len(prompt) + DECODING.max_new_tokens:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
            if (token := int(logits[0, -1].argmax())) in DECODING.stop_ids:
                break
            ids.append(token)
    return tuple(ids[len(prompt) :])


@each
def test_an_adapter_loads_in_peft_and_computes_the_same(
    settings: dict[str, Any], module: Any, tmp_path: Path
) -> None:
    module.model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    base = AutoModelForCausalLM.from_pretrained(
        settings["base"], attn_implementation=settings["attn_implementation"]
    )
    loaded = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    ids = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        found = loaded.eval()(input_ids=ids, use_cache=False).logits
        wanted = module.model.eval()(input_ids=ids, use_cache=False).logits
        unadapted = loaded.get_base_model()
        with loaded.disable_adapter():
            bare = unadapted(input_ids=ids, use_cache=False).logits
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, bare)
