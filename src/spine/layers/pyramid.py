"""Feature pyramid from the maps of a token network."""

from __future__ import annotations

from torch import Tensor, nn

from spine.interfaces import FeatureSpec, Level


class TokenPyramid(nn.Module):
    """Rescales maps that all have stride s to the coarsest `count` of the strides s/4, s/2, s and 2s.

    Upsampling is by transposed convolutions, with batch norm and GELU between two of them;
    downsampling is max pooling. As in BEiT's code for dense tasks
    (`semantic_segmentation/backbone/beit.py`).
    """

    def __init__(self, channels: int, count: int):
        super().__init__()
        finest = nn.Sequential(
            nn.ConvTranspose2d(channels, channels, 2, 2),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.ConvTranspose2d(channels, channels, 2, 2),
        )
        scales = [
            finest,
            nn.ConvTranspose2d(channels, channels, 2, 2),
            nn.Identity(),
            nn.MaxPool2d(2, 2, ceil_mode=True),
        ]
        self.scales = nn.ModuleList(scales[4 - count :])

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """(B, D, h, w) each -> (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w), (B, D, h / 2, w / 2).

        With fewer than four maps, the output has the last of these shapes.
        """
        return tuple(scale(x) for scale, x in zip(self.scales, maps, strict=True))


def pyramid_for(spec: FeatureSpec) -> tuple[TokenPyramid | None, tuple[Level, ...]]:
    """Returns the pyramid for a head, and the levels that the head reads from it.

    The pyramid is None if `spec` does not have two to four maps of equal stride.
    """
    count = len(spec.levels)
    if not 2 <= count <= 4 or len({level.stride for level in spec.levels}) > 1:
        return None, spec.levels
    channels, stride = spec.levels[0]
    strides = [stride // 4, stride // 2, stride, stride * 2][4 - count :]
    return TokenPyramid(channels, count), tuple(Level(channels, stride) for stride in strides)


def best_level(spec: FeatureSpec) -> tuple[int, ...]:
    """Returns the level for a head that reads one map: the finest of a fused backbone (HRNet), else the coarsest."""
    return (0,) if spec.fused else (-1,)
