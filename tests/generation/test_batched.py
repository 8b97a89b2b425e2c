import logging
from dataclasses import replace

import pytest
import torch
from messages import says
from transformers import GenerationConfig

from tell_lightning.errors import TellError
from tell_lightning.generation.batched import Budget, generate
from tell_lightning.generation.decoding import Choices, Decoding
from tell_lightning.generation.layout import layout_of
from tell_lightning.generation.prefix import Prefix
from tell_lightning.model.base import unwrapped
from tell_lightning.model.evaluating import evaluating

TEXTS = ["a", "Hello, world", "one two three four five", "zz top", "??", "x" * 30, "y=2x+1", "Q:"]
LIMITS = Decoding(stop_ids=(0,), max_new_tokens=12)


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


def logprob_by_hand(model, prompt, answer):
    """Nats of the answer's tokens and its stop token, by one pass over the whole."""
    ids = [*prompt, *answer.token_ids, *([0] if answer.stopped else [])]
    with torch.no_grad():
        nats = model.eval()(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    places = range(len(prompt) - 1, len(ids) - 1)
    return float(sum(nats[place, ids[place + 1]] for place in places))


@pytest.mark.parametrize("name", ["llama", "gpt2", "adapted"])
def test_a_batch_gives_what_single_prompts_and_plain_search_give(name, request, tokenizer, prompts):
    model = request.getfixturevalue(name)
    together = generate(model, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    alone = [generate(model, tokenizer, [p], LIMITS, budget=Budget(1))[0] for p in prompts]
    assert [g.token_ids for g in together] == [by_hand(model, p, {0}, 12) for p in prompts]
    assert len({g.text for g in together}) >= len(TEXTS) - 1
    assert all(g.stopped == (len(g.token_ids) < 12) for g in together)
    assert all(len(g.text) == len(g.token_ids) for g in together)
    for prompt, ours, one in zip(prompts, together, alone, strict=True):
        assert replace(ours, logprob=0.0) == replace(one, logprob=0.0)
        assert ours.logprob == pytest.approx(one.logprob, abs=1e-4)
        assert ours.logprob == pytest.approx(logprob_by_hand(model, prompt, ours), abs=1e-4)
        assert ours.near_ties == 0


def test_tokens_that_rounding_could_decide_are_counted(llama, tokenizer, prompts):
    (answer,) = generate(llama, tokenizer, prompts[:1], LIMITS, budget=Budget(1))
    twin = next(t for t in range(1, 96) if t not in answer.token_ids)
    with torch.no_grad():
        llama.lm_head.weight[twin] = llama.lm_head.weight[answer.token_ids[0]]
    (again,) = generate(llama, tokenizer, prompts[:1], LIMITS, budget=Budget(1))
    assert again.near_ties >= 1


def try_out(model):
    """Do what is done before the first answer of a model."""
    with torch.inference_mode(), evaluating(model):
        layout_of(model)


def test_last_digit_of_bfloat16_counts_as_a_near_tie():
    logits = torch.tensor([[20.0, 19.9, 3.0], [20.0, 19.0, 3.0], [0.001, 0.0, -3.0]])
    for dtype, ties in ((torch.float32, [0, 0, 0]), (torch.bfloat16, [1, 0, 0])):
        choices = Choices([0, 0, 0], 0.0, dtype)
        choices(torch.zeros(3, 1), logits)
        assert [noted.near_ties for noted in choices.noted([1, 1, 1])] == ties


@pytest.mark.parametrize("batch_tokens", [1, 60, 100, 10_000])
def test_answers_do_not_depend_on_the_token_budget(llama, tokenizer, prompts, batch_tokens):
    expected = [by_hand(llama, prompt, {0}, 12) for prompt in prompts]
    answers = generate(llama, tokenizer, prompts, LIMITS, budget=Budget(batch_tokens))
    assert [answer.token_ids for answer in answers] == expected


def test_right_padding_or_lost_positions_would_change_the_answers(gpt2, tokenizer, prompts):
    good = [g.token_ids for g in generate(gpt2, tokenizer, prompts, LIMITS, budget=Budget(10_000))]
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


@pytest.mark.parametrize("name", ["llama", "gpt2", "adapted"])
@pytest.mark.parametrize("least", [0, 3])
def test_rows_that_have_ended_leave_the_batch_and_change_no_answer(name, least, request, tokenizer):
    model = request.getfixturevalue(name)
    letters = "abcdefgh"
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in letters]
    plain = generate(model, tokenizer, prompts, LIMITS, budget=Budget(1))
    ends = [x.token_ids[3 + n % 2] for n, x in enumerate(plain[:6]) if len(x.token_ids) > 4]
    limits = replace(LIMITS, stop_ids=(0, *ends), min_new_tokens=least)
    alone = [generate(model, tokenizer, [p], limits, budget=Budget(1))[0] for p in prompts]
    rows = []
    handle = (
        unwrapped(model)
        .get_output_embeddings()
        .register_forward_hook(lambda layer, inputs, output: rows.append(len(output)))
    )
    together = generate(model, tokenizer, prompts, limits, budget=Budget(10_000))
    handle.remove()
    assert [replace(x, logprob=0.0) for x in together] == [replace(x, logprob=0.0) for x in alone]
    for ours, one in zip(together, alone, strict=True):
        assert ours.logprob == pytest.approx(one.logprob, abs=1e-4)
    lengths = [len(answer.token_ids) + answer.stopped for answer in alone]
    assert sorted(lengths)[3] < max(lengths)
    assert rows == sorted(rows, reverse=True)
    assert sum(rows) < len(prompts) * max(lengths)


def test_an_answer_ends_before_the_first_stop_token(llama, tokenizer, prompts):
    free = generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    stop = free[1].token_ids[5]
    answers = generate(
        llama, tokenizer, prompts, replace(LIMITS, stop_ids=(0, stop)), budget=Budget(10_000)
    )
    assert answers[1].stopped
    assert not all(answer.stopped for answer in answers)
    for answer, whole in zip(answers, free, strict=True):
        end = whole.token_ids.index(stop) if stop in whole.token_ids else None
        text = tokenizer.decode(list(whole.token_ids[:end]))
        stopped = whole.stopped or end is not None
        assert (answer.text, answer.token_ids) == (text, whole.token_ids[:end])
        assert answer.stopped == stopped


def test_a_prompt_may_hold_and_end_with_stop_tokens(llama, tokenizer, prompts):
    ended = [[*prompt, 0] for prompt in prompts] + [[0], [0, 5, 0]]
    answers = generate(llama, tokenizer, ended, LIMITS, budget=Budget(10_000))
    assert [a.token_ids for a in answers] == [by_hand(llama, prompt, {0}, 12) for prompt in ended]


def test_special_tokens_are_kept_as_ids_and_skipped_in_text(llama, tokenizer, prompts):
    free = generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    assert 95 not in {token for answer in free for token in answer.token_ids}
    with torch.no_grad():
        llama.lm_head.weight[95] = -llama.lm_head.weight[95]
        llama.lm_head.weight[0] = 50 * llama.lm_head.weight[free[0].token_ids[0]]
    limits = Decoding(stop_ids=(95,), max_new_tokens=3)
    answer = generate(llama, tokenizer, prompts[:1], limits, budget=Budget(1))[0]
    assert answer.token_ids[0] == 0
    assert len(answer.text) == sum(token != 0 for token in answer.token_ids) < 3


def test_settings_of_a_hub_model_are_set_aside_without_warnings(adapted, tokenizer, prompts):
    expected = generate(adapted, tokenizer, prompts, LIMITS, budget=Budget(10_000))
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
    answers = generate(adapted, tokenizer, prompts, LIMITS, budget=Budget(10_000))
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
    generate(adapted, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    assert [module.training for module in adapted.modules()] == before

    def fail_in_eval_mode():
        with evaluating(adapted):
            assert not any(module.training for module in adapted.modules())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_eval_mode()
    assert [module.training for module in adapted.modules()] == before


def test_checkpointing_changes_nothing_and_training_goes_on(adapted, tokenizer, prompts):
    expected = generate(adapted, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    adapted.train()
    adapted.activation_checkpointing_enable()
    adapted.enable_input_require_grads()
    assert generate(adapted, tokenizer, prompts, LIMITS, budget=Budget(10_000)) == expected
    ids = torch.tensor([prompts[1]])
    adapted(ids, labels=ids, use_cache=False).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)


def test_the_tokenizer_stays_as_it_is(llama, tokenizer, prompts):
    before = (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.init_kwargs.copy())
    generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    assert (tokenizer.padding_side, tokenizer.pad_token_id, tokenizer.init_kwargs) == before


@pytest.fixture
def calls(llama, monkeypatch):
    """The shape of each batch that the model is given, prompts and answers; memory has a limit."""
    try_out(llama)
    shapes: list[tuple[int, int]] = []
    memory = {"tokens": 10_000, "error": torch.OutOfMemoryError("CUDA out of memory")}
    run = llama.generate

    def watched(input_ids, **options):
        past = options.get("past_key_values")
        if past is not None and past.get_seq_length() == input_ids.shape[1] - 1:
            return run(input_ids=input_ids, **options)  # goes on with a part of the batch
        shapes.append((len(input_ids), input_ids.shape[1] + LIMITS.max_new_tokens))
        if shapes[-1][0] * shapes[-1][1] > memory["tokens"]:
            raise memory["error"]
        return run(input_ids=input_ids, **options)

    monkeypatch.setattr(llama, "generate", watched)
    return shapes, memory


def test_batches_are_sorted_complete_and_within_the_budget(llama, tokenizer, calls):
    prompts = [[1] * length for length in (5, 1, 30, 7, 7, 100, 2)]
    generate(llama, tokenizer, prompts, LIMITS, budget=Budget(60))
    assert calls[0] == [(1, 112), (1, 42), (3, 19), (2, 14)]


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["GPU", "CPU"])
def test_out_of_memory_halves_the_budget_and_loses_no_row(
    error, llama, tokenizer, prompts, calls, caplog
):
    expected = [by_hand(llama, prompt, {0}, 12) for prompt in prompts]
    shapes, memory = calls
    memory |= {"tokens": 100, "error": error}
    budget = Budget(10_000)
    answers = generate(llama, tokenizer, prompts, LIMITS, budget=budget)
    assert [answer.token_ids for answer in answers] == expected
    assert shapes[:3] == [(8, 42), (4, 42), (2, 42)]
    assert budget.tokens == 84
    assert generate(llama, tokenizer, prompts, LIMITS, budget=budget) == answers
    assert len(caplog.records) == 2  # it is remembered
    assert [entry.getMessage() for entry in caplog.records] == [
        "out of memory with 8 prompts in a batch; going on with 168 tokens, half of it: "
        "set eval.batch_tokens to that",
        "out of memory with 4 prompts in a batch; going on with 84 tokens, half of it: "
        "set eval.batch_tokens to that",
    ]
    memory["tokens"] = 40
    with pytest.raises(TellError, match=r"^eval\.batch_tokens: must leave memory .* 1 prompt"):
        generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))


def test_another_error_is_not_taken_for_a_lack_of_memory(llama, tokenizer, prompts, calls):
    calls[1].update(tokens=0, error=RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))


# The prefix that all prompts share


PREFIX = list(range(10, 30))


def prefix_of(*calls):
    """What the prompts of some calls share."""
    prefix = Prefix()
    for prompts in calls:
        prefix.add(prompts)
    return prefix


def read(model):
    """Count the tokens that pass the embedding from here on."""
    try_out(model)
    counted = []
    model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, output: counted.append(inputs[0].numel())
    )
    return counted


@pytest.mark.parametrize("name", ["llama", "gpt2", "adapted"])
@pytest.mark.parametrize("batch_tokens", [1, 160, 10_000])
def test_shared_prefix_is_read_once_and_changes_no_answer(
    name, batch_tokens, request, tokenizer, prompts
):
    model = request.getfixturevalue(name)
    anchored = [PREFIX + prompt for prompt in prompts]
    expected = [by_hand(model, prompt, {0}, 12) for prompt in anchored]
    prefix = prefix_of(anchored)
    assert list(prefix.ids) == PREFIX
    counts = []
    for shared in (None, prefix):
        tokens = read(model)
        found = generate(
            model, tokenizer, anchored, LIMITS, budget=Budget(batch_tokens), prefix=shared
        )
        assert [answer.token_ids for answer in found] == expected
        counts.append(sum(tokens))
    assert counts[0] - counts[1] == len(PREFIX) * (len(prompts) - 1)


def test_prefix_is_kept_from_call_to_call_and_shortened_where_less_is_shared(
    llama, tokenizer, prompts
):
    """As `predict` answers lines that come one by one."""
    anchored = [PREFIX + prompt for prompt in (prompts[5], [*prompts[5], 7], *prompts)]
    expected = [by_hand(llama, prompt, {0}, 12) for prompt in anchored]
    prefix, tokens, counts = Prefix(), read(llama), []
    for prompt, answer in zip(anchored, expected, strict=True):
        prefix.add([prompt])
        (found,) = generate(
            llama, tokenizer, [prompt], LIMITS, budget=Budget(10_000), prefix=prefix
        )
        assert found.token_ids == answer
        counts.append(sum(tokens) - min(12, len(answer) + 1) + 1)
        tokens.clear()
    lengths = list(map(len, anchored))
    assert counts[0] == lengths[0]  # nothing is known to be shared
    assert counts[1] == lengths[1]  # read now: all that the first two share
    assert counts[2:] == [length - len(PREFIX) for length in lengths[2:]]


def test_keys_of_another_prefix_would_change_the_answers(llama, tokenizer, prompts):
    anchored, other = ([p + prompt for prompt in prompts] for p in (PREFIX, PREFIX[::-1]))
    good, wrong = prefix_of(anchored), prefix_of(other)
    wrong.ids = good.ids[: len(wrong.ids)]
    with torch.no_grad(), evaluating(llama):
        wrong._cache = prefix_of(other).read(llama)
    found = [
        generate(llama, tokenizer, anchored, LIMITS, budget=Budget(10_000), prefix=prefix)
        for prefix in (good, wrong)
    ]
    assert [a.token_ids for a in found[0]] != [a.token_ids for a in found[1]]


def test_no_memory_for_the_prefix_is_said(llama, tokenizer, prompts, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(llama, "forward", fail)
    anchored = [PREFIX + prompt for prompt in prompts]
    options = {"budget": Budget(10_000), "prefix": prefix_of(anchored)}
    with pytest.raises(
        TellError, match=r"^eval\.batch_tokens: must leave memory .* with 20 tokens"
    ):
        generate(llama, tokenizer, anchored, LIMITS, **options)


def test_model_with_a_sliding_window_reads_every_prompt_whole(sliding, tokenizer, prompts):
    anchored = [PREFIX + prompt for prompt in prompts]
    prefix = prefix_of(anchored)
    assert prefix.read(sliding) is None
    found = generate(sliding, tokenizer, anchored, LIMITS, budget=Budget(10_000), prefix=prefix)
    assert [a.token_ids for a in found] == [
        by_hand(sliding, prompt, {0}, 12) for prompt in anchored
    ]


@pytest.mark.parametrize(
    ("calls", "size"),
    [
        ([[]], 0),
        ([[PREFIX]], 0),
        ([[PREFIX, PREFIX]], 19),
        ([[PREFIX, [*PREFIX, 1]]], 19),
        ([[[*PREFIX, 1], [*PREFIX, 2], [*PREFIX, 1, 1]]], 20),
        ([[[*PREFIX[:15], 1], [*PREFIX[:15], 2]]], 0),
        ([[[*PREFIX, 1]], [[*PREFIX, 2]]], 20),
        ([[[*PREFIX, 1]], [], [[*PREFIX, 2, 3]]], 20),
        ([[[*PREFIX, 1], [*PREFIX, 2]], [[*PREFIX[:17], 9]]], 17),
        ([[[*PREFIX, 1], [*PREFIX, 2]], [PREFIX[:18]], [[*PREFIX, 2]]], 18),
    ],
)
def test_prefix_leaves_a_token_to_every_prompt_and_is_worth_a_call(calls, size):
    assert prefix_of(*calls).ids == tuple(PREFIX[:size])


# Limits and draws


def test_answers_have_the_least_length_that_is_asked_for(llama, tokenizer, prompts):
    free = generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    stop = free[1].token_ids[2]
    limits = replace(LIMITS, stop_ids=(stop, 0))
    short = generate(llama, tokenizer, prompts[1:2], limits, budget=Budget(1))
    long = generate(
        llama, tokenizer, prompts[1:2], replace(limits, min_new_tokens=6), budget=Budget(1)
    )
    assert len(short[0].token_ids) <= 2
    assert 6 <= len(long[0].token_ids) <= 12


def test_draws_of_a_row_depend_on_its_seed_and_not_on_the_batch(llama, tokenizer, prompts):
    drawn = replace(LIMITS, temperature=1.0)
    seeds = list(range(len(prompts)))
    run = {"budget": Budget(10_000), "seeds": seeds}
    together = generate(llama, tokenizer, prompts, drawn, **run)
    alone = [
        generate(llama, tokenizer, [prompt], drawn, budget=Budget(1), seeds=[seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert together == generate(llama, tokenizer, prompts, drawn, **run)
    others = generate(llama, tokenizer, prompts, drawn, **(run | {"seeds": [9] * len(prompts)}))
    greedy = generate(llama, tokenizer, prompts, LIMITS, budget=Budget(10_000))
    for different in (others, greedy):
        assert [a.token_ids for a in together] != [a.token_ids for a in different]
    cold = replace(LIMITS, temperature=1e-4)
    assert [a.token_ids for a in generate(llama, tokenizer, prompts, cold, **run)] == [
        a.token_ids for a in greedy
    ]


@pytest.mark.parametrize(
    ("temperature", "assumed", "fits"), [(1.0, 1.0, True), (0.7, 0.7, True), (2.0, 1.0, False)]
)
def test_draws_follow_the_softmax_of_the_logits(temperature, assumed, fits):
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    choices = Choices(range(4000), temperature)
    chosen = choices(torch.zeros(4000, 1), logits.expand(4000, -1)).argmax(-1)
    expected = (logits / assumed).softmax(-1) * 4000
    squares = float(((chosen.bincount(minlength=4) - expected) ** 2 / expected).sum())
    assert (squares < 16.27) == fits  # chi-square with three degrees of freedom, p = 0.001


@pytest.mark.parametrize(("top_p", "kept"), [(0.5, 1), (0.8, 2), (0.9, 3), (0.999, 4)])
def test_draws_come_from_the_most_probable_tokens(top_p, kept):
    logits = torch.tensor([0.0, 2.0, -1.0, 1.0])  # shares 0.09, 0.64, 0.03, 0.24
    choices = Choices(range(4000), 1.0, top_p=top_p)
    chosen = choices(torch.zeros(4000, 1), logits.expand(4000, -1)).argmax(-1)
    most = logits.argsort(descending=True)[:kept]
    expected = logits[most].softmax(-1) * 4000
    found = chosen.bincount(minlength=4)[most]
    assert found.sum() == 4000
    assert float(((found - expected) ** 2 / expected).sum()) < 16.27


def test_top_p_draws_of_a_row_do_not_depend_on_the_batch(llama, tokenizer, prompts):
    drawn = replace(LIMITS, temperature=1.0, top_p=0.9)
    seeds = list(range(len(prompts)))
    together = generate(llama, tokenizer, prompts, drawn, budget=Budget(10_000), seeds=seeds)
    alone = [
        generate(llama, tokenizer, [prompt], drawn, budget=Budget(1), seeds=[seed])[0]
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]


def test_no_prompts_give_no_answers(llama, tokenizer):
    assert generate(llama, tokenizer, [], LIMITS, budget=Budget(100)) == []


@pytest.mark.parametrize(
    ("prompts", "changes", "message"),
    [
        ([[1], []], {}, says("prompts", got="none in prompt 1")),
        ([[1]], {"stop_ids": ()}, says("stop_ids", got="none")),
        ([[1]], {"max_new_tokens": 0}, says("max_new_tokens", rule="1", got="0")),
        (
            [[1]],
            {"min_new_tokens": 13},
            says("min_new_tokens", rule=["0", "max_new_tokens", "12"], got="13"),
        ),
    ],
)
def test_impossible_requests_are_refused(llama, tokenizer, prompts, changes, message):
    with pytest.raises(TellError, check=message):
        generate(llama, tokenizer, prompts, replace(LIMITS, **changes), budget=Budget(100))
