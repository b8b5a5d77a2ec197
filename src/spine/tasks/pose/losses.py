"""Losses of keypoints, of heatmaps (B, K, h, w) and of the bins (B, K, X + Y) of the head `simcc`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spine.layers.precision import at_least_float32
from spine.tasks.pose.codecs import Size, split_bins


def heatmap_loss(prediction: Tensor, target: Tensor, weight: Tensor, hardest: int | None = None) -> Tensor:
    """Half the mean squared error of weighted heatmaps (HRNet's JointsMSELoss).

    `prediction`, `target`: (B, K, h, w). `weight`: (B, K), multiplied with both. `hardest`: see `mean_of_hardest`.
    """
    squared = ((at_least_float32(prediction) - target) * weight[..., None, None]).square()
    return 0.5 * (squared.mean() if hardest is None else mean_of_hardest(squared.mean((2, 3)), hardest))


def bin_loss(prediction: Tensor, target: Tensor, weight: Tensor, image_size: Size, hardest: int | None = None) -> Tensor:
    """Kullback-Leibler divergence from the predicted to the target distributions (SimCC, arXiv 2107.03332, section 3.3).

    It is averaged over the bins of an axis, as in the authors' code, and summed over both axes. `prediction`: logits (B, K, X + Y).
    `target`: probabilities (B, K, X + Y). `weight`: (B, K). `hardest`: see `mean_of_hardest`.
    """
    losses = torch.zeros_like(weight)
    pairs = zip(split_bins(at_least_float32(prediction), image_size), split_bins(target, image_size), strict=True)
    for logits, probabilities in pairs:
        losses = losses + F.kl_div(logits.log_softmax(-1), probabilities, reduction="none").mean(-1)
    losses = losses * weight
    return losses.mean() if hardest is None else mean_of_hardest(losses, hardest)


def mean_of_hardest(losses: Tensor, count: int) -> Tensor:
    """Returns the mean of the `count` largest losses of keypoints (B, K) in each image.

    Online hard keypoint mining (CPN, arXiv 1711.07319, section 3.2; HRNet's JointsOHKMMSELoss).
    """
    return losses.topk(count, dim=1).values.mean()
