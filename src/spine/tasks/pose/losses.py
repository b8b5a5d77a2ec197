"""Loss of keypoint heatmaps."""

from __future__ import annotations

from torch import Tensor

from spine.layers.precision import at_least_float32


def heatmap_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Half the mean squared error of weighted heatmaps (HRNet's JointsMSELoss).

    `prediction`, `target`: (B, K, h, w). `weight`: (B, K), multiplied with both.
    """
    difference = (at_least_float32(prediction) - target) * weight[..., None, None]
    return 0.5 * difference.square().mean()
