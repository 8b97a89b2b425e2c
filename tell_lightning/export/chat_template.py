r"""A chat template that puts the anchor on by itself, for servers that know nothing of anchors.

It is the template of the base behind a beginning that rewrites the messages as `data.anchors` and
`data.templates` do for `predict`. So a server's prompt has the same tokens:

    user: Halló                                   what the caller sends
    user: Translate into English.\n\nHalló        what the template of the base gets

Every user turn gets a prefix or suffix, the system turn a system anchor, and every earlier response
the response prefix. What the caller has put on already stays as it is. A response prefix that
`predict` forces ends the prompt.

A server reads a control token in the rendered text, such as <|im_end|>, as a token, whoever wrote
it. `predict` reads those that a user's text spells as ordinary text. A template cannot do that; it
writes a space behind their first letter, `< |im_end|>`, so that they are text, though not the same.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tell_lightning.data.anchors import Anchor
from tell_lightning.data.formats import cut
from tell_lightning.data.records import Conversation, Turn
from tell_lightning.data.settings import Thinking
from tell_lightning.data.templates import Renderer
from tell_lightning.data.tokens import Encoder
from tell_lightning.data.variants import Variant, variant_anchor
from tell_lightning.errors import TellError

_MESSAGES = """\
{%- set tell = namespace(turns=[], text='', answer='', thinking='') %}
{%- if tell_task['role'] == 'system' and messages[0]['role'] not in ['system', 'developer'] %}
    {%- set tell.turns = [{'role': 'system', 'content': tell_task['anchor']}] %}
{%- endif %}
{%- for turn in messages %}
    {%- set role = 'system' if turn['role'] == 'developer' else turn['role'] %}
    {%- set tell.text = turn['content'] %}
    {#- parts #}
    {%- if turn['tool_calls'] or role not in ['system', 'user', 'assistant'] %}
        {%- set tell.turns = tell.turns + [turn] %}
    {%- elif tell.text is string %}
        {%- for token in tell_control %}
            {%- if token in tell.text %}
                {%- set tell.text = tell.text | replace(token, token[0] + ' ' + token[1:]) %}
            {%- endif %}
        {%- endfor %}
        {%- if role == tell_task['role'] %}
            {%- set separator = tell_task['separator'] if tell.text else '' %}
            {%- if tell_task['at_end'] %}
                {%- if not tell.text.rstrip().endswith(tell_task['core']) %}
                    {%- set tell.text = tell.text + separator + tell_task['anchor'] %}
                {%- endif %}
            {%- elif not tell.text.lstrip().startswith(tell_task['core']) %}
                {%- set tell.text = tell_task['anchor'] + separator + tell.text %}
            {%- endif %}
        {%- elif role == 'assistant' %}
            {%- set tell.answer = tell.text %}
            {%- if '</think>' in tell.text %}
                {%- set tell.answer = tell.text.split('</think>')[-1].lstrip() %}
            {%- endif %}
            {%- set tell.thinking = tell.text[:(tell.text | length) - (tell.answer | length)] %}
            {%- if not tell.answer.lstrip().startswith(tell_task['response_core']) %}
                {%- set tell.answer = tell_task['response_prefix'] + tell.answer %}
            {%- endif %}
            {%- set tell.text = (tell.thinking if tell_keeps else '') + tell.answer %}
        {%- endif %}
        {%- if role != 'system' or tell.text.strip() %}
            {%- set tell.turns = tell.turns + [{'role': role, 'content': tell.text}] %}
        {%- endif %}
    {%- else %}
        {{- raise_exception('the content of a ' + role + ' turn must be text') }}
    {%- endif %}
{%- endfor %}
"""
# Servers give a list of parts to a template that goes through such a list, and text to others.
_PARTS = """\
    {%- if tell.text is not string and tell.text is iterable %}
        {%- set tell.text = '' %}
        {%- for part in turn['content'] %}
            {%- if part['type'] != 'text' %}
                {{- raise_exception('the parts of a turn must be text, got ' + part['type']) }}
            {%- endif %}
            {%- set tell.text = tell.text + part['text'] %}
        {%- endfor %}
    {%- endif %}"""
# The base has no system role: the system text begins the first user turn.
_FOLDED = """\
{%- if (tell.turns | length) > 1 and tell.turns[0]['role'] == 'system' %}
    {%- set tell.text = tell.turns[0]['content'] + '\\n\\n' + tell.turns[1]['content'] %}
    {%- set tell.turns = [{'role': tell.turns[1]['role'], 'content': tell.text}] + tell.turns[2:] %}
{%- endif %}
"""
_THINKING = """\
{%- if enable_thinking is not defined %}
    {%- set enable_thinking = KEEPS %}
{%- endif %}
"""
_CHOICE = """\
{%- if task is not defined or task not in tell_tasks %}
    {{- raise_exception('chat_template_kwargs: task must be one of ' + (tell_tasks | join(', '))) }}
{%- endif %}
{%- set tell_task = tell_tasks[task] %}
"""


class ServedTemplateError(TellError):
    """An anchor that no chat template can put on."""


@dataclass(frozen=True)
class ServedAnchor:
    """The anchor of a task as a chat template puts it on."""

    anchor: Anchor
    """The text that prompts carry: the task's own, or that of its ablation."""
    forced: str = ""
    """What ends every prompt, behind the generation prompt."""

    def values(self) -> dict[str, object]:
        """Return the values that the template reads."""
        anchor = self.anchor
        return {
            "role": "" if not anchor.text else "system" if anchor.position == "system" else "user",
            "at_end": anchor.position == "suffix",
            "anchor": anchor.text,
            "core": anchor.text.strip(),
            "separator": anchor.separator,
            "response_prefix": anchor.response_prefix,
            "response_core": anchor.response_prefix.strip(),
            "forced": self.forced,
        }


def served_anchor(
    renderer: Renderer, anchor: Anchor, variant: Variant, *, force_response_prefix: bool, where: str
) -> ServedAnchor:
    """Find out what a template has to put on, for the prompts that `predict` makes.

    Args:
        renderer: The renderer of the training.
        anchor: The anchor of the task.
        variant: The form of the anchor that the adapter was trained with.
        force_response_prefix: Whether answers are forced to begin with the response prefix.
        where: The task, for messages.

    Raises:
        ServedTemplateError: The words differ from row to row, or spell a control token.
    """
    if variant == "none":
        return ServedAnchor(Anchor())
    if variant == "random" and anchor.text:
        raise ServedTemplateError(
            f"{where}: a chat template puts on the same anchor for every prompt, got "
            "data.mixture.anchor: random, which gives each row words of its own. Train with "
            "another anchor, or answer by `predict`."
        )
    carried = variant_anchor(anchor, variant, row="")
    for name in ("text", "response_prefix"):
        if renderer.control.are_in(getattr(carried, name)):
            raise ServedTemplateError(
                f"{where}.{name}: a server reads a control token as such, where training read it "
                f"as ordinary text, got {cut(getattr(carried, name))}. Train without it, or "
                "answer by `predict`."
            )
    beginning = carried.response_prefix.strip()
    if not (force_response_prefix and beginning):
        return ServedAnchor(carried)
    exchange = (Turn("user", "Question"), Turn("assistant", beginning))
    answer = renderer.segments(Conversation("", where, exchange, {}))[-1].text
    return ServedAnchor(carried, answer[: answer.index(beginning) + len(beginning)])


def served_template(
    encoder: Encoder, anchors: Mapping[str, ServedAnchor], thinking: Thinking
) -> str:
    """Write the template of one task, or of several, of which `chat_template_kwargs` chooses one.

    Args:
        encoder: Tokenizer and renderer of the training.
        anchors: The anchors by task.
        thinking: The setting of the training.
    """
    renderer, keeps = encoder.renderer, _literal(thinking == "keep")
    base = renderer.template
    values = {name: anchor.values() for name, anchor in anchors.items()}
    if len(values) == 1:
        ((name, value),) = values.items()
        about = f"The anchor of the task {name} is put on every prompt"
        chosen = f"{{%- set tell_task = {_literal(value)} %}}\n"
    else:
        about = 'chat_template_kwargs: {"task": NAME} says whose anchor is put on the prompt'
        chosen = f"{{%- set tell_tasks = {_literal(values)} %}}\n{_CHOICE}"
    about = about.replace("#}", "# }")
    beginning = [
        f"{{#- {about}; the template of the base follows.\n"
        "    Written by `tell_lightning export`. -#}\n",
        chosen,
        f"{{%- set tell_control = {_literal(sorted(renderer.control.texts))} %}}\n",
        f"{{%- set tell_keeps = {_literal(not renderer.thinks or thinking == 'keep')} %}}\n",
        _MESSAGES.replace("    {#- parts #}", _PARTS if _takes_parts(encoder) else "", 1),
        _FOLDED if renderer.folds_system else "",
        _THINKING.replace("KEEPS", keeps) if "enable_thinking" in renderer.template else "",
        "{%- set messages = tell.turns " + ("-%}\n" if base[:1].strip() else "%}\n"),
    ]
    if not any(anchor.forced for anchor in anchors.values()):
        return "".join(beginning) + base
    # Without what follows, Jinja leaves out a line break at the end.
    ending = "{{ tell_task['forced'] if add_generation_prompt else '' }}"
    return "".join(beginning) + base.removesuffix("\n") + ending


def _literal(value: Any) -> str:
    """Write plain values as Jinja reads them: JSON with its true and false, and letters as such."""
    return json.dumps(value, ensure_ascii=False)


def _takes_parts(encoder: Encoder) -> bool:
    """Say whether the template goes through a content that is a list of parts."""
    import jinja2

    parts = [{"type": "text", "text": "Question"}]
    try:
        text = encoder.tokenizer.apply_chat_template(
            [{"role": "user", "content": parts}],
            chat_template=encoder.renderer.template,
            tokenize=False,
        )
    except (jinja2.TemplateError, TypeError, ValueError):
        return False
    return "Question" in text and "'type'" not in text
