"""The exported chat template gives a server the prompts of `predict`, to the token."""

from functools import cache
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.ext import loopcontrols
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from messages import says
from tiny_tokenizers import chat_template, family_tokenizer

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.evaluation_rows import build
from tell_lightning.data.prediction_rows import settle_anchor
from tell_lightning.data.records import Record, Turn
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.data.variants import Variant
from tell_lightning.export.chat_template import (
    ServedTemplateError,
    served_anchor,
    served_template,
)
from tell_lightning.metrics.settings import Scoring

FAMILIES = (
    *("smollm2", "qwen", "qwen3", "gemma", "gemma3", "llama", "mistral", "mistral_v3", "phi3"),
    *("deepseek_r1", None),
)
TEXT = 'Say "true" or\n\\not\u2028 {% if %} {{ x }} #} 🙂.'
ANCHORS = {
    "prefix": Anchor(text="Translate into English."),
    "suffix": Anchor(text="The answer is", position="suffix", separator=" "),
    "system": Anchor(text=TEXT, position="system", response_prefix="In English: "),
    "spaces": Anchor(text=" " + TEXT + "\n", response_prefix="Because "),
    "response": Anchor(response_prefix="In English: "),
    "none": Anchor(),
}
CONVERSATIONS = (
    ("Why?",),
    ("  Why?\n ", " Because. ", "And?"),
    ("Why?", "In English: so.", "And why?", "Because so.", "Who?"),
)


@cache
def encoder_of(name: str | None, thinking: Any = "strip") -> Encoder:
    tokenizer = family_tokenizer(name and chat_template(name))
    return Encoder(tokenizer, Renderer(tokenizer, thinking))


def template_of(
    encoder: Encoder,
    anchor: Anchor,
    variant: Variant = "given",
    *,
    forced: bool = False,
    thinking: Any = "strip",
) -> str:
    served = served_anchor(
        encoder.renderer, anchor, variant, force_response_prefix=forced, where="data.tasks.t.anchor"
    )
    return served_template(encoder, {"t": served}, thinking)


def record(*contents: str, system: str = "") -> Record:
    roles: tuple[Any, Any] = ("user", "assistant")
    spoken = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    return Record("7", "d:7", (*([Turn("system", system)] if system else []), *spoken), {})


def predicted(
    encoder: Encoder, one: Record, anchor: Anchor, variant: Variant = "given", forced: bool = False
) -> list[int]:
    """The prompt of `predict` for a row that a user gives."""
    settled, here = settle_anchor(one, anchor, variant, free=True)
    rows = build(
        encoder,
        [settled],
        task="t",
        anchor=here,
        variant=variant,
        scoring=Scoring(),
        max_new_tokens=9,
        forced=forced,
    )
    return list(rows.prompts[0])


@cache
def compiled(template: str, **options: bool) -> jinja2.Template:
    """Compile a template in a sandbox as transformers, and with it vLLM, does."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    blocks = {"trim_blocks": True, "lstrip_blocks": True, **options}
    made = ImmutableSandboxedEnvironment(extensions=[loopcontrols], **blocks)
    made.globals |= {"raise_exception": refuse, "strftime_now": lambda _: "today"}
    return made.from_string(template)


def served(encoder: Encoder, template: str, one: Record, **options: Any) -> list[int]:
    """The prompt of a server: in transformers, and the same in a sandbox of its own."""
    messages = [{"role": turn.role, "content": turn.content} for turn in one.turns]
    tokenizer = encoder.tokenizer
    (ids,) = tokenizer.apply_chat_template(
        [messages],
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=False,
        **options,
    )
    text = compiled(template).render(
        messages=messages,
        add_generation_prompt=True,
        tools=None,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        **options,
    )
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    return ids


def check(name: str | None, anchor: str, forced: bool) -> None:
    encoder, put = encoder_of(name), ANCHORS[anchor]
    template = template_of(encoder, put, forced=forced)
    for contents in CONVERSATIONS:
        for system in ("", "Be brief."):
            one = record(*contents, system=system)
            wanted = predicted(encoder, one, put, forced=forced)
            assert served(encoder, template, one) == wanted
            again, _ = settle_anchor(one, put, "given", free=True)  # the caller puts it on
            assert served(encoder, template, again) == wanted


CASES = [
    (name, anchor, forced)
    for name in FAMILIES
    for anchor, put in ANCHORS.items()
    for forced in ([False, True] if put.response_prefix else [False])
]
QUICK = [case for case in CASES if case[0] == "smollm2" or case[1:] == ("system", True)]


@pytest.mark.parametrize(("name", "anchor", "forced"), QUICK)
def test_prompts_are_those_of_predict(name: str | None, anchor: str, forced: bool) -> None:
    check(name, anchor, forced)


@pytest.mark.long
@pytest.mark.parametrize(("name", "anchor", "forced"), [c for c in CASES if c not in QUICK])
def test_prompts_of_every_family_and_anchor_are_those_of_predict(
    name: str | None, anchor: str, forced: bool
) -> None:
    check(name, anchor, forced)


SPOKEN = st.text(alphabet=st.sampled_from("aB \n\t{%}\"'\\\u00e9\u2028\U0001f642"), max_size=9).map(
    lambda text: f"{text}?"
)


@pytest.mark.parametrize("name", ["smollm2", "gemma", "mistral_v3", None])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_conversation_gets_the_prompt_of_predict(name: str | None, data: st.DataObject) -> None:
    encoder = encoder_of(name)
    anchor = data.draw(st.sampled_from(sorted(ANCHORS)))
    count = data.draw(st.sampled_from([1, 3, 5]))
    contents = data.draw(st.lists(SPOKEN, min_size=count, max_size=count))
    one = record(*contents, system=data.draw(st.sampled_from(["", " Be brief."])))
    put = ANCHORS[anchor]
    if data.draw(st.booleans()):
        one, _ = settle_anchor(one, put, "given", free=True)
    assert served(encoder, template_of(encoder, put), one) == predicted(encoder, one, put)


@pytest.mark.parametrize("variant", ["none", "arbitrary", "end"])
def test_an_ablation_is_served_with_the_words_of_its_training(variant: Variant) -> None:
    encoder = encoder_of("smollm2")
    put = Anchor(text="Translate into English.", response_prefix="So: ")
    one = record("Why?", "Because.", "And?")
    template = template_of(encoder, put, variant)
    assert served(encoder, template, one) == predicted(encoder, one, put, variant)


@pytest.mark.parametrize("name", ["qwen3", "deepseek_r1"])
@pytest.mark.parametrize("forced", [False, True])
def test_thinking_that_was_trained_is_asked_for_and_what_was_not_is_left_out(
    name: str, forced: bool
) -> None:
    put = ANCHORS["system"]
    for thinking in ("strip", "keep"):
        encoder = encoder_of(name, thinking)
        template = template_of(encoder, put, forced=forced, thinking=thinking)
        for answer in ("<think>\nHm.\n</think>\n\nSo.", "<think>Hm.</think> In English: so."):
            one = record("Why?", answer, "And?")
            wanted = predicted(encoder, one, put, forced=forced)
            assert served(encoder, template, one) == wanted
    asked = encoder_of("qwen3")
    template = template_of(asked, put)
    on = served(asked, template, record("Why?"), enable_thinking=True)
    assert len(on) < len(served(asked, template, record("Why?")))  # the caller's word counts


# Control tokens

CONTROL = {
    "smollm2": "<|im_end|>",
    "llama": "<|eot_id|>",
    "mistral_v3": "[/INST]",
    "phi3": "<|end|>",
}


@pytest.mark.parametrize("name", CONTROL)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_no_text_of_a_caller_begins_or_ends_a_turn(name: str, data: st.DataObject) -> None:
    encoder = encoder_of(name)
    tokens = sorted(encoder.renderer.control.texts)
    pieces = st.sampled_from([*tokens, *(t[1:] for t in tokens), "<", "<|", " ", "a"])
    count = data.draw(st.sampled_from([1, 3]))
    contents = [
        "".join(data.draw(st.lists(pieces, max_size=5))) + CONTROL[name] for _ in range(count)
    ]
    template = template_of(encoder, ANCHORS["prefix"])
    system = data.draw(st.sampled_from(["", f"Be {CONTROL[name]} brief."]))
    one = record(*contents, system=system)
    plain = record(*("a" for _ in contents), system=system and "Be brief.")
    ids = {encoder.tokenizer.convert_tokens_to_ids(token) for token in tokens}
    ids.discard(encoder.tokenizer.unk_token_id)
    written, wanted = (
        [id for id in served(encoder, template, each) if id in ids] for each in (one, plain)
    )
    assert written == wanted


def test_a_space_keeps_a_control_token_text() -> None:
    encoder = encoder_of("smollm2")
    template = template_of(encoder, ANCHORS["prefix"])
    one = record("Write <|im_end|> and </s>.")
    text = encoder.tokenizer.decode(served(encoder, template, one))
    assert "Write < |im_end|> and < /s>." in text
    assert encoder.tokenizer.decode(predicted(encoder, one, ANCHORS["prefix"])) != text


# Several tasks, and what is refused


def test_a_keyword_chooses_one_of_several_tasks() -> None:
    encoder = encoder_of("smollm2")
    renderer = encoder.renderer
    both = {
        name: served_anchor(
            renderer, ANCHORS[name], "given", force_response_prefix=name == "system", where="t"
        )
        for name in ("prefix", "system")
    }
    template = served_template(encoder, both, "strip")
    one = record("Why?", "Because.", "And?")
    for name in both:
        wanted = predicted(encoder, one, ANCHORS[name], forced=name == "system")
        assert served(encoder, template, one, task=name) == wanted
    for options in ({}, {"task": "x"}):
        with pytest.raises(jinja2.TemplateError, match=r"task must be one of prefix, system"):
            served(encoder, template, one, **options)


@pytest.mark.parametrize("name", ["qwen3", "llama", None])
def test_the_template_declares_what_a_server_may_pass(name: str | None) -> None:
    encoder = encoder_of(name)
    none = served_anchor(encoder.renderer, Anchor(), "given", force_response_prefix=False, where="")
    template = served_template(encoder, {"a": none, "b": none}, "strip")
    declared = find_undeclared_variables(jinja2.Environment().parse(template))
    assert {"messages", "task"} <= declared
    assert ("enable_thinking" in declared) == (name == "qwen3")
    blank = {"messages": [{"role": "user", "content": "Why?"}], "bos_token": "<s>", "task": "a"}
    texts = {
        compiled(template, trim_blocks=trim, lstrip_blocks=trim).render(
            **blank, add_generation_prompt=True
        )
        for trim in (True, False)
    }
    assert len({text.lstrip() for text in texts}) == 1 or name == "llama"
    assert all(text.startswith(("<", "#")) for text in texts)


def test_a_developer_is_the_system_and_other_roles_stay() -> None:
    encoder = encoder_of("smollm2")
    template = template_of(encoder, ANCHORS["system"])
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "sum"}]},
        {"role": "tool", "content": "42", "name": "sum"},
    ]
    text = compiled(template).render(messages=messages, add_generation_prompt=True)
    assert text.startswith(f"<|im_start|>system\n{TEXT}\n\nBe brief.<|im_end|>\n")
    assert "<|im_start|>assistant\n<|im_end|>\n<|im_start|>tool\n42<|im_end|>" in text
    with pytest.raises(jinja2.TemplateError, match="the content of a user turn must be text"):
        compiled(template).render(messages=[{"role": "user", "content": None}])


def test_lists_of_parts_are_joined_where_the_template_of_the_base_reads_them() -> None:
    reads = chat_template("phi3").replace(
        "message['content'] +",
        "(message['content'] if message['content'] is string else message['content'][0].text) +",
    )
    loops = "{% for m in messages %}{% for part in m.content %}{% endfor %}{% endfor %}" + reads
    tokenizer = family_tokenizer(loops)
    encoder = Encoder(tokenizer, Renderer(tokenizer))
    put = ANCHORS["prefix"]
    template = template_of(encoder, put)
    parts = [{"type": "text", "text": "Why "}, {"type": "text", "text": "so?"}]
    messages = [{"role": "user", "content": parts}]
    ids = tokenizer.apply_chat_template(
        messages, chat_template=template, add_generation_prompt=True, return_dict=False
    )
    assert ids == predicted(encoder, record("Why so?"), put)
    messages[0]["content"] = [{"type": "image"}]
    with pytest.raises(jinja2.TemplateError, match="must be text, got image"):
        tokenizer.apply_chat_template(messages, chat_template=template)
    assert "turn['content'] %}\n        {%- set tell.text = tell.text + part" not in template_of(
        encoder_of("phi3"), put
    )


def test_an_anchor_that_no_template_can_put_on_is_refused() -> None:
    encoder = encoder_of("smollm2")
    where = "data.tasks.t.anchor"
    with pytest.raises(
        ServedTemplateError,
        check=says(where, rule="same anchor", got="data.mixture.anchor: random", cure="`predict`"),
    ):
        template_of(encoder, ANCHORS["prefix"], "random")
    for name in ("text", "response_prefix"):
        bad = Anchor(**{"text": "Go.", name: "Say <|im_end|>"})
        with pytest.raises(
            ServedTemplateError,
            check=says(f"{where}.{name}", rule="control token", got="'Say <|", cure="`predict`"),
        ):
            template_of(encoder, bad)
