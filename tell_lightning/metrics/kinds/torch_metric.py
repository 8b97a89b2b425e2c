"""Kinds by class path that are torchmetrics metrics of texts. Loads torch.

The metric is given all answers and references once, on every rank, as two lists of texts; the
references as lists of one text where its `update` is typed so. It gives a number, which is called
after its class (`WordErrorRate`: word_error_rate), or numbers by name.

Intervals and comparisons draw rows again. They are exact where the metric's states are sums over
rows, and where the score is the mean of the scores of single rows; which of these holds is tried
out on the predictions. Any other metric has no interval.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import torch
from torchmetrics import Metric
from torchmetrics.text import WordInfoPreserved
from torchmetrics.utilities.data import dim_zero_sum

from tell_lightning.metrics.intervals import SEED, Numbers, RowSums
from tell_lightning.metrics.kinds.base import KindScores
from tell_lightning.metrics.kinds.text import Text, exact_sums
from tell_lightning.metrics.predictions import MetricError, Prediction, texts_of
from tell_lightning.metrics.score_facts import OF_EVERY_TASK, ScoreFacts
from tell_lightning.metrics.settings import Scoring
from tell_lightning.metrics.user_code import arguments_named, checked, errors_named

WHERE = "scoring.kind"
TRIAL = ["the first answer", "another one"], ["the first answer", "the other one"]
"""Answers and references on which a metric is tried before training."""
DRAWS = 3
"""Draws of rows on which a way to resample is tried, beside all rows."""
TOLERANCE = 1e-5
"""Scores this near to each other are equal: torchmetrics computes in float32."""

HIGHER_IS_BETTER: Mapping[type[Metric], bool] = {WordInfoPreserved: True}
"""What torchmetrics 1.9 says wrongly of its own."""

Texts = Sequence[str]


class TorchMetric(Text):
    """Exact match, and the scores of a torchmetrics metric."""

    def __init__(self, scoring: Scoring, metric: type[Metric]) -> None:
        """Build the metric and try it on two rows.

        Args:
            scoring: The settings, with the arguments of the metric.
            metric: Its class.

        Raises:
            MetricError: It cannot be built, scores no texts, or does not say what is better.
        """
        self._path = scoring.kind
        arguments = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in scoring.init_args.items()
        }
        with arguments_named(self._path):
            self._metric = metric(**arguments)
        for module in self._metric.modules():
            if isinstance(module, Metric):  # every rank has all rows: nothing is to be gathered
                module.distributed_available_fn = _never
        self._takes_lists = takes_lists(metric)
        with errors_named(WHERE, self._path):
            values = self._compute(*TRIAL)
        names = list(checked(WHERE, self._path, values, {*Text.facts, *OF_EVERY_TASK}))
        self.facts = {name: self._describe(name) for name in names} | dict(Text.facts)
        self.primary = names[0]
        self.table = (*names[:3], "words_recall", "stop_rate")
        self.report = (*names, "exact_match", "words_recall", "stop_rate")
        self.summary = self.table
        super().__init__(scoring)

    def score(self, predictions: Sequence[Prediction]) -> KindScores:
        """Score all predictions by one call of the metric."""
        return KindScores(exact_sums(predictions).whole() | self._compute(*texts_of(predictions)))

    def row_sums(self, predictions: Sequence[Prediction]) -> list[RowSums]:
        """Give the metric's states of each row, or its scores of each, where either is exact."""
        answers, references = texts_of(predictions)
        exact = exact_sums(predictions)
        for split in (self._states, self._means):
            with suppress(Exception):  # whatever it is: the metric does not take single rows
                sums = split(answers, references)
                if sums is not None and self._is_exact(sums, answers, references):
                    return [exact, sums]
        return [exact]

    def columns(self, answer: str, reference: str) -> dict[str, Any]:
        """Return the primary score of one row, beside whether it is exact."""
        value: float | None = None
        with suppress(Exception):  # whatever it is: the metric does not take single rows
            value = round(self._compute([answer], [reference])[self.primary], 4)
        return super().columns(answer, reference) | {self.primary: value}

    def _describe(self, name: str) -> ScoreFacts:
        higher = HIGHER_IS_BETTER.get(type(self._metric), self._metric.higher_is_better)
        if higher is None:
            raise MetricError(
                f"{WHERE}: {self._path} must say whether higher is better, got "
                "higher_is_better = None. Set it to True or False in the class."
            )
        better: Literal["higher", "lower"] = "higher" if higher else "lower"
        if getattr(self._metric, "plot_upper_bound", None) == 1:
            return ScoreFacts(name.replace("_", " "), "ratio", 3, better, "Metric")
        return ScoreFacts(name.replace("_", " "), better=better, group="Metric")

    def _compute(self, answers: Texts, references: Texts) -> dict[str, Any]:
        self._metric.reset()
        self._update(answers, references)
        return self._by_name(self._metric.compute())

    def _update(self, answers: Texts, references: Texts) -> None:
        wanted = [[text] for text in references] if self._takes_lists else list(references)
        self._metric.update(list(answers), wanted)

    def _by_name(self, found: Any) -> dict[str, Any]:
        values = found if isinstance(found, Mapping) else {_snake(type(self._metric)): found}
        return {
            name: value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
            for name, value in values.items()
        }

    def _means(self, answers: Texts, references: Texts) -> RowSums:
        """Score every row by itself."""
        rows = [self._compute([a], [r]) for a, r in zip(answers, references, strict=True)]
        return RowSums.means({name: [row[name] for row in rows] for name in rows[0]})

    def _states(self, answers: Texts, references: Texts) -> RowSums | None:
        """Take the metric's states of every row, where they are all summed over processes."""
        defaults, reductions = self._metric._defaults, self._metric._reductions
        if not defaults or any(reduce is not dim_zero_sum for reduce in reductions.values()):
            return None
        rows = []
        for answer, reference in zip(answers, references, strict=True):
            self._metric.reset()
            self._update([answer], [reference])
            states = [getattr(self._metric, name).flatten().double() for name in defaults]
            rows.append(torch.cat(states).numpy())

        def score(sums: Numbers) -> dict[str, Numbers]:
            found = [self._of_states(each) for each in sums.reshape(-1, sums.shape[-1])]
            shape = sums.shape[:-1]
            return {
                name: np.array([values[name] for values in found], dtype=np.float64).reshape(shape)
                for name in found[0]
            }

        return RowSums(np.array(rows), score)

    def _of_states(self, sums: Numbers) -> dict[str, Any]:
        """Compute the scores of summed states."""
        left = torch.from_numpy(sums)
        self._metric.reset()
        for name, default in self._metric._defaults.items():
            assert isinstance(default, torch.Tensor)
            part, left = left[: default.numel()], left[default.numel() :]
            setattr(self._metric, name, part.to(default.dtype).reshape(default.shape))
        # That of the class: the object's own warns that nothing was given to it.
        return self._by_name(type(self._metric).compute(self._metric))

    def _is_exact(self, sums: RowSums, answers: Texts, references: Texts) -> bool:
        """Try whether sums of rows give the metric's own scores, of all rows and of some draws."""
        size = len(answers)
        drawn = np.random.default_rng(SEED).integers(size, size=(DRAWS, size))
        for rows in (np.arange(size), *drawn):
            ours = sums.score(sums.rows[rows].sum(axis=0))
            theirs = self._compute([answers[i] for i in rows], [references[i] for i in rows])
            if not all(np.allclose(ours[n], theirs[n], TOLERANCE, TOLERANCE) for n in theirs):
                return False
        return True


def takes_lists(metric: type[Metric]) -> bool:
    """Say whether a metric wants a list of references for each answer, by the types of `update`.

    Given texts instead, torchmetrics' BLEU would take each letter for a reference, without a word.

    >>> from torchmetrics.text import BLEUScore, WordErrorRate
    >>> takes_lists(BLEUScore), takes_lists(WordErrorRate)
    (True, False)
    """
    try:
        hints = get_type_hints(metric.update)
    except Exception:  # a name that is known to a type checker alone
        return False
    (*_, wanted) = [hint for name, hint in hints.items() if name != "return"] or [None]
    inner = next(iter(get_args(wanted)), None)
    return _is_list(wanted) and _is_list(inner)


def _is_list(hint: Any) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _snake(metric: type[Metric]) -> str:
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", metric.__name__)
    return "_".join(words).lower()


def _never() -> bool:
    return False
