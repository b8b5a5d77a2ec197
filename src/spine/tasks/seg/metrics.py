"""Segmentation metrics."""

from __future__ import annotations

from torch import Tensor


def segmentation_scores(confusion: Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """mIoU, mAcc, aAcc and the IoU of each class, in 0..1, of a confusion matrix (classes, classes) with the truth in rows.

    Means leave out classes that neither truth nor prediction holds (mIoU) or that the truth does not hold (mAcc), as in mmseg.
    """
    confusion = confusion.double()
    hits, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    iou = hits / (truth + predicted - hits)  # nan where a class is absent
    scores = {"mIoU": iou.nanmean(), "mAcc": (hits / truth).nanmean(), "aAcc": hits.sum() / confusion.sum()}
    scores |= {f"IoU/{name}": value for name, value in zip(classes, iou, strict=True)}
    return {name: float(value) for name, value in scores.items()}
