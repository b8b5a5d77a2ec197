"""Losses that torch does not have."""

from __future__ import annotations

import torch
from torch import Tensor

from spine.blocks.precision import at_least_float32


def heatmap_loss(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Half the mean squared error, the weight multiplied into both: (B, K, h, w) twice, (B, K) -> () (HRNet's JointsMSELoss)."""
    difference = (at_least_float32(prediction) - target) * weight[..., None, None]
    return 0.5 * difference.square().mean()


def masked_pixel_loss(prediction: Tensor, target: Tensor, patch_mask: Tensor) -> Tensor:
    """Mean squared error over a patch, then over the hidden patches: (B, N, M) twice, (B, N) True = hidden -> () (MAE, section 3)."""
    error = (at_least_float32(prediction) - target).square().mean(-1)  # (B, N)
    return (error * patch_mask).sum() / patch_mask.sum()


def normalise_patches(patches: Tensor) -> Tensor:
    """Each patch of (B, N, M) with its own mean and UNBIASED variance, eps 1e-6 (MAE's norm_pix_loss)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=1)
    return (patches - mean) / (variance + 1e-6).sqrt()
