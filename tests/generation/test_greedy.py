import logging

import pytest
import torch
from transformers import GenerationConfig

from tell_lightning.errors import TellError
from tell_lightning.generation.evaluating import evaluating
from tell_lightning.generation.greedy import Generated, _batches, generate

TEXTS = ["a", "Hello, world", "one two three four five", "zz top", "??", "x" * 30, "y=2x+1", "Q:"]
LIMITS = {"stop_ids": [0], "max_new_tokens": 12}


@pytest.fixture
def prompts(tokenizer):
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
    assert [len(row) for row in ids] == [len(text) for text in TEXTS]
    return ids


def by_hand(model, prompt, stop_ids, max_new_tokens):
    """Greedy search from its definition: no cache, no padding, no generate."""
    ids = list(prompt)
    model.eval()
    with torch.no_grad():
        for _ in range(max_new_tokens):
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
            if token in stop_ids:
                break
            ids.append(token)
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("name", ["llama", "gpt2", "adapted"])
def test_a_batch_gives_what_single_prompts_and_plain_search_give(name, request, tokenizer, prompts):
    model = request.getfixturevalue(name)
    together = generate(model, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    alone = [generate(model, tokenizer, [p], **LIMITS, batch_tokens=1)[0] for p in prompts]
    assert together == alone
    assert [g.token_ids for g in together] == [by_hand(model, p, {0}, 12) for p in prompts]
    assert len({g.text for g in together}) >= len(TEXTS) - 1
    assert all(g.stopped == (len(g.token_ids) < 12) for g in together)
    assert all(len(g.text) == len(g.token_ids) for g in together)


@pytest.mark.parametrize("batch_tokens", [1, 60, 100, 10_000])
def test_answers_do_not_depend_on_the_token_budget(llama, tokenizer, prompts, batch_tokens):
    expected = [by_hand(llama, prompt, {0}, 12) for prompt in prompts]
    answers = generate(llama, tokenizer, prompts, **LIMITS, batch_tokens=batch_tokens)
    assert [answer.token_ids for answer in answers] == expected


def test_right_padding_or_lost_positions_would_change_the_answers(gpt2, tokenizer, prompts):
    good = [g.token_ids for g in generate(gpt2, tokenizer, prompts, **LIMITS, batch_tokens=10_000)]
    width = max(map(len, prompts))
    gap = [[0] * (width - len(prompt)) for prompt in prompts]
    config = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=[0], pad_token_id=0)

    def answers(rows, mask, **inputs):
        output = gpt2.eval().generate(
            torch.tensor(rows),
            attention_mask=torch.tensor(mask),
            generation_config=config,
            **inputs,
        )
        rows = output[:, width:].tolist()
        return [tuple(row[: row.index(0)] if 0 in row else row) for row in rows]

    left = [g + p for g, p in zip(gap, prompts, strict=True)]
    left_mask = [g + [1] * len(p) for g, p in zip(gap, prompts, strict=True)]
    right = [p + g for g, p in zip(gap, prompts, strict=True)]
    right_mask = [[1] * len(p) + g for g, p in zip(gap, prompts, strict=True)]
    counted_from_padding = torch.arange(width).expand(len(prompts), -1)
    assert answers(left, left_mask) == good
    assert answers(right, right_mask) != good
    assert answers(left, left_mask, position_ids=counted_from_padding) != good


def test_an_answer_ends_before_the_first_stop_token(llama, tokenizer, prompts):
    free = generate(llama, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    stop = free[1].token_ids[5]
    answers = generate(
        llama, tokenizer, prompts, stop_ids=[0, stop], max_new_tokens=12, batch_tokens=10_000
    )
    assert answers[1].stopped
    assert not all(answer.stopped for answer in answers)
    for answer, whole in zip(answers, free, strict=True):
        end = whole.token_ids.index(stop) if stop in whole.token_ids else None
        text = tokenizer.decode(list(whole.token_ids[:end]))
        stopped = whole.stopped or end is not None
        assert answer == Generated(text, whole.token_ids[:end], stopped)


def test_a_prompt_may_hold_and_end_with_stop_tokens(llama, tokenizer, prompts):
    ended = [[*prompt, 0] for prompt in prompts] + [[0], [0, 5, 0]]
    answers = generate(llama, tokenizer, ended, **LIMITS, batch_tokens=10_000)
    assert [a.token_ids for a in answers] == [by_hand(llama, prompt, {0}, 12) for prompt in ended]


def test_special_tokens_are_kept_as_ids_and_skipped_in_text(llama, tokenizer, prompts):
    free = generate(llama, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    assert 95 not in {token for answer in free for token in answer.token_ids}
    with torch.no_grad():
        llama.lm_head.weight[95] = -llama.lm_head.weight[95]
        llama.lm_head.weight[0] = 50 * llama.lm_head.weight[free[0].token_ids[0]]
    answer = generate(
        llama, tokenizer, prompts[:1], stop_ids=[95], max_new_tokens=3, batch_tokens=1
    )[0]
    assert answer.token_ids[0] == 0
    assert len(answer.text) == sum(token != 0 for token in answer.token_ids) < 3


def test_settings_of_a_hub_model_are_set_aside_without_warnings(adapted, tokenizer, prompts):
    expected = generate(adapted, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    hub = GenerationConfig(
        do_sample=True,
        temperature=0.6,
        top_p=0.9,
        repetition_penalty=5.0,
        max_length=7,
        min_new_tokens=5,
        suppress_tokens=list(expected[0].token_ids),
    )
    adapted.generation_config = adapted.base_model.model.generation_config = hub
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("transformers").addHandler(handler)
    answers = generate(adapted, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    logging.getLogger("transformers").removeHandler(handler)
    assert answers == expected
    assert [record.getMessage() for record in records] == []
    assert adapted.generation_config is hub
    assert adapted.base_model.model.generation_config is hub


def test_every_module_gets_its_own_mode_back(adapted, tokenizer, prompts):
    adapted.train()
    adapted.base_model.model.model.layers[1].eval()
    before = [module.training for module in adapted.modules()]
    assert {True, False} == set(before)
    generate(adapted, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    assert [module.training for module in adapted.modules()] == before

    def fail_in_eval_mode():
        with evaluating(adapted):
            assert not any(module.training for module in adapted.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_eval_mode()
    assert [module.training for module in adapted.modules()] == before


def test_checkpointing_changes_nothing_and_training_goes_on(adapted, tokenizer, prompts):
    expected = generate(adapted, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    adapted.train()
    adapted.activation_checkpointing_enable()
    adapted.enable_input_require_grads()
    assert generate(adapted, tokenizer, prompts, **LIMITS, batch_tokens=10_000) == expected
    ids = torch.tensor([prompts[1]])
    adapted(ids, labels=ids, use_cache=False).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


def test_the_tokenizer_stays_as_it_is(llama, tokenizer, prompts):
    before = (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.init_kwargs.copy())
    generate(llama, tokenizer, prompts, **LIMITS, batch_tokens=10_000)
    assert (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.init_kwargs) == before


def test_batches_are_sorted_complete_and_within_the_budget():
    lengths = [5, 1, 30, 7, 7, 100, 2]
    batches = _batches(lengths, max_new_tokens=10, batch_tokens=60)
    assert batches == [[5], [2], [3, 4, 0], [6, 1]]
    for rows in batches:
        assert len(rows) == 1 or len(rows) * (max(lengths[r] for r in rows) + 10) <= 60


def test_no_prompts_give_no_answers(llama, tokenizer):
    assert generate(llama, tokenizer, [], **LIMITS, batch_tokens=100) == []


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        ([[1], []], {}, r"^prompts: each needs one token or more, got none in prompt 1 "),
        ([[1]], {"stop_ids": []}, r"^stop_ids: generation needs one stop token or more, got none"),
        ([[1]], {"max_new_tokens": 0}, r"^max_new_tokens: must be 1 or more, got 0\."),
    ],
)
def test_impossible_requests_are_refused(llama, tokenizer, prompts, changes, message):
    with pytest.raises(TellError, match=message):
        generate(llama, tokenizer, prompts, **(LIMITS | changes), batch_tokens=100)
