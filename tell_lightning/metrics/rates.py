"""Rates of every task, whatever its kind: empty, stopped, prefix found, listed words present.

They are shares from 0 to 1 of one prediction or more.
"""

from collections import Counter
from collections.abc import Sequence

from tell_lightning.metrics.characters import composed, count_word
from tell_lightning.metrics.predictions import MetricError, Prediction


def empty_rate(answers: Sequence[str]) -> float:
    """Compute the share of answers that hold no more than white space."""
    return sum(not answer.strip() for answer in answers) / len(answers)


def generation_rates(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Compute how generation ended and began.

    Returns:
        `stop_rate` (share ended by a stop token), `cap_rate` (share cut at the length cap, the
        rest), `mean_new_tokens` (tokens per answer), `near_ties` (tokens that rounding could have
        decided) and, where the task has a response prefix, `prefix_rate` (share of answers that
        began with it).
    """
    rates = {
        "stop_rate": sum(p.stopped for p in predictions) / len(predictions),
        "cap_rate": sum(not p.stopped for p in predictions) / len(predictions),
        "mean_new_tokens": sum(p.new_tokens for p in predictions) / len(predictions),
        "near_ties": float(sum(p.near_ties for p in predictions)),
    }
    prefixes = [p.prefix_found for p in predictions if p.prefix_found is not None]
    if prefixes:
        rates["prefix_rate"] = sum(prefixes) / len(prefixes)
    return rates


def words_found(predictions: Sequence[Prediction], words_field: str) -> tuple[int, int]:
    """Count the words that rows list and that their answers hold.

    Whole words, whatever their case; in scripts without spaces, anywhere in the text. A word listed
    twice must be there twice. Their share is the
    lexical accuracy, for instance on words that training never showed.

    Args:
        predictions: Answers with their rows.
        words_field: Field of the row with the list of words; an empty list asks for nothing.

    Returns:
        Words found and words listed, summed over the rows.

    Raises:
        MetricError: A row lacks the field, or it holds no list of words.
    """
    found = listed = 0
    for prediction in predictions:
        for word, times in _listed_words(prediction, words_field).items():
            listed += times
            found += min(times, count_word(word, prediction.prediction))
    return found, listed


def _listed_words(prediction: Prediction, words_field: str) -> Counter[str]:
    words = prediction.row.get(words_field)
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) and w for w in words):
        raise MetricError(
            f"row {prediction.id!r}: field {words_field!r} must be a list of words, "
            f"got {words!r:.80}. Correct the row, or set scoring.words_field to another field or "
            "null."
        )
    return Counter(composed(word).casefold() for word in words)
