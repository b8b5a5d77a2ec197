"""Encodes keypoints as heatmaps, and decodes keypoints from heatmaps.

The centers of pixels have integer coordinates: an image extends from -0.5 to width - 0.5. Pixel i
of a heatmap with stride s is therefore at image coordinate s * (i + 0.5) - 0.5. HRNet's code maps
by x / s instead, and rounds the center of the Gaussian to an integer pixel. Each of these loses up
to half a heatmap pixel, so that neither is done here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_heatmaps(keypoints: Tensor, size: tuple[int, int], stride: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Encodes keypoints as Gaussians with a maximum of 1, zero beyond 3 sigma.

    Source: Sun et al., arXiv 1902.09212, section 3.2. `keypoints`: (B, K, 3), x, y in image pixels
    and visibility. `size`: (h, w) of the heatmaps. `sigma`: in heatmap pixels.

    Returns heatmaps (B, K, h, w) and weights (B, K). The weight is 1 for keypoints that are labeled
    and inside the image, otherwise 0.
    """
    h, w = size
    center = (keypoints[..., :2] + 0.5) / stride - 0.5  # (B, K, 2) in heatmap pixels
    axes = []
    for axis, length in ((0, w), (1, h)):
        distance = torch.arange(length, device=keypoints.device) - center[..., axis, None]  # (B, K, length)
        axes.append(torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= 3 * sigma))
    heatmaps = axes[1][..., :, None] * axes[0][..., None, :]
    inside = (center > -0.5).all(-1) & (center[..., 0] < w - 0.5) & (center[..., 1] < h - 0.5)
    return heatmaps, (inside & (keypoints[..., 2] > 0)).to(heatmaps.dtype)


def decode_heatmaps(heatmaps: Tensor, stride: float) -> Tensor:
    """Decodes heatmaps (B, K, h, w) to keypoints (B, K, 3): x, y in image pixels, and score.

    The score is the maximum of the heatmap. The position of the maximum is shifted by a quarter of
    a heatmap pixel toward the higher neighbor along each axis.
    """
    h, w = heatmaps.shape[2:]
    score, index = heatmaps.flatten(2).max(-1)  # (B, K)
    x, y = index % w, index // w

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        return heatmaps.flatten(2).gather(2, (rows * w + columns)[..., None])[..., 0]

    shift_x = torch.sign(at(y, (x + 1).clamp(max=w - 1)) - at(y, (x - 1).clamp(min=0)))
    shift_y = torch.sign(at((y + 1).clamp(max=h - 1), x) - at((y - 1).clamp(min=0), x))
    shift_x = shift_x * ((x > 0) & (x < w - 1))  # no shift at the border, where only one neighbor exists
    shift_y = shift_y * ((y > 0) & (y < h - 1))
    points = torch.stack([x + 0.25 * shift_x, y + 0.25 * shift_y], dim=-1)
    return torch.cat([(points + 0.5) * stride - 0.5, score[..., None]], dim=-1)


def apply_affine(points: Tensor, affine: Tensor) -> Tensor:
    """Transforms points (B, K, 2) by matrices (B, 2, 3)."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def invert_affine(affine: Tensor) -> Tensor:
    """Returns the inverse of matrices (B, 2, 3), also (B, 2, 3)."""
    inverse = torch.linalg.inv(affine[:, :, :2].double())
    return torch.cat([inverse, -inverse @ affine[:, :, 2:].double()], dim=2).float()
