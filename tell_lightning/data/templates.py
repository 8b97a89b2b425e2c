r"""Render examples with the chat template, for training, evaluation, prediction and export.

A conversation becomes segments of context and supervised text, or the prompt that generation starts
from. Both agree to the letter. The same data always give the same text: dates in a template are
fixed, and thinking is switched off. An example takes two renderings, a tenth of a millisecond.

With the plain template, ``user: Halló, assistant: Hello`` becomes::

    ### User:\nHalló\n\n### Assistant:\n   context: what prompt_text returns
    Hello</s>                              supervised: the response and the end-of-turn token
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tell_lightning.data.formats import cut
from tell_lightning.data.records import Conversation, Turn
from tell_lightning.errors import TellError

PLAIN_TEMPLATE = """\
{%- if bos_token %}{{ bos_token }}{% endif %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'user' %}{{ '### User:\\n' + message['content'] + '\\n\\n' }}
{%- else %}{{ '### Assistant:\\n' + message['content'] + eos_token + '\\n\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}"""
# Templates that write today's date get the date that Llama 3 writes without a clock.
_FIXED_DATE = """\
{%- macro strftime_now(format) -%}
{{- format | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26')
    | replace('%B', 'July') | replace('%b', 'Jul') | replace('%A', 'Friday') -}}
{%- endmacro %}"""
_WAY_OUT = (
    "Change chat_template in the model's tokenizer folder, or remove it to use the plain template."
)


class TemplateError(TellError):
    """A chat template that cannot render an example for training and generation."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered conversation; only supervised pieces are trained on."""

    text: str
    supervised: bool


class Renderer:
    """Renders examples with the tokenizer's chat template, or with a plain one if it has none.

    Attributes:
        template: The template in use.
        template_digest: SHA-256 of the template.
        stop_texts: Tokens that end a response: the template's end of turn, then end of sequence.
        stop_ids: The ids of these tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Choose the template and find the end-of-turn token.

        Raises:
            TemplateError: The tokenizer has no end-of-sequence token or no default template, or
                the template cannot render a question and its answer.
        """
        if not tokenizer.eos_token:
            raise TemplateError(
                "tokenizer: it needs an eos_token, got none: no response would ever end. "
                "Set eos_token in the model's tokenizer_config.json."
            )
        self._tokenizer = tokenizer
        self._special = sorted(
            {str(t.content) for t in tokenizer.added_tokens_decoder.values() if t.special}
            | {str(tokenizer.eos_token)},
            key=len,
            reverse=True,
        )
        self.template = _template(tokenizer.chat_template)
        self.template_digest = hashlib.sha256(self.template.encode()).hexdigest()
        probe = (Turn("user", "Question"), Turn("assistant", "Answer"))
        answer = self.segments(Conversation("", "chat template", probe, {}))[-1].text
        end = answer.strip().removeprefix("Answer").strip()
        self.stop_texts = tuple(dict.fromkeys((end, str(tokenizer.eos_token))))
        self.stop_ids = tuple(int(tokenizer.convert_tokens_to_ids(t)) for t in self.stop_texts)

    def segments(self, example: Conversation) -> tuple[Segment, ...]:
        """Render an example as alternating context and supervised responses.

        Joined, the segments are the rendered conversation: up to its last end-of-turn token, or up
        to the generation prompt if the user has the last turn.

        Raises:
            TemplateError: The template changes the text, or renders a prompt differently when a
                response follows.
        """
        turns, where = example.turns, example.where
        open_end = turns[-1].role != "assistant"
        rendered = self._render(turns, where, open_end)
        segments: list[Segment] = []
        done = 0
        for index, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            prompt = self._render(turns[:index], where, generation=True)
            if not rendered.startswith(prompt) or len(prompt) < done:
                raise TemplateError(
                    f"{where}: the chat template must render a prompt alike with and without its "
                    f"response, got {cut(prompt[-40:])} before response {index}. {_WAY_OUT}"
                )
            end, supervised = self._response(rendered, len(prompt), turn.content.strip(), where)
            segments += [Segment(prompt[done:], False), Segment(supervised, True)]
            done = end
        if open_end:
            segments.append(Segment(rendered[done:], False))
        return tuple(segments)

    def prompt_text(self, example: Conversation) -> str:
        """Render everything before the response of an example: the start of generation.

        Raises:
            TemplateError: As ``segments``.
        """
        prompt = replace(example, turns=example.prompt_turns)
        return "".join(segment.text for segment in self.segments(prompt))

    def _response(self, rendered: str, start: int, content: str, where: str) -> tuple[int, str]:
        """Return the end of a response, after its end-of-turn token, and the text up to there."""
        lead = len(rendered) - len(rendered[start:].lstrip())
        if not rendered.startswith(content, lead):
            raise TemplateError(
                f"{where}: the chat template must write the response unchanged behind the "
                f"generation prompt, got {cut(rendered[start : start + 60])} instead of "
                f"{cut(content[:60])}. {_WAY_OUT}"
            )
        end = lead + len(content)
        behind = len(rendered) - len(rendered[end:].lstrip())
        for token in self._special:
            if rendered.startswith(token, behind):
                return behind + len(token), rendered[start : behind + len(token)]
        return end, rendered[start:end] + str(self._tokenizer.eos_token)

    def _render(self, turns: Sequence[Turn], where: str, generation: bool) -> str:
        import jinja2

        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in turns],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=generation,
                enable_thinking=False,
            )
        except jinja2.TemplateError as error:
            raise TemplateError(_refused(turns, where, str(error))) from error
        for turn in turns:
            if turn.content.strip() not in text:
                raise TemplateError(_refused(turns, where, f"no {turn.role} text in the result"))
        return str(text)


def _template(given: object) -> str:
    if given is None or given == "":
        return PLAIN_TEMPLATE
    chosen = given.get("default") if isinstance(given, Mapping) else given
    if not isinstance(chosen, str):
        names = ", ".join(given) if isinstance(given, Mapping) else type(given).__name__
        raise TemplateError(
            f"tokenizer: of several chat templates one must be called default, got {names}. "
            f"{_WAY_OUT}"
        )
    return _FIXED_DATE + chosen if "strftime_now" in chosen else chosen


def _refused(turns: Sequence[Turn], where: str, problem: str) -> str:
    if turns[0].role == "system":
        return (
            f"{where}: the chat template must have a system role, got: {problem}. Set "
            "anchor.position: prefix, and leave fields.system out."
        )
    return f"{where}: the chat template must render the conversation, got: {problem}. {_WAY_OUT}"
