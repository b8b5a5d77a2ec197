"""Heatmaps of keypoints: making them, and reading keypoints from them.

Pixels are squares and their centres have whole coordinates: the picture spans -0.5 to width - 0.5. A heatmap of stride s therefore
has its pixel i over picture coordinate s * (i + 0.5) - 0.5. HRNet's code maps by x / s instead, and rounds the centre of the
Gaussian to a whole pixel; both lose up to half a heatmap pixel, and neither is done here.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_heatmaps(keypoints: Tensor, size: tuple[int, int], stride: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Unnormalised Gaussians with peak 1, `sigma` in heatmap pixels, zero beyond 3 sigma (Sun et al., arXiv 1902.09212, section 3.2).

    keypoints (B, K, 3): x, y in picture pixels, visibility -> heatmaps (B, K, h, w), weights (B, K): 1 where the keypoint is labelled
    and lies in the picture.
    """
    h, w = size
    centre = (keypoints[..., :2] + 0.5) / stride - 0.5  # (B, K, 2) in heatmap pixels
    axes = []
    for axis, length in ((0, w), (1, h)):
        distance = torch.arange(length, device=keypoints.device) - centre[..., axis, None]  # (B, K, length)
        axes.append(torch.exp(-0.5 * (distance / sigma) ** 2) * (distance.abs() <= 3 * sigma))
    heatmaps = axes[1][..., :, None] * axes[0][..., None, :]
    inside = (centre > -0.5).all(-1) & (centre[..., 0] < w - 0.5) & (centre[..., 1] < h - 0.5)
    return heatmaps, (inside & (keypoints[..., 2] > 0)).to(heatmaps.dtype)


def decode_heatmaps(heatmaps: Tensor, stride: float) -> Tensor:
    """Heatmaps (B, K, h, w) -> (B, K, 3): x, y in picture pixels, score. The peak moves a quarter pixel to its higher neighbour."""
    h, w = heatmaps.shape[2:]
    score, place = heatmaps.flatten(2).max(-1)  # (B, K)
    x, y = place % w, place // w

    def at(rows: Tensor, columns: Tensor) -> Tensor:
        return heatmaps.flatten(2).gather(2, (rows * w + columns)[..., None])[..., 0]

    towards_x = torch.sign(at(y, (x + 1).clamp(max=w - 1)) - at(y, (x - 1).clamp(min=0)))
    towards_y = torch.sign(at((y + 1).clamp(max=h - 1), x) - at((y - 1).clamp(min=0), x))
    towards_x = towards_x * ((x > 0) & (x < w - 1))  # at the border only one neighbour exists
    towards_y = towards_y * ((y > 0) & (y < h - 1))
    points = torch.stack([x + 0.25 * towards_x, y + 0.25 * towards_y], dim=-1)
    return torch.cat([(points + 0.5) * stride - 0.5, score[..., None]], dim=-1)


def apply_affine(points: Tensor, affine: Tensor) -> Tensor:
    """Points (B, K, 2) through matrices (B, 2, 3)."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def invert_affine(affine: Tensor) -> Tensor:
    """The inverse of matrices (B, 2, 3), again (B, 2, 3)."""
    inverse = torch.linalg.inv(affine[:, :, :2].double())
    return torch.cat([inverse, -inverse @ affine[:, :, 2:].double()], dim=2).float()
