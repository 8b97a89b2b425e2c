"""What the metrics are computed from: one scored row, its answer and its reference.

A `Prediction` holds text and counts only, so it can be gathered over ranks, written to JSONL and
scored again later.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tell_lightning.errors import TellError
from tell_lightning.metrics.characters import composed


class MetricError(TellError):
    """Predictions that cannot be scored as configured."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """One answer beside what it should have been."""

    id: str
    """Id of the row; every row of an evaluation set comes once."""
    prediction: str
    """The answer, without the response prefix and without outer white space."""
    reference: str | None
    """The right answer in the same form; None where the row has none."""
    row: Mapping[str, object]
    """The fields of the row as they were read."""
    stopped: bool
    """Whether a stop token ended the answer; else it reached the length cap."""
    prefix_found: bool | None
    """Whether the answer began with the response prefix; None: the task has no response prefix."""
    new_tokens: int
    """Tokens generated, the stop token not counted."""
    prompt_tokens: int = 0
    """Tokens of the prompt, template and anchor included; 0 where nothing was generated."""
    prompt_sha256: str = ""
    """Digest of the prompt's token ids; empty where nothing was generated."""
    logprob: float | None = None
    """Log-probability of the answer in nats, the stop token included; None where unknown."""
    near_ties: int = 0
    """Tokens, the stop token included, whose two best logits differ by so little that rounding may
    decide: in float32 by less than 1e-4, and only there may another batch or number of processes
    give another answer."""


def split_thinking(text: str) -> tuple[str, str]:
    r"""Split a response into its thinking, with the tags and white space around it, and the rest.

    >>> split_thinking("<think>Hm.</think>\n\nYes.")
    ('<think>Hm.</think>\n\n', 'Yes.')
    >>> split_thinking("Hm.</think> Yes."), split_thinking("Yes.")
    (('Hm.</think> ', 'Yes.'), ('', 'Yes.'))
    """
    thinking, tag, rest = text.rpartition("</think>")
    answer = rest.lstrip()
    return (thinking + tag + rest[: len(rest) - len(answer)], answer) if tag else ("", text)


def texts_of(predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    """Return the answers, and the references in the same order, in composed characters."""
    answers = [composed(prediction.prediction) for prediction in predictions]
    return answers, [composed(prediction.reference or "") for prediction in predictions]


def strip_prefix(text: str, response_prefix: str | None) -> tuple[str, bool | None]:
    r"""Take the thinking and the response prefix off an answer, and then its outer white space.

    Runs of white space count as equal, whatever they consist of; the prefix is looked for at the
    start of the text alone, once.

    Args:
        text: An answer as generated, or a reference as read.
        response_prefix: The anchor's response prefix; None or blank where the task has none.

    Returns:
        The stripped text, and whether the prefix was there (None: there is no prefix to look for).

    >>> strip_prefix("Sure: \n\n Halló.\n", "Sure:\n")
    ('Halló.', True)
    >>> strip_prefix(" Halló. Sure: ", "Sure:\n")
    ('Halló. Sure:', False)
    """
    text = split_thinking(text)[1]
    words = (response_prefix or "").split()
    if response_prefix is None or not words:
        return text.strip(), None
    end = r"(?:\s+|\Z)" if response_prefix[-1].isspace() else ""
    found = re.match(r"\s*" + r"\s+".join(map(re.escape, words)) + end, text)
    return text[found.end() if found else 0 :].strip(), found is not None
