"""Feature pyramid from the maps of a token network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from spine.interfaces import FeatureSpec, Level

FACTORS = (4, 2, 1, 0.5)  # of the sizes of four maps


class TokenPyramid(nn.Module):
    """Rescales maps that all have one stride: the size of each is multiplied by its factor, 4, 2, 1 or 0.5.

    Upsampling is by transposed convolutions, with batch norm and GELU between two of them;
    downsampling is max pooling. As in BEiT's code for dense tasks
    (`semantic_segmentation/backbone/beit.py`).
    """

    def __init__(self, channels: int, factors: Sequence[float]):
        super().__init__()
        self.scales = nn.ModuleList(rescale(channels, factor) for factor in factors)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(B, D, h, w) each -> (B, D, factor * h, factor * w)."""
        return tuple(scale(x) for scale, x in zip(self.scales, maps, strict=True))


def rescale(channels: int, factor: float) -> nn.Module:
    """Layers that multiply the size of a map by a factor of FACTORS."""
    if factor == 0.5:
        return nn.MaxPool2d(2, 2, ceil_mode=True)
    if factor == 1:
        return nn.Identity()
    double = nn.ConvTranspose2d(channels, channels, 2, 2)
    if factor == 2:
        return double
    return nn.Sequential(double, nn.BatchNorm2d(channels), nn.GELU(), nn.ConvTranspose2d(channels, channels, 2, 2))


def pyramid_for(spec: FeatureSpec, factors: Sequence[float] | None = None) -> tuple[TokenPyramid | None, tuple[Level, ...]]:
    """Returns the pyramid for a head, and the levels that the head reads from it.

    `factors`: of the sizes of the maps; None for the last ones of FACTORS. The pyramid is None if
    `spec` is not that of a token network, or if it does not have one map for each factor.
    """
    count = len(spec.levels)
    if factors is None:
        factors = FACTORS[-count:]
    if spec.patch_size is None or count < 2 or len(factors) != count:
        return None, spec.levels
    levels = tuple(Level(level.channels, int(level.stride / factor)) for level, factor in zip(spec.levels, factors, strict=True))
    return TokenPyramid(spec.levels[0].channels, factors), levels


def best_level(spec: FeatureSpec) -> tuple[int, ...]:
    """Returns the level for a head that reads one map: the finest of a fused backbone (HRNet), else the coarsest."""
    return (0,) if spec.fused else (-1,)
