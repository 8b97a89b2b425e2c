"""Scoring kinds: one class in one file each. What a kind of your own needs is exported here.

# mine.py, for `scoring: {kind: mine.py:Short}`
from tell_lightning.metrics.kinds import RowSums, ScoreFacts, ScoringKind

class Short(ScoringKind):
    facts = {"short": ScoreFacts("short answers", "share", 1)}
    primary = "short"

    def row_sums(self, predictions):
        return [RowSums.means({"short": [len(p.prediction) < 80 for p in predictions]})]
"""

from tell_lightning.metrics.intervals import RowSums as RowSums
from tell_lightning.metrics.kinds.base import KindScores as KindScores
from tell_lightning.metrics.kinds.base import Reading as Reading
from tell_lightning.metrics.kinds.base import ScoringKind as ScoringKind
from tell_lightning.metrics.predictions import Prediction as Prediction
from tell_lightning.metrics.score_facts import ScoreFacts as ScoreFacts
