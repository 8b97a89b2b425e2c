"""Label scores of one set of predictions, by torchmetrics. Loads torch; `label_rates` does not."""

import torch
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from tell_lightning.metrics.label_rates import Indices, mcc


def label_scores(
    gold: Indices, found: Indices, labels: int, positive: int | None
) -> dict[str, float]:
    """Score labels.

    Args:
        gold: Index of the right label, [rows].
        found: Index of the label that was read; `labels` where there is none, [rows].
        labels: How many labels there are. The class without a label is one more.
        positive: Index of the label that precision, recall and F1 are of; None: their mean over
            the labels that occur, on either side.

    Returns:
        The scores of `label_rates`, by the same names.
    """
    right, answers = torch.as_tensor(gold), torch.as_tensor(found)

    def of(metric: type[Metric], average: str | None = None) -> torch.Tensor:
        # Every rank scores all rows, so nothing is to be gathered. Counts in float64 make shares
        # exact, where torchmetrics would divide in float32.
        made = metric(
            num_classes=labels + 1, average=average, sync_on_compute=False, validate_args=False
        ).set_dtype(torch.float64)
        made.update(answers, right)
        value: torch.Tensor = made.compute()
        return value

    recalls, precisions, f1 = (
        of(metric)[:-1] for metric in (MulticlassRecall, MulticlassPrecision, MulticlassF1Score)
    )
    matrix = MulticlassConfusionMatrix(labels + 1, sync_on_compute=False, validate_args=False)
    matrix.update(answers, right)
    counts = matrix.compute().double().numpy()
    of_label, of_answer = counts.sum(axis=1)[:-1], counts.sum(axis=0)
    scores = {
        "accuracy": float(of(MulticlassAccuracy, "micro")),
        "balanced_accuracy": float(recalls[of_label > 0].mean()),
        # torchmetrics' own MCC is computed in float32: from its counts it is exact.
        "mcc": float(mcc(counts.trace(), of_label, of_answer)),
    }
    each = {"precision": precisions, "recall": recalls, "f1": f1}
    if positive is not None:
        return scores | {name: float(values[positive]) for name, values in each.items()}
    occurs = of_label + of_answer[:-1] > 0
    return scores | {f"macro_{name}": float(values[occurs].mean()) for name, values in each.items()}
