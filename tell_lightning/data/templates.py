"""Examples as the model's text: the one renderer of training, evaluation, prediction and export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from tell_lightning.data.anchors import Example
from tell_lightning.data.records import Record
from tell_lightning.errors import TellError


class TemplateError(TellError):
    """A chat template that cannot render an example as training and generation need it."""


class Tokenizer(Protocol):
    """What the renderer needs of a Hugging Face tokenizer."""

    chat_template: Any
    eos_token: Any

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any: ...

    def convert_tokens_to_ids(self, tokens: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered conversation; the loss is on the supervised ones."""

    text: str
    supervised: bool


class Renderer:
    """Renders examples with the tokenizer's chat template, or a plain one where it has none."""

    template: str
    template_digest: str
    stop_texts: tuple[str, ...]
    stop_ids: tuple[int, ...]

    def __init__(self, tokenizer: Tokenizer) -> None:
        raise NotImplementedError

    def segments(self, example: Example | Record) -> tuple[Segment, ...]:
        """Context and responses in turn; their concatenation is the rendered conversation."""
        raise NotImplementedError

    def prompt_text(self, example: Example | Record) -> str:
        """Everything up to the response: what generation starts from."""
        raise NotImplementedError
