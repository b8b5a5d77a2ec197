"""The training losses of image classification, with the values of timm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.tasks.cls.several_classes import UNKNOWN, known_mean


class TrainingLoss(nn.Module):
    """Cross entropy, or binary cross entropy, of smoothed labels or of the shares of mixed ones.

    Images of several classes have binary cross entropy, averaged over the known classes of each image. Their labels y are smoothed to
    y * (1 - smoothing) + smoothing / 2.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        smoothing: float,
        bce: bool,
        bce_sum: bool,
        bce_target_thresh: float | None,
        class_weights: Sequence[float] | Literal["balanced"] | None,
        several: bool = False,
    ):
        """`several`: whether images may have several classes.

        `bce`: binary cross entropy of each class; `bce_sum`: summed over the classes instead of averaged;
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
        if several and class_weights == "balanced":
            raise InputError(
                "task.class_weights is balanced, which counts images of one class; these may have several. Give a list with a factor "
                "for each class, or null."
            )
        self.several = several
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

        target: labels (B,) int64, or the shares of the classes (B, classes), with UNKNOWN if images have several.
        """
        if self.several:
            return self._binary(logits, target)
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

    def _binary(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of images of several classes."""
        shares = torch.where(target == UNKNOWN, 0.0, target) * (1 - self.smoothing) + self.smoothing / 2
        if self.threshold is not None:
            shares = (shares > self.threshold).to(shares.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, shares, weight=self.class_weights, reduction="none")
        if self.bce_sum:
            return torch.where(target == UNKNOWN, 0.0, losses).sum(1).mean()
        return known_mean(losses, target)


class BinaryCrossEntropy(nn.Module):
    """Binary cross entropy of images of several classes, with a factor for the images that have a class."""

    positive_weights: Tensor | None

    def __init__(self, positive_weights: Sequence[float] | None = None):
        """`positive_weights`: factor of the loss of each class in the images that have it, such as the number of images without it divided
        by the number with it; null for none.
        """
        super().__init__()
        values = None if positive_weights is None else torch.tensor(list(positive_weights), dtype=torch.float32)
        self.register_buffer("positive_weights", values, persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss () of logits and targets (B, classes), averaged as in `known_mean`. Raises InputError if classes do not fit."""
        if self.positive_weights is not None and len(self.positive_weights) != logits.shape[1]:
            raise InputError(
                f"task.loss.positive_weights has {len(self.positive_weights)} numbers, but there are {logits.shape[1]} classes: give one "
                f"for each."
            )
        _check_several(target)
        known = torch.where(target == UNKNOWN, 0.0, target)
        losses = F.binary_cross_entropy_with_logits(logits, known, pos_weight=self.positive_weights, reduction="none")
        return known_mean(losses, target)


class Asymmetric(nn.Module):
    """The asymmetric loss (ASL) of images of several classes, summed over the classes (Ridnik et al., arXiv 2009.14119).

    Classes that an image has not are far more frequent. Those that are easily rejected have less weight: with the
    probability p_m = max(p - margin, 0), their loss is p_m ** gamma_negative * -log(1 - p_m).
    """

    def __init__(self, gamma_negative: float = 4.0, gamma_positive: float = 1.0, margin: float = 0.05):
        """`gamma_negative`, `gamma_positive`: exponents of the error for classes that an image has not, and has; 0 is cross entropy.
        `margin`: probability below which a class that an image has not has no loss.

        Raises InputError for a negative exponent, or a margin outside of 0..1.
        """
        super().__init__()
        if gamma_negative < 0 or gamma_positive < 0 or not 0 <= margin < 1:
            raise InputError(
                f"task.loss: gamma_negative is {gamma_negative:g}, gamma_positive {gamma_positive:g} and margin {margin:g}; exponents are "
                f"0 or more, and the margin is 0 or more and below 1."
            )
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Returns the loss () of logits and targets (B, classes), summed over the known classes, and its mean over the images."""
        _check_several(target)
        known = torch.where(target == UNKNOWN, 0.0, target)
        probability, rejected = logits.sigmoid(), (1 - logits.sigmoid() + self.margin).clamp(max=1)
        losses = -known * F.logsigmoid(logits) - (1 - known) * rejected.clamp(min=1e-8).log()
        error = known * (1 - probability) + (1 - known) * (1 - rejected)
        exponent = known * self.gamma_positive + (1 - known) * self.gamma_negative
        with torch.no_grad():  # as in the authors' code, the weight of an error has no gradient
            weight = error.pow(exponent)
        return torch.where(target == UNKNOWN, 0.0, losses * weight).sum(1).mean()


def _check_several(target: Tensor) -> None:
    """Raises InputError if images have one class."""
    if target.ndim != 2:
        raise InputError(
            "task.loss is for images of several classes, and those of this data set have one each. Set task.loss=null."
        )


def balanced_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the weight (classes,) of each class: N / (classes with samples * samples of the class). 0 for a class without samples."""
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    return np.where(present, len(labels) / (present.sum() * np.maximum(counts, 1)), 0.0).astype(np.float32)
