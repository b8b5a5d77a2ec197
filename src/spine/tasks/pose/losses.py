"""Losses of keypoint heatmaps."""

from __future__ import annotations

from torch import Tensor

from spine.layers.precision import at_least_float32


def heatmap_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Half the mean squared error, the weight multiplied into both: (B, K, h, w) twice, (B, K) -> () (HRNet's JointsMSELoss)."""
    difference = (at_least_float32(prediction) - target) * weight[..., None, None]
    return 0.5 * difference.square().mean()
