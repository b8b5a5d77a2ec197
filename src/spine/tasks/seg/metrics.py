"""Metrics of semantic segmentation."""

from __future__ import annotations

from torch import Tensor


def segmentation_scores(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """Computes mIoU, mAcc, aAcc and the IoU of each class, in 0..1.

    `confusion`: (classes, classes), ground truth in rows. The means leave out absent classes, as in
    mmseg: mIoU those that are neither in the ground truth nor in the prediction, mAcc those that
    are not in the ground truth.
    """
    confusion = confusion.double()
    hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    iou = hits / (truth + predicted - hits)  # nan for absent classes
    scores = {"mIoU": iou.nanmean(), "mAcc": (hits / truth).nanmean(), "aAcc": hits.sum() / confusion.sum()}
    scores |= {f"IoU/{name}": value for name, value in zip(classes, iou, strict=True)}
    return {name: float(value) for name, value in scores.items()}
