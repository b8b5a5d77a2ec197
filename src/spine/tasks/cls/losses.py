"""The training losses of image classification, with the values of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError


class TrainingLoss(nn.Module):
    """Cross entropy, or binary cross entropy, of smoothed labels or of the shares of mixed ones."""

    class_weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        smoothing: float,
        bce: bool,
        bce_sum: bool,
        bce_target_thresh: float | None,
        class_weights: Sequence[float] | Literal["balanced"] | None,
    ):
        """`bce`: binary cross entropy of each class; `bce_sum`: summed over the classes instead of averaged;
        `bce_target_thresh`: targets above it become 1, all others 0.

        `class_weights`: a factor of the loss of each class; "balanced" needs `balance`. Raises
        InputError if their number is not that of the classes.
        """
        super().__init__()
        self.smoothing, self.bce, self.bce_sum, self.threshold = smoothing, bce, bce_sum, bce_target_thresh
        if isinstance(class_weights, Sequence) and class_weights != "balanced" and len(class_weights) != len(classes):
            raise InputError(
                f"task.class_weights has {len(class_weights)} numbers, but there are {len(classes)} classes: one for each, or balanced."
            )
        self.unbalanced = class_weights == "balanced"
        values = None if class_weights is None else torch.ones(len(classes)) if self.unbalanced else torch.tensor(class_weights)
        self.register_buffer("class_weights", values, persistent=False)

    def balance(self, labels: np.ndarray | None) -> None:
        """Sets weights in inverse proportion to the number of samples of each class.

        `labels`: the class of each training sample (N,). The mean weight of the samples is 1.
        """
        if self.class_weights is not None and labels is not None:
            self.class_weights.copy_(torch.from_numpy(balanced_weights(labels, len(self.class_weights))))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the mean () over the images of logits (B, classes).

        target: labels (B,) int64, or the shares of the classes (B, classes).
        """
        if target.ndim == 1 and not self.bce and self.class_weights is None:
            return F.cross_entropy(logits, target, label_smoothing=self.smoothing)
        classes = logits.shape[1]
        shares = F.one_hot(target, classes).to(logits.dtype) if target.ndim == 1 else target.to(logits.dtype)
        shares = shares * (1 - self.smoothing) + self.smoothing / classes
        if not self.bce:
            return F.cross_entropy(logits, shares, weight=self.class_weights)
        if self.threshold is not None:
            shares = (shares > self.threshold).to(shares.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, shares, weight=self.class_weights, reduction="none")
        return losses.sum(1).mean() if self.bce_sum else losses.mean()


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weight (classes,) of each class: N / (classes with samples * samples of the class). 0 for a class without samples."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0).astype(np.float32)
