"""Peaks of heatmaps, to a fraction of a pixel, and affine maps of points.

The functions that refine a peak take heatmaps (B, K, h, w), the pixel of their maximum `x`, `y`
(B, K), and the sigma of the Gaussians in heatmap pixels. They return the position (B, K, 2) in
heatmap pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 1e-10  # of values whose logarithm is taken


def peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the column and the row of the maximum of heatmaps (B, K, h, w), and its value: (B, K) each."""
    score, index = heatmaps.flatten(2).max(-1)
    width = heatmaps.shape[-1]
    return index % width, index // width, score


def values_at(heatmaps: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Returns the values of heatmaps (B, K, h, w) at the pixels (B, K). Beyond the border, they are those of the border."""
    h, w = heatmaps.shape[-2:]
    index = y.clamp(0, h - 1) * w + x.clamp(0, w - 1)
    return heatmaps.flatten(2).gather(2, index[..., None])[..., 0]


def vertex(before: Tensor, center: Tensor, after: Tensor) -> Tensor:
    """Returns the position, relative to `center`, of the maximum of the parabola through three neighboring values.

    It is between -0.5 and 0.5 if `center` is the largest value, and 0 if all are equal.
    """
    curvature = before - 2 * center + after
    return torch.where(curvature < 0, 0.5 * (before - after) / curvature, 0.0)


def refine_parabola(heatmaps: Tensor, x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Refines along each axis by the parabola through the logarithms of the maximum and its neighbors.

    This is exact for Gaussians. At the border, where only one neighbor exists, the maximum stays.
    """
    h, w = heatmaps.shape[-2:]
    logarithms = heatmaps.clamp(min=SMALLEST).log()
    center = values_at(logarithms, x, y)
    along_x = vertex(values_at(logarithms, x - 1, y), center, values_at(logarithms, x + 1, y))
    along_y = vertex(values_at(logarithms, x, y - 1), center, values_at(logarithms, x, y + 1))
    return torch.stack([x + along_x * ((x > 0) & (x < w - 1)), y + along_y * ((y > 0) & (y < h - 1))], dim=-1)


def refine_quarter(heatmaps: Tensor, x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Moves the maximum by a quarter of a pixel toward the higher neighbor along each axis.

    As HRNet's code (`get_final_preds`): maxima in the first two or the last rows and columns stay,
    and a heatmap without a positive value has its keypoint at 0, 0.
    """
    h, w = heatmaps.shape[-2:]
    along_x = torch.sign(values_at(heatmaps, x + 1, y) - values_at(heatmaps, x - 1, y))
    along_y = torch.sign(values_at(heatmaps, x, y + 1) - values_at(heatmaps, x, y - 1))
    inside = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
    points = torch.stack([x, y], dim=-1) + 0.25 * inside[..., None] * torch.stack([along_x, along_y], dim=-1)
    return points * (values_at(heatmaps, x, y) > 0)[..., None]


def refine_dark(heatmaps: Tensor, x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Refines by the Taylor expansion of the logarithm of the blurred heatmap (DARK, arXiv 1910.06278, section 3.2).

    Maxima in the two outer rows and columns stay, as in the authors' code.
    """
    h, w = heatmaps.shape[-2:]
    logarithms = blur(heatmaps, sigma).clamp(min=SMALLEST).log()

    def at(right: int, down: int) -> Tensor:
        return values_at(logarithms, x + right, y + down)

    dx, dy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    dxx = 0.25 * (at(2, 0) - 2 * at(0, 0) + at(-2, 0))
    dyy = 0.25 * (at(0, 2) - 2 * at(0, 0) + at(0, -2))
    dxy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))
    inside = (x > 1) & (x < w - 2) & (y > 1) & (y < h - 2) & (dxx * dyy != dxy**2)
    return torch.stack([x, y], dim=-1) + torch.where(inside[..., None], newton_step(dx, dy, dxx, dyy, dxy), 0.0)


def refine_udp(heatmaps: Tensor, x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """Refines by the same expansion with the differences of UDP's code (arXiv 1911.07524), also at the border."""
    logarithms = blur(heatmaps, sigma).clamp(1e-3, 50).log()

    def at(right: int, down: int) -> Tensor:
        return values_at(logarithms, x + right, y + down)

    center, flat = at(0, 0), torch.finfo(torch.float32).eps
    dx, dy = 0.5 * (at(1, 0) - at(-1, 0)), 0.5 * (at(0, 1) - at(0, -1))
    dxx = at(1, 0) - 2 * center + at(-1, 0)
    dyy = at(0, 1) - 2 * center + at(0, -1)
    dxy = 0.5 * (at(1, 1) - at(1, 0) - at(0, 1) + 2 * center - at(-1, 0) - at(0, -1) + at(-1, -1))
    return torch.stack([x, y], dim=-1) + newton_step(dx, dy, dxx + flat, dyy + flat, dxy)


def newton_step(dx: Tensor, dy: Tensor, dxx: Tensor, dyy: Tensor, dxy: Tensor) -> Tensor:
    """Returns the step (..., 2) to the point where the gradient of a quadratic function with these derivatives is zero."""
    determinant = dxx * dyy - dxy**2
    return torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=-1) / determinant[..., None]


def blur(heatmaps: Tensor, sigma: float) -> Tensor:
    """Blurs heatmaps (B, K, h, w) with a Gaussian and scales them to their former maximum.

    The kernel has 11 pixels for a sigma of 2 and 17 for one of 3, as in DARK's code. Pixels beyond
    the border are zero.
    """
    radius = max(1, int((sigma - 0.8) / 0.3 + 1e-6) + 1)
    width = 0.3 * (radius - 1) + 0.8  # cv2.GaussianBlur's sigma for this kernel
    offsets = torch.arange(-radius, radius + 1, device=heatmaps.device, dtype=heatmaps.dtype)
    kernel = torch.exp(-0.5 * (offsets / width) ** 2)
    kernel = kernel / kernel.sum()
    maps = heatmaps.flatten(0, 1)[:, None]  # (B * K, 1, h, w)
    maps = F.conv2d(maps, kernel[None, None, None, :], padding=(0, radius))
    blurred = F.conv2d(maps, kernel[None, None, :, None], padding=(radius, 0)).reshape(heatmaps.shape)
    maximum = blurred.amax((2, 3), keepdim=True)
    return torch.where(maximum > 0, blurred * (heatmaps.amax((2, 3), keepdim=True) / maximum), blurred)


def apply_affine(points: Tensor, affine: Tensor) -> Tensor:
    """Transforms points (B, K, 2) by matrices (B, 2, 3)."""
    return points @ affine[:, :, :2].transpose(1, 2) + affine[:, None, :, 2]


def invert_affine(affine: Tensor) -> Tensor:
    """Returns the inverse of matrices (B, 2, 3), also (B, 2, 3)."""
    inverse = torch.linalg.inv(affine[:, :, :2].double())
    return torch.cat([inverse, -inverse @ affine[:, :, 2:].double()], dim=2).float()
