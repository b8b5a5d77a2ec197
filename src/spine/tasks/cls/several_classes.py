"""Images of several classes: the evaluation loss and the metrics. Labels (B, classes) are 0, 1 or UNKNOWN, which is left out."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities.data import dim_zero_cat

from spine.interfaces import IGNORE_INDEX

UNKNOWN = IGNORE_INDEX


def known_mean(losses: Tensor, target: Tensor) -> Tensor:
    """Returns the mean () over the images of their mean losses (B, classes) over the classes that are known in `target` (B, classes).

    All images have the same weight, so that micro-batches of one optimizer step can be averaged.
    """
    known = target != UNKNOWN
    return (torch.where(known, losses, 0.0).sum(1) / known.sum(1).clamp(min=1)).mean()


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the binary cross entropy () of logits (B, classes) and `target` (B, classes), averaged as in `known_mean`."""
    known = torch.where(target == UNKNOWN, 0.0, target)
    return known_mean(F.binary_cross_entropy_with_logits(logits, known, reduction="none"), target)


class Results(NamedTuple):
    """The results of each class, (classes,) float64. NaN where there is nothing to measure."""

    images: Tensor  # that have the class
    average_precision: Tensor  # area under precision and recall, as in scikit-learn; NaN without an image of the class
    predicted: Tensor  # images whose probability is above the threshold
    hits: Tensor  # those of them that have the class
    exact: Tensor  # (): share of the images whose known classes are all right

    @property
    def f1(self) -> Tensor:
        """The harmonic mean of precision and recall; NaN for a class that no image has and none is predicted to have."""
        return 2 * self.hits / (self.images + self.predicted)

    def metrics(self) -> dict[str, float]:
        """`mAP` and `F1_macro`, means over the classes that can be measured; `F1_micro` of all decisions; `exact_match`. In 0..1."""
        decisions = (self.images + self.predicted).sum()
        values = {
            "mAP": self.average_precision.nanmean(),
            "F1_macro": self.f1.nanmean(),
            "F1_micro": 2 * self.hits.sum() / decisions.clamp(min=1),
            "exact_match": self.exact,
        }
        return {name: float(value.nan_to_num()) for name, value in values.items()}


class SeveralClassesScores(Metric):
    """Collects the logits and labels of all images, which average precision needs, of all processes."""

    full_state_update = False
    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_classes: int, threshold: float):
        """`threshold`: probability above which an image is predicted to have a class."""
        super().__init__()
        self.num_classes, self.threshold = num_classes, threshold
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Adds the logits (B, classes) and labels (B, classes) of a batch."""
        self.logits.append(logits.detach().float())
        self.labels.append(labels.to(torch.uint8))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes. One without images takes part with empty tensors."""
        if not self.logits:
            self.update(*torch.zeros(2, 0, self.num_classes, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Results:
        """Returns the results of all images."""
        probabilities, labels = dim_zero_cat(self.logits).cpu().double().sigmoid(), dim_zero_cat(self.labels).cpu()
        known, has = labels != UNKNOWN, labels == 1
        predicted = (probabilities > self.threshold) & known
        precisions = [
            binary_average_precision(probabilities[known[:, i], i], has[known[:, i], i].long(), validate_args=False)
            if has[:, i].any()
            else torch.tensor(torch.nan)
            for i in range(self.num_classes)
        ]
        counts = [mask.sum(0).double() for mask in (has, predicted, predicted & has)]
        exact = ((predicted == has) | ~known).all(1).double().mean()
        return Results(counts[0], torch.stack([one.double() for one in precisions]), counts[1], counts[2], exact)
