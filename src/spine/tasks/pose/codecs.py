"""Codecs: how keypoints become the targets of a network, and its outputs become keypoints.

A codec is one choice for everything that has to agree: the pixel grid of crop and heatmap
(`spine.pixel_grids`), the targets, the decoding, and the flip test. It works on two kinds of
outputs. Heatmaps (B, K, h, w) have a Gaussian for each keypoint. Bins (B, K, X + Y) of the head
`simcc` are the logits of the column, then those of the row of each keypoint, in X and Y bins.

Image sizes are (height, width). `sigma` is that of the Gaussians, in heatmap pixels or bins.
docs/keypoints.md compares the codecs and has their errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spine.pixel_grids import GRIDS, PixelGrid
from spine.tasks.pose.heatmaps import peaks, refine_dark, refine_parabola, refine_quarter, refine_udp, vertex

Size = tuple[int, int]
HEATMAP_SIGMA, BIN_SIGMA = 2.0, 6.0  # HRNet's code at 256x192, and SimCC's for two bins a pixel


@dataclass(frozen=True)
class Codec:
    """Encodes keypoints (B, K, 3) in pixels of the image as targets, and decodes outputs.

    grid: how positions in the image become positions in heatmaps and bins.
    refine: finds the position of a maximum to a fraction of a heatmap pixel.
    rounded: centers of Gaussians in heatmaps are rounded to pixels. SimCC's code does not round in bins.
    cut: where a Gaussian in a heatmap ends: 3 sigma from its "center", 3 sigma from the "pixel" of its center, or nowhere.
    counts_outside: whether a keypoint outside the image counts if a part of its Gaussian is inside.
    flip_shift: whether the flip test moves the mirrored output, because the grid is not symmetric.
    between_bins: whether bins are decoded to a fraction of a bin.
    """

    grid: PixelGrid
    refine: Callable[[Tensor, Tensor, Tensor, float], Tensor]
    rounded: bool = False
    cut: Literal["center", "pixel"] | None = "center"
    counts_outside: bool = True
    flip_shift: bool = False
    between_bins: bool = True

    def encode(self, keypoints: Tensor, shape: Sequence[int], image_size: Size, sigma: float) -> tuple[Tensor, Tensor]:
        """Returns targets of an output of `shape`, and weights (B, K).

        Gaussians in heatmaps have a maximum of 1. Those in bins have a sum of 1. The weight is 1 for keypoints that are labeled and
        inside the image, otherwise 0.
        """
        columns, rows = _sides(shape, image_size)
        to_heatmap = len(shape) == 4
        x, counts_x = self._axis(keypoints[..., 0], image_size[1], columns, sigma, to_heatmap)
        y, counts_y = self._axis(keypoints[..., 1], image_size[0], rows, sigma, to_heatmap)
        weight = (counts_x & counts_y & (keypoints[..., 2] > 0)).to(x.dtype)
        if to_heatmap:
            return y[..., :, None] * x[..., None, :], weight
        return torch.cat([x, y], dim=-1) / (sigma * math.sqrt(2 * math.pi)), weight

    def _axis(self, positions: Tensor, whole: int, length: int, sigma: float, heatmap: bool) -> tuple[Tensor, Tensor]:
        """Returns Gaussians (B, K, length) along one axis for positions (B, K) on a side of `whole` pixels, and what counts."""
        center = self.grid.rescale(positions, whole, length)
        pixel = torch.trunc(center + 0.5)  # as int() of HRNet's code: it rounds -0.7 to 0
        if heatmap and self.rounded:
            center = pixel
        middle = pixel if heatmap and self.cut == "pixel" else center
        places = torch.arange(length, device=positions.device)
        gaussian = torch.exp(-0.5 * ((places - center[..., None]) / sigma) ** 2)
        if heatmap and self.cut is not None:
            gaussian = gaussian * ((places - middle[..., None]).abs() <= 3 * sigma)
        if self.counts_outside:
            return gaussian, (middle - 3 * sigma < length) & (middle + 3 * sigma + 1 >= 0)
        return gaussian, (center > -0.5) & (center < length - 0.5)

    def decode(self, output: Tensor, image_size: Size, sigma: float) -> Tensor:
        """Returns keypoints (B, K, 3): x, y in pixels of the image, and score.

        The score of a heatmap is its maximum. That of bins is the probability of the most probable
        bin, relative to that of the target, for the axis on which it is smaller.
        """
        if output.ndim == 4:
            x, y, score = peaks(output)
            positions = self.refine(output, x, y, sigma)
            sides = [output.shape[3], output.shape[2]]
        else:
            axes = [bins.log_softmax(-1) for bins in split_bins(output, image_size)]
            positions = torch.stack([self._peak(axis) for axis in axes], dim=-1)
            most = torch.minimum(*(axis.amax(-1) for axis in axes)).exp()
            score = (most * sigma * math.sqrt(2 * math.pi)).clamp(max=1)
            sides = [axis.shape[-1] for axis in axes]
        image = (image_size[1], image_size[0])
        points = [self.grid.rescale(positions[..., i], side, image[i]) for i, side in enumerate(sides)]
        return torch.stack([*points, score], dim=-1)

    def _peak(self, logarithms: Tensor) -> Tensor:
        """Returns the position (B, K) of the maximum of log probabilities (B, K, n)."""
        n = logarithms.shape[-1]
        center, index = logarithms.max(-1)
        if not self.between_bins:
            return index

        def at(place: Tensor) -> Tensor:
            return logarithms.gather(2, place.clamp(0, n - 1)[..., None])[..., 0]

        return index + vertex(at(index - 1), center, at(index + 1)) * ((index > 0) & (index < n - 1))

    def flip_back(self, output: Tensor, image_size: Size, shift: bool | None = None) -> Tensor:
        """Returns the output for a mirrored image as one for the image. The keypoints are not swapped.

        `shift`: moves it by a heatmap pixel to the right, or by the bins of a pixel less one to the
        left, as HRNet's and SimCC's code do; None: if the codec does.
        """
        shift = self.flip_shift if shift is None else shift
        if output.ndim == 4:
            flipped = output.flip(-1)
            return torch.cat([flipped[..., :1], flipped[..., :-1]], dim=-1) if shift else flipped
        x, y = split_bins(output, image_size)
        x, step = x.flip(-1), max(0, round(x.shape[-1] / image_size[1]) - 1)
        return torch.cat([x[..., step:], x[..., x.shape[-1] - step :], y] if shift else [x, y], dim=-1)


CODECS: Mapping[str, Codec] = {
    # ours: Gaussians at the exact position; no error from rounding
    "fractional": Codec(GRIDS["fractional"], refine_parabola, counts_outside=False),
    # Simple Baselines and HRNet (arXiv 1804.06208 and 1902.09212); the published files of both were evaluated with it
    "msra": Codec(GRIDS["msra"], refine_quarter, rounded=True, flip_shift=True, between_bins=False),
    # Zhang et al., arXiv 1910.06278
    "dark": Codec(GRIDS["dark"], refine_dark, cut=None, flip_shift=True),
    # Huang et al., arXiv 1911.07524, with Gaussian heatmaps
    "udp": Codec(GRIDS["udp"], refine_udp, cut="pixel"),
}


def default_sigma(shape: Sequence[int]) -> float:
    """Returns the sigma of the Gaussians for an output of `shape`."""
    return HEATMAP_SIGMA if len(shape) == 4 else BIN_SIGMA


def split_bins(output: Tensor, image_size: Size) -> tuple[Tensor, Tensor]:
    """Returns the bins (B, K, X) of columns and (B, K, Y) of rows of an output (B, K, X + Y)."""
    columns, rows = _sides(output.shape, image_size)
    return output[..., :columns], output[..., columns : columns + rows]


def draw_heatmaps(output: Tensor, image_size: Size, sigma: float) -> Tensor:
    """Returns heatmaps (B, h, w) for figures: the largest value of all keypoints. Those of bins have one pixel for each bin."""
    if output.ndim == 4:
        return output.amax(1)
    x, y = (bins.softmax(-1) * sigma * math.sqrt(2 * math.pi) for bins in split_bins(output, image_size))
    return torch.stack([(rows[:, :, None] * columns[:, None, :]).amax(0) for rows, columns in zip(y, x, strict=True)])


def _sides(shape: Sequence[int], image_size: Size) -> tuple[int, int]:
    """Returns the number of columns and rows of an output: of its heatmaps, or of its bins, which are as many for each pixel."""
    if len(shape) == 4:
        return shape[3], shape[2]
    columns = round(shape[2] * image_size[1] / sum(image_size))
    return columns, shape[2] - columns
