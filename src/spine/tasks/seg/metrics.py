"""Metrics of semantic segmentation."""

from __future__ import annotations

from torch import Tensor


def scores_of_classes(confusion: Tensor) -> dict[str, Tensor]:
    """Computes IoU, accuracy, precision and Dice of each class (classes,), in 0..1.

    `confusion`: (classes, classes), ground truth in rows. IoU and Dice are NaN for classes that are
    neither in the ground truth nor in the prediction, accuracy for those that are not in the ground
    truth, and precision for those that are not in the prediction.
    """
    confusion = confusion.double()
    hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return {
        "IoU": hits / (truth + predicted - hits),
        "accuracy": hits / truth,
        "precision": hits / predicted,
        "Dice": 2 * hits / (truth + predicted),
    }


def segmentation_scores(confusion: Tensor) -> dict[str, float]:
    """Computes mIoU, mAcc, aAcc and mDice, in 0..1.

    `confusion`: (classes, classes), ground truth in rows. The means leave out absent classes, as in
    mmsegmentation (see `scores_of_classes`).
    """
    each, total = scores_of_classes(confusion), confusion.double()
    scores = {
        "mIoU": each["IoU"].nanmean(),
        "mAcc": each["accuracy"].nanmean(),
        "aAcc": total.diagonal().sum() / total.sum(),
        "mDice": each["Dice"].nanmean(),
    }
    return {name: float(value) for name, value in scores.items()}
