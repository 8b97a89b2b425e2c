"""A trial stops early where its dev score and its dev loss are both behind those of others."""

from collections.abc import Sequence
from statistics import median

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

LOSSES = "losses"
"""User attribute of a trial: the dev loss of each report, in their order."""
OTHERS = 3
"""Complete trials that a trial is compared with, at least."""


class BothBehind(BasePruner):
    """Stops a trial whose score is no better than the median, and whose loss is worse.

    Each report is compared with the same report of the trials of the same arm that have ended.
    Where all scores are equal, as with a few rows, the loss alone decides.
    """

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Say whether a trial is behind at its last report."""
        step = trial.last_step
        losses: Sequence[float] = trial.user_attrs.get(LOSSES, ())
        if step is None or len(losses) <= step:
            return False
        others = [
            other
            for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if other.user_attrs.get("arm") == trial.user_attrs.get("arm")
            and step in other.intermediate_values
            and len(other.user_attrs.get(LOSSES, ())) > step
        ]
        if len(others) < OTHERS:
            return False
        scores = median(other.intermediate_values[step] for other in others)
        of_others = median(other.user_attrs[LOSSES][step] for other in others)
        return trial.intermediate_values[step] <= scores and losses[step] > of_others
