"""Rendering by forms and tokenising in pieces give what template and tokenizer give row by row."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example as also
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import byte_tokenizer, chat_template, family_tokenizer

from tell_lightning.data.anchors import Example
from tell_lightning.data.control import MARK
from tell_lightning.data.forms import Forms
from tell_lightning.data.pieces import Pieces, borders
from tell_lightning.data.records import Turn
from tell_lightning.data.templates import Renderer, TemplateError
from tell_lightning.data.tokens import Encoder, TokenError

FAMILIES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "fixtures" / "chat_templates").glob("*.jinja")
)
WORDS = st.sampled_from(
    [
        *(
            "Why",
            "so",
            "Question",
            "Answer",
            "x",
            "é",
            "🙂",
            "\u3000",
            "\ufdd1",
            "\ufdd10\ufdd1",
            MARK,
        ),
        *(" ", "  ", "\n", "\n\n", "\t", "\r\n", "<", "|>", "{{ bos_token }}", "<|im_", "end|>"),
        *("<|im_end|>", "<|im_start|>", "</s>", "<s>", "[INST]", "[/INST]", "<|eot_id|>"),
        *("<end_of_turn>", "<|end|>", "<|user|>", "<\uff5cUser\uff5c>", "user\n", "### User:\n"),
        *("<think>", "</think>", "<think>\nHm.\n</think>\n\n", "<unk>", "\n\n\n"),
    ]
)
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map("".join).filter(str.strip)
TALKS = st.tuples(
    st.none() | TEXTS,
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3),
    st.booleans(),
)


def talk(system: str | None, exchanges: Sequence[tuple[str, str]], last_only: bool) -> Example:
    turns = [] if system is None else [Turn("system", system)]
    for question, answer in exchanges:
        turns += [Turn("user", question), Turn("assistant", answer)]
    return Example("7", "d.jsonl:7", tuple(turns), {}, last_only)


class OneByOne(Forms):
    """Runs the template for every conversation."""

    def render(self, turns: Sequence[Turn], generation: bool) -> None:
        return None


def encoders(
    make: Callable[[], Any], thinking: Any, patch: pytest.MonkeyPatch
) -> tuple[Encoder, Encoder]:
    """Return an encoder, and one without forms and pieces: the definition of its tokens."""
    found = Encoder(tokenizer := make(), Renderer(tokenizer, thinking))
    with patch.context() as slow:
        slow.setattr("tell_lightning.data.templates.Forms", OneByOne)
        slow.setattr("tell_lightning.data.pieces.borders", lambda *_: set())
        wanted = Encoder(tokenizer := make(), Renderer(tokenizer, thinking))
    assert found._pieces._cut is None or found._pieces._cut.pattern
    assert wanted._pieces._cut is None
    return found, wanted


def outcome(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except (TemplateError, TokenError) as error:
        return str(error)


@pytest.mark.parametrize(
    ("kind", "thinking", "examples"),
    [
        ("bytes", "strip", 6),
        ("spaces", "keep", 6),
        *(
            pytest.param(kind, thinking, 100, marks=pytest.mark.long)
            for kind in ("bytes", "spaces")
            for thinking in ("strip", "keep")
        ),
    ],
)
@pytest.mark.parametrize("name", [*FAMILIES, None])
def test_rows_and_prompts_are_those_of_the_template_and_the_tokenizer(
    name: str | None, kind: str, thinking: str, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, wanted = encoders(
        lambda: family_tokenizer(name and chat_template(name), kind), thinking, monkeypatch
    )
    for attribute in ("folds_system", "stop_texts", "stop_ids", "written", "_tail", "_end"):
        assert getattr(found.renderer, attribute) == getattr(wanted.renderer, attribute)
    assert found.renderer.control.texts == wanted.renderer.control.texts

    @settings(derandomize=True, max_examples=examples)
    @given(TALKS)
    @also(("Be brief.", [("Why?", "So."), (" Why?\n", "\n\nSo. ")], False))
    @also((None, [("\u3000Why?", "<think>\nHm.\n</think>\n\nSo.")], False))
    def check(given_talk: tuple[str | None, list[tuple[str, str]], bool]) -> None:
        one = talk(*given_talk)
        for name in ("segments", "split", "prompt_text"):
            render, define = (getattr(r.renderer, name) for r in (found, wanted))
            assert outcome(partial(render, one)) == outcome(partial(define, one))
        assert outcome(lambda: found.encode([one, one])) == outcome(
            lambda: wanted.encode([one, one])
        )
        assert outcome(lambda: found.prompt_ids([one])) == outcome(lambda: wanted.prompt_ids([one]))

    check()


@pytest.mark.parametrize("name", [*FAMILIES, None])
def test_every_family_has_forms_and_borders(name: str | None) -> None:
    """The control of the test above: it does not compare the definition with itself."""
    encoder = Encoder(t := family_tokenizer(name and chat_template(name)), Renderer(t))
    forms = encoder.renderer._forms
    asked = [Turn("user", " Why?\n")]
    answered = [*asked, Turn("assistant", "So.")]
    assert forms.render(asked, True) is not None
    assert forms.render(answered, False) is not None
    assert encoder._pieces._cut is not None


LOOP = "{{% for m in messages %}}<{{{{ m.role }}}}>{}{{% endfor %}}"


@pytest.mark.parametrize(
    ("of_content", "holds"),
    [
        ("{{ m.content }}", True),
        ("{{ m['content'] | trim }}", True),
        ("{{ ('to ' + m.content).lower() }}", False),
        ("{{ m.content.strip() + '!' }}", True),
        ("{{ m.content.rstrip('\\n') }}", True),
        ("{{ m.content.strip().lstrip('?') }}", False),
        ("{{ m.content | upper }}", False),
        ("{{ m.content | replace('y', 'z') }}", False),
        ("{{ m.content ~ '' }}", False),
        ("{{ [m.content, ''] | join }}", False),
        ("{{ '%s' % m.content }}", False),
        ("{{ '{}'.format(m.content) }}", False),
        ("{{ m.content | tojson }}", False),
        ("{{ m.content[:3] }}{{ m.content[3:] }}", False),
        ("{{ m.content }}{{ m.content | length }}", False),
        ("{{ m.content }}{% if m.content == 'Why' %}?{% endif %}", False),
        ("{{ m.content }}{% if m.content in ['Why', 'so'] %}?{% endif %}", False),
        ("{{ m.content }}{% if m.content in 'Why so' %}?{% endif %}", False),
        ("{{ m.content }}{% if 'Why' in m.content %}?{% endif %}", True),
        ("{{ m.content }}{% if m.content.startswith('Why') %}?{% endif %}", True),
        ("{{ m.content }}{% if m.content is string %}!{% endif %}", True),
        ("{{ m.content }}{% if m.content is sequence %}!{% endif %}", False),
        ("{% set x %}{{ m.content }}{% endset %}{{ x.strip() }}", False),
        ("{% macro w(x) %}{{ x }}{% endmacro %}{{ w(m.content) | trim }}", False),
        ("{% if m.role == 'user' or m.content %}{{ m.content }}{% endif %}", False),
        ("{{ strftime_now('%d') }}{{ m.content }}", True),
        ("{{ strftime_now(m.content) }}{{ m.content }}", False),
        (
            "{{ m.content }}{% if m.role == 'user' %}{{ raise_exception(m.content) }}{% endif %}",
            False,
        ),
    ],
)
def test_a_template_that_may_look_into_a_content_has_no_form(of_content: str, holds: bool) -> None:
    template = LOOP.format(of_content)
    if "strftime_now" in template:
        from tell_lightning.data.templates import _FIXED_DATE

        template = _FIXED_DATE + template
    tokenizer = byte_tokenizer(template)
    forms = Forms(tokenizer, template, {"enable_thinking": False})
    turns = (Turn("user", "x y"), Turn("assistant", "z"))
    assert (forms.render(turns, False) is not None) is holds

    @settings(derandomize=True, max_examples=25)
    @given(TEXTS, TEXTS)
    def check(prompt: str, response: str) -> None:
        turns = (Turn("user", prompt), Turn("assistant", response))
        found = forms.render(turns, False)
        if found is not None:
            messages = [{"role": turn.role, "content": turn.content} for turn in turns]
            assert found == tokenizer.apply_chat_template(messages, tokenize=False)

    check()


def test_a_tokenizer_that_renders_in_its_own_way_has_no_forms() -> None:
    from transformers import PreTrainedTokenizerFast

    class Loud(PreTrainedTokenizerFast):
        def apply_chat_template(self, *args: Any, **options: Any) -> Any:
            return super().apply_chat_template(*args, **options).upper()

    template = chat_template("smollm2")
    loud = Loud(tokenizer_object=byte_tokenizer(None).backend_tokenizer, eos_token="</s>")
    assert Forms(loud, template, {}).render([Turn("user", "x")], True) is None
    assert borders(loud, ["<|im_end|>"]) == set()


def test_conversations_of_more_forms_than_are_kept_are_rendered_too() -> None:
    encoder = Encoder(t := family_tokenizer(chat_template("phi3")), Renderer(t))
    for exchanges in range(1, 80):
        one = talk(None, [("Why?", "So.")] * exchanges, False)
        assert len(encoder.renderer.segments(one)) == 2 * exchanges


@pytest.mark.parametrize(
    ("flags", "others", "wanted"),
    [
        ({}, [], {"<|end|>"}),
        ({"normalized": True}, [], set()),
        ({"lstrip": True}, [], set()),
        ({"rstrip": True}, [], set()),
        ({"single_word": True}, [], set()),
        ({}, ["<|end|>\n"], set()),
        ({}, ["so<|e"], set()),
        ({}, ["end|>"], {"<|end|>"}),
        ({}, ["<|"], {"<|end|>"}),
    ],
)
def test_borders_are_tokens_that_nothing_around_them_can_change(
    flags: dict[str, bool], others: list[str], wanted: set[str]
) -> None:
    from tokenizers import AddedToken

    tokenizer = byte_tokenizer(None)
    options = {"normalized": False, "special": True, **flags}
    tokenizer.backend_tokenizer.add_tokens([AddedToken("<|end|>", **options)])
    tokenizer.backend_tokenizer.add_tokens([AddedToken(text, normalized=False) for text in others])
    assert borders(tokenizer, ["<|end|>", "not added"]) == wanted
    texts = ["so<|end|>", "so<|end|>\n why", "<|end|><|end|>", "<<|end|>end|>", ""]
    assert Pieces(tokenizer, ["<|end|>"]).ids(texts) == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts
    ]


def test_each_piece_is_tokenised_once_and_a_limit_of_the_tokenizer_is_none_of_a_piece() -> None:
    tokenizer = family_tokenizer(chat_template("smollm2"))
    tokenizer("x" * 50, truncation=True, max_length=3)  # the backend remembers it
    assert tokenizer.backend_tokenizer.truncation
    pieces = Pieces(tokenizer, ["<|im_start|>", "<|im_end|>"])
    text = "<|im_start|>user\nWhy is it so?<|im_end|>\n"
    (ids,) = pieces.ids([text])
    assert tokenizer.decode(ids) == text
    assert pieces.ids([]) == []
    assert pieces._split(text) == ["<|im_start|>user\nWhy is it so?", "<|im_end|>\n"]
