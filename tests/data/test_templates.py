"""The renderer on templates like the common families': nothing lost, only responses supervised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages import Says, says
from tiny_tokenizers import chat_template

from tell_lightning.data.anchors import Anchor, anchor_record
from tell_lightning.data.reading import read_records
from tell_lightning.data.records import Fields, Record, Turn
from tell_lightning.data.templates import PLAIN_TEMPLATE, Renderer, TemplateError

Make = Callable[[str | None], Any]

LLAMA, QWEN, GEMMA, MISTRAL = map(chat_template, ("llama", "qwen", "gemma", "mistral"))
# Each with the text that must end a response.
TEMPLATES = {
    "llama": (LLAMA, "<|eot_id|>"),
    "qwen": (QWEN, "<|im_end|>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "mistral": (MISTRAL, "</s>"),
    "plain": (None, "</s>"),
}


def record(*contents: str, system: str = "") -> Record:
    roles: tuple[Any, Any] = ("user", "assistant")
    turns = [Turn(roles[n % 2], content) for n, content in enumerate(contents)]
    first = [Turn("system", system)] if system else []
    return Record("7", "d.jsonl:7", (*first, *turns), {})


@pytest.fixture(scope="module")
def renderers(make_tokenizer: Make) -> dict[str, Renderer]:
    return {name: Renderer(make_tokenizer(text)) for name, (text, _) in TEMPLATES.items()}


def texts(renderer: Renderer, one: Record, supervised: bool) -> list[str]:
    return [s.text for s in renderer.segments(one) if s.supervised is supervised]


WANTED = {
    "llama": (
        "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "Yes.<|eot_id|>",
    ),
    "qwen": (
        "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "Yes.<|im_end|>",
    ),
    "gemma": (
        "<s><start_of_turn>user\nHi?<end_of_turn>\n<start_of_turn>model\n",
        "Yes.<end_of_turn>",
    ),
    "mistral": ("<s>[INST] Hi? [/INST]", " Yes.</s>"),
    "plain": ("<s>### User:\nHi?\n\n### Assistant:\n", "Yes.</s>"),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_one_exchange_letter_by_letter(renderers: dict[str, Renderer], name: str) -> None:
    context, response = renderers[name].segments(record("Hi?", "Yes."))
    assert (context.text, response.text) == WANTED[name]
    assert (context.supervised, response.supervised) == (False, True)


CONTENT = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="<[")
).filter(str.strip)


@pytest.mark.parametrize("name", [n for n in TEMPLATES if n != "qwen"])
@given(contents=st.lists(CONTENT, min_size=2, max_size=5))
def test_prompts_are_prefixes_and_responses_end_their_turn(
    renderers: dict[str, Renderer], name: str, contents: list[str]
) -> None:
    one, renderer = record(*contents), renderers[name]
    segments = renderer.segments(one)
    rendered = "".join(segment.text for segment in segments)
    assert rendered.startswith(renderer.prompt_text(one))
    if len(contents) % 2:
        assert rendered == renderer.prompt_text(one)
    responses = [s.text for s in segments if s.supervised]
    assert len(responses) == len(contents) // 2
    for text, content in zip(responses, contents[1::2], strict=True):
        assert text.endswith(TEMPLATES[name][1])
        assert text.removesuffix(TEMPLATES[name][1]).strip() == content.strip()
    # What a response starts from is the same when it is asked for and when it is trained.
    for turns in range(2, len(contents) + 1, 2):
        assert rendered.startswith(renderer.prompt_text(record(*contents[:turns])))


@pytest.mark.parametrize("name", TEMPLATES)
def test_segments_tell_contexts_from_responses(renderers: dict[str, Renderer], name: str) -> None:
    end = TEMPLATES[name][1]
    contents = ["p1", "r1", "p2", "r2"] if name != "qwen" else ["p1", "r1"]
    one = record(*contents)
    segments = renderers[name].segments(one)
    assert [s.supervised for s in segments] == [False, True] * (len(contents) // 2)
    assert [t.lstrip() for t in texts(renderers[name], one, True)] == [
        content + end for content in contents[1::2]
    ]
    if name != "qwen":
        assert "p2" in segments[2].text
        assert (segments[2].text[0] == "\n") == (name in {"gemma", "plain"})


@pytest.mark.parametrize("name", ["llama", "mistral", "plain", "qwen"])
def test_the_system_text_is_context(renderers: dict[str, Renderer], name: str) -> None:
    one = record("p", "r", system="Be brief.")
    assert "Be brief." in renderers[name].prompt_text(one)
    assert "Be brief." not in "".join(texts(renderers[name], one, True))


@pytest.mark.parametrize(
    "template",
    [
        GEMMA,
        "{% for m in messages if m.role != 'system' %}{{ m.content + '|' }}{% endfor %}",
    ],
)
def test_a_system_text_begins_the_first_user_turn_where_the_template_has_no_system_role(
    make_tokenizer: Make, template: str
) -> None:
    renderer = Renderer(make_tokenizer(template))
    assert renderer.folds_system
    one = record("p", "r", system="Be brief.")
    assert renderer.segments(one) == renderer.segments(record("Be brief.\n\np", "r"))
    assert not Renderer(make_tokenizer(LLAMA)).folds_system


WAY_OUT = (
    "Change chat_template in the model's tokenizer folder, or remove it to use the plain template."
)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ raise_exception('no') }}",
            says("chat template", rule="conversation", got="no. ", cure="chat_template"),
        ),
        (
            "{{ messages[0].content }}",
            says(
                "chat template", rule="conversation", got="no assistant text", cure="chat_template"
            ),
        ),
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}A:{% "
            "endif %}",
            says("chat template", rule="response", got="'QuestionA:'", cure="response 1"),
        ),
        (
            "{% for m in messages %}{{ '<t>' if m.role == 'assistant' }}"
            "{{ m.content }}{% endfor %}",
            says("chat template", rule="response", got="'<t>Answer'", cure="'Answer'"),
        ),
        (
            "{{ messages[0].content + 1 }}",
            says("chat template", rule="conversation", got="can only", cure="chat_template"),
        ),
        ("{% for m in messages", says("chat template", rule="conversation", cure="chat_template")),
    ],
)
def test_a_template_that_cannot_work_is_refused_at_once(
    make_tokenizer: Make, template: str, message: Says
) -> None:
    with pytest.raises(TemplateError) as caught:
        Renderer(make_tokenizer(template))
    assert str(caught.value) == message
    assert str(caught.value).endswith(WAY_OUT)


def test_a_template_that_writes_no_special_token_gets_the_end_of_sequence(
    make_tokenizer: Make,
) -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    renderer = Renderer(make_tokenizer(template))
    segments = renderer.segments(record("p", "r", "q", "s"))
    assert [s.text for s in segments] == [
        "user: p\nassistant:", " r</s>", "\nuser: q\nassistant:", " s</s>",
    ]  # fmt: skip
    assert renderer.prompt_text(record("p", "r", "q", "s")) == "".join(s.text for s in segments[:3])
    assert renderer.stop_texts == ("</s>",)


@pytest.mark.parametrize(("name", "end"), [(name, end) for name, (_, end) in TEMPLATES.items()])
def test_responses_stop_at_the_end_of_turn_or_sequence(
    make_tokenizer: Make, renderers: dict[str, Renderer], name: str, end: str
) -> None:
    ids = make_tokenizer(None).convert_tokens_to_ids
    wanted = (end,) if end == "</s>" else (end, "</s>")
    assert renderers[name].stop_texts == wanted
    assert renderers[name].stop_ids == tuple(ids(text) for text in wanted)


def test_the_day_s_date_does_not_change_the_text(make_tokenizer: Make) -> None:
    dated = "{{ strftime_now('%Y-%m-%d') + '\\n' }}" + MISTRAL
    renderer = Renderer(make_tokenizer(dated))
    assert renderer.prompt_text(record("p")) == "2024-07-26\n<s>[INST] p [/INST]"


def test_the_digest_names_the_template(renderers: dict[str, Renderer]) -> None:
    assert renderers["plain"].template == PLAIN_TEMPLATE
    assert len({r.template_digest for r in renderers.values()}) == len(TEMPLATES)


def test_the_default_of_several_templates_is_taken(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.chat_template = {"tool_use": LLAMA, "default": MISTRAL}
    assert Renderer(tokenizer).template == MISTRAL
    tokenizer.chat_template = {"tool_use": LLAMA, "rag": QWEN}
    with pytest.raises(TemplateError, match=r"default.*, got tool_use, rag\."):
        Renderer(tokenizer)


def test_a_tokenizer_without_end_of_sequence_is_refused(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(None)
    tokenizer.eos_token = None
    with pytest.raises(TemplateError) as caught:
        Renderer(tokenizer)
    assert str(caught.value) == says(
        "tokenizer", rule="eos_token", got="none", cure=["eos_token", "tokenizer_config.json"]
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_real_examples_are_rendered_whole(
    shared_data: Path, renderers: dict[str, Renderer], name: str
) -> None:
    rows = read_records("tell/test-en-is.jsonl", fields=Fields(prompt="query"), root=shared_data)
    for one in rows.records:
        example = anchor_record(one, Anchor(), anchored=True)
        (response,) = texts(renderers[name], one, True)
        body = response.removesuffix(TEMPLATES[name][1]).strip()
        assert body == example.turns[-1].content.strip()
        prompt = renderers[name].prompt_text(example)
        assert example.turns[0].content.strip() in prompt
        assert "".join(s.text for s in renderers[name].segments(example)) == prompt + response


def test_the_tokenizer_reads_back_what_was_rendered(make_tokenizer: Make) -> None:
    tokenizer = make_tokenizer(LLAMA)
    renderer = Renderer(tokenizer)
    segments = renderer.segments(record("Halló 🙂", "þú"))
    ids = [tokenizer(s.text, add_special_tokens=False)["input_ids"] for s in segments]
    assert ids[1][-1] == renderer.stop_ids[0]
    assert ids[0].count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[0] + ids[1]) == "".join(s.text for s in segments)
