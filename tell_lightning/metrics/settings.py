"""How a task is scored, as the configuration says it. No torch, no Lightning."""

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["translation", "judge", "text"]


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A prediction that needs no model: what a score is worth is seen beside it. Give one key."""

    field: str | None = None
    """Field of the row that holds the prediction, such as the source text."""
    text: str | None = None
    """The same prediction for every row, such as '{"hallucination": "yes"}'."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the predictions of one task become numbers."""

    kind: Kind = "text"
    """translation: BLEU, chrF and TER; judge: a label read from JSON; text: exact match alone."""
    label_key: str = "hallucination"
    """Key of the JSON answer that holds the label (judge)."""
    thought_key: str = "thought"
    """Key of the JSON answer that holds its reason, which predictions files keep apart (judge)."""
    labels: tuple[str, ...] = ("no", "yes")
    """The labels that exist (judge)."""
    positive: str = "yes"
    """The label that precision, recall and F1 speak of (judge)."""
    words_field: str | None = None
    """Field with a list of words that the prediction must hold; their share is reported apart."""
    function: str | None = None
    """Scores of your own, `path.py:name`: the function gets the answers, the references and the
    rows as three lists, and returns numbers by name. It runs as your code, at every evaluation."""
    floors: dict[str, Floor] = field(default_factory=dict)
    """Model-free predictions that are scored beside the model, by name."""
