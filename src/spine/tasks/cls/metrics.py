"""Metrics of classes and of calibration, summed over batches and processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

UNITS = 1 << 30  # of a confidence, in the sums of Calibration
BINS = 15  # of the confidence, equally wide
TEMPERATURES = torch.logspace(-1, 1, 161)  # 0.1 to 10, about 3 % apart
UNSCALED = 80  # the index of temperature 1


class ClassCounts(Metric):
    """Number of images, predictions and correct predictions of each class."""

    counts: Tensor  # (3, classes)

    def __init__(self, num_classes: int):
        super().__init__()
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """logits: (B, classes). label: (B,)."""
        predicted, classes = logits.argmax(1), self.counts.shape[1]
        rows = (label, predicted, label[predicted == label])
        self.counts += torch.stack([torch.bincount(row, minlength=classes) for row in rows])

    def compute(self) -> Tensor:
        """Returns the counts (3, classes)."""
        return self.counts


class Reliability(NamedTuple):
    """Sums over the samples of each bin of confidence, (3, BINS): samples, confidences, correct predictions."""

    unscaled: Tensor
    scaled: Tensor  # with a temperature that was fitted on the other half of the samples
    temperature: Tensor  # (), fitted on all samples


class Calibration(Metric):
    """Confidence and accuracy before and after temperature scaling (Guo et al., arXiv 1706.04599).

    Even and odd samples are two halves. The temperature with the lowest negative log likelihood on
    one half scales the logits of the other half. So no sample is measured with a temperature that
    was fitted on it. The temperature is one of TEMPERATURES, and no logits are stored.
    """

    losses: Tensor  # (2, temperatures): negative log likelihood of each half
    bins: Tensor  # (2, temperatures, 3, BINS) int64: of each half, samples, confidence in units of 1 / UNITS, and hits

    def __init__(self) -> None:
        super().__init__()
        count = len(TEMPERATURES)
        self.add_state("losses", torch.zeros(2, count), dist_reduce_fx="sum")
        # whole numbers, whose sum does not depend on the division into batches and processes
        self.add_state("bins", torch.zeros(2, count, 3, BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, index: Tensor) -> None:
        """logits: (B, classes). label: (B,). index: (B,), in the data set."""
        inverse = 1.0 / TEMPERATURES.to(logits)[:, None]  # (T, 1)
        highest, predicted = logits.max(1)
        log_sums = torch.stack([(logits * scale).logsumexp(1) for scale in inverse])  # (T, B)
        losses = log_sums - logits.gather(1, label[:, None])[:, 0] * inverse
        confidence = (highest * inverse - log_sums).exp()
        bins = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)  # confidence in (b / BINS, (b + 1) / BINS]
        hits = (predicted == label).long().expand_as(bins)
        values = torch.stack([torch.ones_like(bins), (confidence * UNITS).round().long(), hits], dim=1)  # (T, 3, B)
        places = (index % 2 * BINS + bins)[:, None].expand_as(values)
        sums = torch.zeros(*values.shape[:2], 2 * BINS, dtype=torch.int64, device=values.device).scatter_add_(2, places, values)
        self.losses += F.one_hot(index % 2, 2).to(logits).T @ losses.T
        self.bins += sums.unflatten(2, (2, BINS)).permute(2, 0, 1, 3)

    def compute(self) -> Reliability:
        """Returns the sums of all samples in each bin, before and after temperature scaling."""
        bins = self.bins.cpu() / torch.tensor([1, UNITS, 1], dtype=torch.float64)[:, None]
        sizes = bins[:, UNSCALED, 0].sum(1)  # of the halves
        first, second = torch.where(sizes > 0, self.losses.argmin(1).cpu(), UNSCALED)
        scaled = bins[0, second] + bins[1, first]
        return Reliability(bins[:, UNSCALED].sum(0), scaled, TEMPERATURES.to(self.losses)[self.losses.sum(0).argmin()])


def expected_calibration_error(bins: Tensor) -> float:
    """Returns the mean distance of accuracy and confidence, weighted with the samples of each bin.

    bins: (3, BINS), see Reliability. 0 without any sample.
    """
    samples, confidence, hits = bins
    return float((hits - confidence).abs().sum() / samples.sum().clamp(min=1))
