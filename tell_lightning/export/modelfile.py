r"""Write an Ollama `Modelfile`, whose template puts the anchor on by itself.

Ollama renders prompts by a Go template, not by the chat template of the base. What stands between
the turns is learnt by rendering a conversation of marks with the base's own template:

    <|im_start|>user\n  U1  <|im_end|>\n<|im_start|>assistant\n  A1  <|im_end|>\n...

The Go template writes the same between the turns that Ollama has, and the anchor as the exported
chat template does. A base whose template does not write turns alike wherever they stand has none.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from tell_lightning.data.records import Conversation, Turn
from tell_lightning.data.tokens import Encoder
from tell_lightning.errors import TellError
from tell_lightning.export.chat_template import ServedAnchor


class ModelfileError(TellError):
    """A base for which no Modelfile can be written."""


@dataclass(frozen=True)
class TurnTexts:
    """What a chat template writes around turns."""

    head: str
    """Before the first user turn of a conversation without a system turn."""
    system_head: str
    """Before a system turn."""
    after_system: str
    """Between a system turn and the first user turn."""
    answer: str
    """Between a user turn and the answer to it."""
    further: str
    """Between an answer and the next user turn."""
    tail: str
    """Behind the last user turn, where the answer begins."""

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Write a prompt: an optional system turn, then user and assistant in turn."""
        parts, before = [], self.head
        for turn in turns:
            if turn.role == "system":
                parts += [self.system_head, turn.content]
                before = self.after_system
            elif turn.role == "user":
                parts += [before, turn.content]
            else:
                parts += [self.answer, turn.content]
                before = self.further
        return "".join([*parts, self.tail])


def turn_texts(encoder: Encoder) -> TurnTexts:
    """Learn what the base's chat template writes around turns.

    A beginning-of-sequence token is left out where the tokenizer puts it on by itself, as Ollama
    then does.

    Raises:
        ModelfileError: The template writes turns differently from place to place.
    """
    system = Turn("system", "Mark0")
    turns = [Turn("user" if n % 2 else "assistant", f"Mark{n}") for n in range(1, 6)]
    rest = _rendered(encoder, [system, *turns])
    pieces = []
    for n in range(6):
        piece, mark, rest = rest.partition(f"Mark{n}")
        if not mark:
            raise _no_template(f"a conversation in which turn {n} is missing or elsewhere")
        pieces.append(piece)
    texts = TurnTexts(
        head=_rendered(encoder, turns[:1]).partition("Mark1")[0],
        system_head=pieces[0],
        after_system=pieces[1],
        answer=pieces[2],
        further=pieces[3],
        tail=rest,
    )
    for sample in ([system, *turns], [system, *turns[:3]], [system, turns[0]], turns, turns[:1]):
        if texts.prompt(sample) != _rendered(encoder, sample):
            raise _no_template(f"another text around the turns of a conversation of {len(sample)}")
    return texts


def modelfile(
    texts: TurnTexts,
    anchor: ServedAnchor,
    *,
    model: str,
    adapter: str | None,
    stop: Sequence[str],
    temperature: float,
    max_new_tokens: int,
) -> str:
    """Write a Modelfile.

    Args:
        texts: What stands around the turns.
        anchor: What is put on the prompts.
        model: The GGUF file of the model, or of the base of the adapter.
        adapter: The GGUF file of the adapter; None: it is merged.
        stop: The texts that end an answer.
        temperature: 0: greedy.
        max_new_tokens: Longest answer in tokens.
    """
    carried = anchor.anchor
    lines = [f"FROM {model}", *([f"ADAPTER {adapter}"] if adapter else [])]
    lines.append(f'TEMPLATE """{go_template(texts, anchor)}"""')
    if carried.position == "system" and _can_stand_quoted(carried.text):
        lines.append(f'SYSTEM """{carried.text}"""')
    lines += [f"PARAMETER stop {_parameter(text)}" for text in dict.fromkeys(stop)]
    lines.append(f"PARAMETER temperature {temperature:g}")
    if temperature:
        lines += ["PARAMETER top_k 0", "PARAMETER top_p 1", "PARAMETER min_p 0"]
    lines += ["PARAMETER repeat_penalty 1", f"PARAMETER num_predict {max_new_tokens}"]
    return "\n".join(lines) + "\n"


def go_template(texts: TurnTexts, anchor: ServedAnchor) -> str:
    """Write the template: the turns of a caller, each with what training put on it.

    A turn that begins with the anchor already stays as it is. A suffix is put on in any case: Go
    templates cannot compare the end of a text.
    """
    carried = anchor.anchor
    system = carried.position == "system"
    user_turn = "{{ .Content }}" if system else _anchored(anchor)
    system_turn = _anchored(anchor) if system else "{{ .Content }}"
    head = texts.head
    if carried.text and system:
        head = texts.system_head + carried.text + texts.after_system
    response = _with_beginning(carried.response_prefix, "", carried.response_prefix.strip())
    return "".join(
        [
            f"{{{{ $before := {_literal(head)} }}}}",
            "{{ range .Messages }}",
            '{{ if eq .Role "system" }}',
            f"{_text(texts.system_head)}{system_turn}",
            f"{{{{ $before = {_literal(texts.after_system)} }}}}",
            '{{ else if eq .Role "user" }}',
            f"{{{{ $before }}}}{user_turn}",
            '{{ else if eq .Role "assistant" }}',
            f"{_text(texts.answer)}{response}",
            f"{{{{ $before = {_literal(texts.further)} }}}}",
            "{{ end }}{{ end }}",
            _text(texts.tail + anchor.forced),
        ]
    )


def _anchored(anchor: ServedAnchor) -> str:
    """Write a turn with the anchor on it."""
    carried = anchor.anchor
    if not carried.text:
        return "{{ .Content }}"
    if carried.position == "suffix":
        return (
            f"{{{{ .Content }}}}{{{{ if .Content }}}}{_text(carried.separator)}{{{{ end }}}}"
            f"{_text(carried.text)}"
        )
    return _with_beginning(carried.text, carried.separator, carried.text.strip())


def _with_beginning(text: str, separator: str, core: str) -> str:
    """Write a turn behind a text, unless it begins with the core of it."""
    if not text:
        return "{{ .Content }}"
    size = len(core.encode())  # Go counts bytes
    begins = f"and (ge (len .Content) {size}) (eq (slice .Content 0 {size}) {_literal(core)})"
    between = f"{{{{ if .Content }}}}{_text(separator)}{{{{ end }}}}" if separator else ""
    return (
        f"{{{{ if {begins} }}}}{{{{ else }}}}{_text(text)}{between}{{{{ end }}}}{{{{ .Content }}}}"
    )


def _text(text: str) -> str:
    """Write a fixed text as an action, so that no white space of it is lost."""
    return f"{{{{ {_literal(text)} }}}}" if text else ""


def _literal(text: str) -> str:
    """Write a text as Go does; Ollama drops what is not printable, such as a no-break space."""
    written = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in written)


def _can_stand_quoted(text: str) -> bool:
    """Say whether a text can stand between three quotes as it is; the template has it anyway."""
    return bool(text) and '"""' not in text and all(c.isprintable() or c in "\n\t" for c in text)


def _parameter(text: str) -> str:
    return f'"""{text}"""' if '"' in text or "\n" in text else f'"{text}"'


def _rendered(encoder: Encoder, turns: Sequence[Turn]) -> str:
    conversation = Conversation("", "Modelfile", tuple(turns), {})
    text = encoder.renderer.prompt_text(conversation)
    tokenizer = encoder.tokenizer
    first = tokenizer("Mark").input_ids[:1]
    if tokenizer.bos_token and first == [tokenizer.bos_token_id]:
        return text.removeprefix(tokenizer.bos_token)
    return text


def _no_template(got: str) -> ModelfileError:
    return ModelfileError(
        "Modelfile: the base's chat template must write turns alike wherever they stand, for "
        f"Ollama has another language of templates, got {got}. Serve it by llama-server, which "
        "reads the chat template."
    )
