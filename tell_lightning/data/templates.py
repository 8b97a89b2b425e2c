r"""Render examples with the chat template, for training, evaluation, prediction and export.

A conversation becomes segments of context and supervised text, or the prompt that generation starts
from. Both have the same characters. The same data always give the same text: dates in a template
are fixed. A conversation takes two to four renderings, however many turns it has.

With the plain template, ``user: Halló, assistant: Hello`` becomes::

    ### User:\nHalló\n\n### Assistant:\n   context: what prompt_text returns
    Hello</s>                              supervised: the response and the end-of-turn token

Some templates render a response in another way once a further turn follows it: Qwen3 leaves out the
thinking, Mistral moves the system text to the last user turn. Then each response gets a row of its
own, behind the prompt that generation would start from (`split`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from tell_lightning.data.control import THINKING, ControlTokens
from tell_lightning.data.formats import cut
from tell_lightning.data.forms import Forms
from tell_lightning.data.records import Conversation, Turn
from tell_lightning.errors import TellError
from tell_lightning.metrics.predictions import split_thinking

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


_WHITE_SPACE = re.compile(r"\s*")


class TemplateError(TellError):
    """A chat template that cannot render an example for training and generation."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered conversation; only supervised pieces are trained on.

    In the text, control tokens that a turn spells are marked (`data.control`).
    """

    text: str
    supervised: bool


class Renderer:
    """Renders examples with the tokenizer's chat template, or with a plain one if it has none.

    Attributes:
        template: The template in use.
        template_digest: SHA-256 of the template, and of `thinking` if it is not the default.
        is_plain: Whether the tokenizer has no template.
        thinks: Whether the template knows thinking, the text between <think> and </think>.
        control: The tokens that only the template may write.
        written: The tokens of the tokenizer that the template does write.
        folds_system: Whether the template has no system role. The system text then begins the
            first user turn.
        stop_texts: Tokens that end a response: the template's end of turn, then end of sequence.
        stop_ids: The ids of these tokens.
    """

    def __init__(self, tokenizer: Any, thinking: Literal["strip", "keep"] = "strip") -> None:
        """Choose the template, and render a question and its answer to learn how it works.

        Args:
            tokenizer: A Hugging Face tokenizer.
            thinking: strip: a template that knows thinking renders responses without it; keep: with
                it, and generation may think.

        Raises:
            TemplateError: The tokenizer has no end-of-sequence token or no default template, or
                the template cannot render a question and its answer.
        """
        if not tokenizer.eos_token:
            raise TemplateError(
                "tokenizer: it needs an eos_token, got none: no response would ever end. "
                "Set eos_token in the model's tokenizer_config.json."
            )
        self._tokenizer, self._keeps_thinking = tokenizer, thinking == "keep"
        self.template = _template(tokenizer.chat_template)
        kept = "thinking" if self._keeps_thinking else ""
        self.template_digest = hashlib.sha256((self.template + kept).encode()).hexdigest()
        self._forms = Forms(tokenizer, self.template, {"enable_thinking": self._keeps_thinking})
        self.is_plain = self.template == PLAIN_TEMPLATE
        self.thinks = THINKING[1] in self.template
        self._strips_thinking = self.thinks and not self._keeps_thinking
        eos = str(tokenizer.eos_token)
        added = {str(t.content): bool(t.special) for t in tokenizer.added_tokens_decoder.values()}
        special = {token for token, flag in added.items() if flag} | {eos}
        self.control = ControlTokens(special)
        asked, answered = Turn("user", "Question"), Turn("assistant", "Answer")
        where = "chat template"
        full = self._render((asked, answered), where)
        prompt = self._render((asked,), where, generation=True)
        self._tail = prompt[prompt.rindex(asked.content) + len(asked.content) :]
        behind = full[full.rindex(answered.content) + len(answered.content) :].lstrip()
        self._end = _longest_start(behind, {*added, eos})
        # Some tokenizers have tokens for the turns that are not flagged as special.
        self.written = {token for token in added if token in full + prompt}
        self.control = ControlTokens(special | {t for t in self.written if not t.isalnum()})
        self.segments(Conversation("", where, (asked, answered), {}))
        self.folds_system = not self._can_render((Turn("system", "System"), asked))
        self.stop_texts = tuple(dict.fromkeys((self._end or eos, eos)))
        self.stop_ids = tuple(int(tokenizer.convert_tokens_to_ids(t)) for t in self.stop_texts)

    def segments(self, example: Conversation) -> tuple[Segment, ...]:
        """Render an example as alternating context and supervised responses.

        Joined, the segments are the rendered conversation: up to its last end-of-turn token, or up
        to the generation prompt if the user has the last turn. Only the last response is supervised
        if `split` would give each response a row of its own.

        Raises:
            TemplateError: The template changes the text, or does not render it at all.
        """
        turns = self._settled(example.turns)
        whole = None if example.last_only else self._whole(turns, example.where)
        if whole is not None:
            return whole
        if turns[-1].role != "assistant":
            return (Segment(self._prompt(turns, example.where), False),)
        return self._last(turns, example.where)

    def split(self, example: Conversation) -> list[int]:
        """Return the number of turns of each row that an example becomes; usually it is one row."""
        ends = [n for n, turn in enumerate(example.turns, start=1) if turn.role == "assistant"]
        if len(ends) < 2 or self._whole(self._settled(example.turns), example.where):
            return [len(example.turns)]
        return ends

    def prompt_text(self, example: Conversation) -> str:
        """Render everything before the response of an example: the start of generation.

        Raises:
            TemplateError: As ``segments``.
        """
        return self._prompt(self._settled(example.prompt_turns), example.where)

    def spells_control(self, example: Conversation) -> bool:
        """Say whether a turn spells a control token, which is read as ordinary text."""
        return any(self.control.are_in(turn.content) for turn in example.turns)

    def strips_thinking(self, example: Conversation) -> bool:
        """Say whether a response has thinking that is left out."""
        return self._strips_thinking and any(
            split_thinking(turn.content)[0] for turn in example.turns if turn.role == "assistant"
        )

    def _settled(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        """Return the turns as the template gets them."""
        if turns[0].role == "system" and self.folds_system:
            system, first, *rest = turns
            turns = (Turn("user", f"{system.content}\n\n{first.content}"), *rest)
        return tuple(Turn(turn.role, self._content(turn)) for turn in turns)

    def _content(self, turn: Turn) -> str:
        content = turn.content
        if turn.role == "assistant" and self._strips_thinking:
            content = split_thinking(content)[1]
        return self.control.mark(content)

    def _prompt(self, turns: Sequence[Turn], where: str) -> str:
        """Render the turns up to a response, whose earlier responses end as they are trained."""
        whole = self._whole(turns, where)
        if whole is None:
            return self._render(turns, where, generation=True)
        return "".join(segment.text for segment in whole)

    def _whole(self, turns: Sequence[Turn], where: str) -> tuple[Segment, ...] | None:
        """Render a conversation at once.

        Returns:
            Its segments; None if the template renders a prompt differently when a response follows.
        """
        open_end = turns[-1].role != "assistant"
        try:
            rendered = self._render(turns, where, generation=open_end)
        except TemplateError:
            return None
        segments: list[Segment] = []
        start = done = 0
        for question, answer in pairwise(turns):
            if answer.role != "assistant":
                continue
            start, end, text = self._exchange(rendered, done, question.content, answer.content)
            if not end:
                return None
            segments += [Segment(rendered[done:start], False), Segment(text, True)]
            done = end
        if open_end:
            return (*segments, Segment(rendered[done:], False))
        if rendered[:start] != self._render(turns[:-1], where, generation=True):
            return None
        return tuple(segments)

    def _exchange(
        self, rendered: str, done: int, question: str, answer: str
    ) -> tuple[int, int, str]:
        """Find a question and its answer, written like those that `__init__` tried out.

        Returns:
            The end of the prompt, the end of the response, and its text; zeros if they are not
            there.
        """
        asked = question.strip()
        gap = question[len(question.rstrip()) :]
        at = rendered.find(asked, done)
        while at >= 0:
            for tail in (self._tail, gap + self._tail):
                start = at + len(asked) + len(tail)
                if rendered.startswith(tail, at + len(asked)):
                    end, text = self._response(rendered, start, answer)
                    if end:
                        return start, end, text
            at = rendered.find(asked, at + 1)
        return 0, 0, ""

    def _last(self, turns: Sequence[Turn], where: str) -> tuple[Segment, ...]:
        """Render the last response behind the prompt that generation would start from."""
        prompt = self._prompt(turns[:-1], where)
        asked, answer = turns[-2:]
        opening = self._render((asked,), where, generation=True)
        exchange = self._render((asked, answer), where)
        start, lead = len(opening), ""
        if not exchange.startswith(opening) and opening.rstrip().endswith(THINKING[0]):
            # The generation prompt opens the thinking, and the rendered answer has none.
            start = opening.rindex(THINKING[0])
            thought, content = _thought(answer.content)
            answer, lead = Turn("assistant", content), f"{thought}\n{THINKING[1]}\n\n"
        if not exchange.startswith(opening[:start]):
            raise TemplateError(
                f"{where}: the chat template must render a prompt alike with and without its "
                f"response, got {cut(self.control.unmark(opening[-40:]))} before response "
                f"{len(turns) - 1}. {_WAY_OUT}"
            )
        end, text = self._response(exchange, start, answer.content)
        if not end:
            raise TemplateError(
                f"{where}: the chat template must write the response unchanged behind the "
                f"generation prompt, got {cut(self.control.unmark(exchange[start : start + 60]))} "
                f"instead of {cut(self.control.unmark(answer.content.strip()[:60]))}. {_WAY_OUT}"
            )
        return Segment(prompt, False), Segment(lead + text.lstrip() if lead else text, True)

    def _response(self, rendered: str, start: int, content: str) -> tuple[int, str]:
        """Read a response, white space and its end-of-turn token included.

        Args:
            rendered: The rendered conversation.
            start: Where its prompt ends.
            content: The response.

        Returns:
            Its end and its text; 0 and nothing if it does not stand there.
        """
        end = _behind(rendered, start, [content])
        if not end and self.thinks:
            thought, answer = _thought(content)
            end = _behind(rendered, start, [THINKING[0], thought, THINKING[1], answer])
        if not end:
            return 0, ""
        if self._end and (behind := _behind(rendered, end, [self._end])):
            return behind, rendered[start:behind]
        return end, rendered[start:end] + str(self._tokenizer.eos_token)

    def _can_render(self, turns: Sequence[Turn]) -> bool:
        try:
            self._render(turns, "chat template", generation=True)
        except TemplateError:
            return False
        return True

    def _render(self, turns: Sequence[Turn], where: str, generation: bool = False) -> str:
        written = self._forms.render(turns, generation)
        return self._run(turns, where, generation) if written is None else written

    def _run(self, turns: Sequence[Turn], where: str, generation: bool) -> str:
        """Run the template."""
        import jinja2

        try:
            text = self._tokenizer.apply_chat_template(
                [{"role": turn.role, "content": turn.content} for turn in turns],
                chat_template=self.template,
                tokenize=False,
                add_generation_prompt=generation,
                enable_thinking=self._keeps_thinking,
            )
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise TemplateError(_refused(where, str(error))) from error
        for turn in turns:
            content = split_thinking(turn.content)[1] if self.thinks else turn.content
            if content.strip() not in text:
                raise TemplateError(_refused(where, f"no {turn.role} text in the result"))
        return str(text)


def _thought(response: str) -> tuple[str, str]:
    """Return the text between the tags of thinking, and the text behind them."""
    thinking, answer = split_thinking(response)
    return thinking.strip().removeprefix(THINKING[0]).removesuffix(THINKING[1]).strip(), answer


def _behind(text: str, start: int, parts: Sequence[str]) -> int:
    """Return the end of parts that follow each other, with white space before each; 0: they do not.

    >>> _behind("a: b c.", 2, ["b", "c"])
    6
    """
    for part in map(str.strip, parts):
        start = _WHITE_SPACE.match(text, start).end()  # type: ignore[union-attr]
        if not text.startswith(part, start):
            return 0
        start += len(part)
    return start


def _longest_start(text: str, tokens: Iterable[str]) -> str:
    """Return the longest token that a text begins with; nothing if there is none."""
    return max(
        (token for token in tokens if token.strip() and text.startswith(token)), key=len, default=""
    )


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


def _refused(where: str, problem: str) -> str:
    return f"{where}: the chat template must render the conversation, got: {problem}. {_WAY_OUT}"
