"""Turns the equal maps of a token model into a pyramid."""

from __future__ import annotations

from torch import Tensor, nn

from spine.interfaces import FeatureSpec, Level


class TokenPyramid(nn.Module):
    """Equal maps of stride s -> the coarsest `count` of s/4, s/2, s, 2s: transposed convolutions with batch norm and GELU, max-pooling.

    From BEiT's code for dense tasks (`semantic_segmentation/backbone/beit.py`).
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
        """`count` maps (B, D, h, w) -> of four: (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w), (B, D, h / 2, w / 2)."""
        return tuple(scale(x) for scale, x in zip(self.scales, maps, strict=True))


def pyramid_for(spec: FeatureSpec) -> tuple[TokenPyramid | None, tuple[Level, ...]]:
    """A pyramid where `spec` holds two to four maps of one stride, else None; and the levels that a head then reads."""
    count = len(spec.levels)
    if not 2 <= count <= 4 or len({level.stride for level in spec.levels}) > 1:
        return None, spec.levels
    channels, stride = spec.levels[0]
    strides = [stride // 4, stride // 2, stride, stride * 2][4 - count :]
    return TokenPyramid(channels, count), tuple(Level(channels, stride) for stride in strides)
