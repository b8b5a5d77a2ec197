"""Loss of masked autoencoding."""

from __future__ import annotations

import torch
from torch import Tensor

from spine.layers.precision import at_least_float32


def masked_pixel_loss(prediction: Tensor, target: Tensor, patch_mask: Tensor) -> Tensor:
    """Mean squared error over the masked patches (MAE, section 3).

    `prediction`, `target`: (B, N, M). `patch_mask`: (B, N), True = masked.
    """
    error = (at_least_float32(prediction) - target).square().mean(-1)  # (B, N)
    return (error * patch_mask).sum() / patch_mask.sum()


def normalize_patches(patches: Tensor) -> Tensor:
    """Normalizes each patch of (B, N, M) by its mean and unbiased variance (MAE's norm_pix_loss).

    1e-6 is added to the variance.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True, correction=1)
    return (patches - mean) / (variance + 1e-6).sqrt()
