"""Models whose answers depend on the batch, on padding, on the prefix or on the cache."""

import pytest
import torch
from families import family
from messages import says

from tell_lightning.errors import TellError
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Decoding
from tell_lightning.generation.layout import Layout, layout_of
from tell_lightning.generation.prefix import Prefix
from tell_lightning.model.evaluating import evaluating

TEXTS = ["a", "Hello, world", "one two three four five", "zz top", "??", "x" * 30]
LIMITS = Decoding(stop_ids=(0,), max_new_tokens=8)


@pytest.fixture
def prompts(tokenizer):
    return [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]


def test_a_model_that_reads_padding_gets_none(tokenizer, prompts, caplog):
    model = family("minimax")
    prompts = [*prompts, prompts[0][::-1], prompts[3][::-1]]
    alone = [generate(model, tokenizer, [p], LIMITS, budget=Budget(1))[0] for p in prompts]
    widths = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, output: widths.append(inputs[0].shape)
    )
    together = generate(model, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    assert [answer.token_ids for answer in together] == [answer.token_ids for answer in alone]
    read = {tuple(shape) for shape in widths if shape[1] > 1}
    assert any(rows > 1 for rows, _ in read)  # those of one length share a batch
    assert {width for _, width in read} <= set(map(len, prompts))
    (said,) = [r for r in caplog.records if r.name.startswith("tell_lightning")]
    assert said.getMessage().startswith(
        "MiniMaxForCausalLM answers prompts in batches of prompts of the same length: "
    )


@pytest.mark.parametrize(
    ("name", "layout"),
    [("gpt1", Layout.PREFIX), ("xlstm", Layout.UNCACHED), ("rwkv", Layout.ALONE)],
)
def test_models_without_a_cache_or_with_a_broken_one_answer_too(name, layout, tokenizer, prompts):
    model = family(name)
    anchored = [[*range(10, 30), *prompt] for prompt in prompts[:4]]
    prefix = Prefix()
    prefix.add(anchored)
    found = generate(model, tokenizer, anchored, LIMITS, budget=Budget(10_000), prefix=prefix)
    for prompt, answer in zip(anchored, found, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1]
        assert [*answer.token_ids, 0][0] == int(logits.argmax())
    with torch.inference_mode(), evaluating(model):
        assert layout_of(model) == layout


def test_a_model_whose_forward_pass_fails_is_refused_in_one_line(llama, tokenizer, prompts):
    def fail(*_, **__):
        raise KeyError("pixel_values\nmore")

    llama.model.forward = fail
    with pytest.raises(TellError) as raised:
        generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    assert str(raised.value) == says("model.base", got="LlamaForCausalLM", cure="another base")


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2", "adapted"])
def test_rounding_is_not_taken_for_another_answer(name, kind, request, caplog):
    model = request.getfixturevalue(name).to(kind)
    with torch.inference_mode(), evaluating(model):
        assert layout_of(model) == Layout.PREFIX
    assert not caplog.records


def test_a_trial_leaves_the_random_state_as_it_was(llama):
    before = torch.get_rng_state()
    with torch.inference_mode(), evaluating(llama):
        layout_of(llama)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_that_computes_no_numbers_is_not_slowed_down(llama):
    """A diverged one; the loss says so."""
    with torch.no_grad():
        llama.lm_head.weight.fill_(float("nan"))
    with torch.inference_mode(), evaluating(llama):
        assert layout_of(llama) == Layout.PREFIX
