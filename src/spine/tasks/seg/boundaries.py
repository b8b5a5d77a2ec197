"""Boundary IoU (Cheng et al., arXiv 2103.16562): the IoU of the pixels near the boundaries of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from spine.interfaces import IGNORE_INDEX


class BoundaryCounts(Metric):
    """Numbers of pixels near boundaries for each class: in both masks, in the ground truth, and in the prediction.

    A pixel is near a boundary if a pixel of another class, an ignored pixel or the border of the image
    is at most `width` away, in rows and columns. Computed on the CPU.
    """

    full_state_update = False
    counts: Tensor  # (3, classes)

    def __init__(self, num_classes: int, width: float):
        """`width`: as a fraction of the diagonal of the image."""
        super().__init__()
        self.width = width
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, truth: Tensor, sizes: Sequence[tuple[int, int]]) -> None:
        """Adds a batch.

        `prediction`, `truth`: (B, H, W) class indices, or (B, classes, H, W) of 0 and 1 if classes may
        overlap. `sizes`: (height, width) of each image.
        """
        masks = zip(prediction.cpu().numpy(), truth.cpu().numpy(), sizes, strict=True)
        found = [self._count_image(one[..., :h, :w], true[..., :h, :w]) for one, true, (h, w) in masks]
        self.counts += torch.from_numpy(np.sum(found, axis=0)).to(self.counts.device)

    def _count_image(self, prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The counts (3, classes) of one image."""
        if truth.ndim == 2:
            return self._count(prediction, truth, self.counts.shape[1])
        return np.stack([self._count(*each, 2)[:, 1] for each in zip(prediction, truth, strict=True)], axis=1)

    def _count(self, prediction: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
        truth = truth.astype(np.uint8)
        labeled = truth != IGNORE_INDEX
        prediction = np.where(labeled, prediction, IGNORE_INDEX).astype(np.uint8)
        width = max(1, round(self.width * math.hypot(*truth.shape)))
        near_true, near_predicted = (near_boundary(mask, width) & labeled for mask in (truth, prediction))
        both = near_true & near_predicted & (prediction == truth)
        values = truth[both], truth[near_true], prediction[near_predicted]
        return np.stack([np.bincount(each, minlength=classes) for each in values])

    def compute(self) -> Tensor:
        """Returns the counts (3, classes)."""
        return self.counts


def near_boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Returns where another value or the border of the mask is at most `width` pixels away, in rows and columns.

    `mask`: (H, W) uint8. Every class at once: a pixel is not near if the largest and the smallest value
    of its square are its own.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=IGNORE_INDEX)
    same = (cv2.dilate(framed, square) == framed) & (cv2.erode(framed, square) == framed)
    return ~same[1:-1, 1:-1]


def boundary_iou(counts: Tensor) -> Tensor:
    """Returns the boundary IoU (classes,) of counts (3, classes). NaN for absent classes."""
    both, truth, predicted = counts.double()
    return both / (truth + predicted - both)
