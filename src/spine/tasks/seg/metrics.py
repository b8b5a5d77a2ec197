"""Metrics of semantic segmentation, computed from a confusion matrix.

It is (classes, classes) with the ground truth in rows; if classes may overlap, (classes, 2, 2): for each class, whether it is
present in the ground truth (rows) and in the prediction (columns).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spine.interfaces import IGNORE_INDEX


class PixelCounts(NamedTuple):
    """Numbers of pixels of each class, (classes,)."""

    hits: Tensor  # in both masks
    truth: Tensor  # in the ground truth
    predicted: Tensor
    labeled: Tensor  # for which it is known whether they belong to the class


def pixel_counts(confusion: Tensor) -> PixelCounts:
    """Returns the counts of a confusion matrix."""
    if confusion.ndim == 3:
        return PixelCounts(confusion[:, 1, 1], confusion[:, 1].sum(1), confusion[:, :, 1].sum(1), confusion.sum((1, 2)))
    return PixelCounts(confusion.diagonal(), confusion.sum(1), confusion.sum(0), confusion.sum().expand(len(confusion)))


def scores_of_classes(confusion: Tensor) -> dict[str, Tensor]:
    """Computes IoU, accuracy, precision and Dice of each class (classes,), in 0..1.

    IoU and Dice are NaN for classes that are neither in the ground truth nor in the prediction,
    accuracy for those that are not in the ground truth, and precision for those that are not in the
    prediction.
    """
    hits, truth, predicted, _ = pixel_counts(confusion.double())
    return {
        "IoU": hits / (truth + predicted - hits),
        "accuracy": hits / truth,
        "precision": hits / predicted,
        "Dice": 2 * hits / (truth + predicted),
    }


def segmentation_scores(confusion: Tensor) -> dict[str, float]:
    """Computes mIoU, mAcc, aAcc and mDice, in 0..1.

    The means leave out absent classes, as in mmsegmentation (see `scores_of_classes`). If classes may
    overlap, aAcc is the fraction of the labels of all pixels and classes that are right.
    """
    each, total = scores_of_classes(confusion), confusion.double()
    scores = {
        "mIoU": each["IoU"].nanmean(),
        "mAcc": each["accuracy"].nanmean(),
        "aAcc": total.diagonal(dim1=-2, dim2=-1).sum() / total.sum(),
        "mDice": each["Dice"].nanmean(),
    }
    return {name: float(value) for name, value in scores.items()}


def count_confusion(truth: np.ndarray, prediction: np.ndarray, count: int) -> Tensor:
    """Returns the confusion matrix of the masks (H, W) of one image, or (classes, H, W) if classes may overlap."""
    if truth.ndim == 3:
        return torch.stack([count_confusion(*each, 2) for each in zip(truth, prediction, strict=True)])
    labeled = truth != IGNORE_INDEX
    pairs = truth[labeled].astype(np.int64) * count + prediction[labeled]
    return torch.from_numpy(np.bincount(pairs, minlength=count**2).reshape(count, count))
