"""How a task is scored, as the configuration says it. No torch, no Lightning."""

from dataclasses import dataclass, field
from typing import Any, Literal

Tokenizer = Literal[
    "auto", "13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none"
]
"""How BLEU divides texts into words, by sacreBLEU's names."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A prediction that needs no model: what a score is worth is seen beside it. Give one key."""

    field: str | None = None
    """Field of the row that holds the prediction, such as the source text."""
    text: str | None = None
    """The same prediction for every row, such as '{"hallucination": "yes"}'."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How the predictions of one task become numbers."""

    kind: str = "text"
    """translation: BLEU, chrF and TER. classification: one of a set of labels. judge: the labels no
    and yes, in JSON with a thought. json: the fields of a JSON value. text: exact match alone. Or
    the class path of a torchmetrics metric or of a class of your own:
    torchmetrics.text.WordErrorRate, package.module.Class, path/to/file.py:Class."""
    init_args: dict[str, Any] = field(default_factory=dict)
    """Arguments of that class; a list is passed as a tuple."""
    primary: str | None = None
    """The score that adapters are chosen by; null: the kind's own."""
    label_key: str | None = None
    """Key of the JSON answer that holds the label; null: the answer is the label, of a judge
    "hallucination" (classification, judge)."""
    thought_key: str | None = None
    """Key of the JSON answer that holds its reason, which predictions files keep apart; null: none,
    of a judge "thought" (classification, judge)."""
    labels: tuple[str, ...] | None = None
    """The labels that exist; null: those of the references, of a judge no and yes (classification,
    judge)."""
    positive: str | None = None
    """The label that precision, recall and F1 are of; null: their mean over the labels, of a judge
    those of yes (classification, judge)."""
    tokenize: Tokenizer = "auto"
    """How BLEU divides texts into words, by sacreBLEU's names (translation). auto: by the script of
    the references: zh for Chinese, char where there are no spaces between words either, else 13a.
    ja-mecab and ko-mecab need packages: pip install 'sacrebleu[ja]' or 'sacrebleu[ko]'."""
    words_field: str | None = None
    """Field with a list of words that the prediction must hold; their share is reported apart."""
    function: str | None = None
    """Scores of your own, `path.py:name`: the function gets the answers, the references and the
    rows as three lists, and returns numbers by name. It runs as your code, at every evaluation."""
    baselines: dict[str, Baseline] = field(default_factory=dict)
    """Predictions without a model that are scored beside the model, by name."""
    floors: dict[str, Baseline] = field(default_factory=dict)
    """The old name of baselines."""

    def __post_init__(self) -> None:
        """Take what is given by its old name."""
        if self.floors:
            object.__setattr__(self, "baselines", {**self.floors, **self.baselines})
            object.__setattr__(self, "floors", {})
