"""Keypoint heatmaps.

The deconvolutions of Simple Baselines (Xiao et al., arXiv 1804.06208), then HRNet's 1x1 convolution.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.pyramid import best_level
from spine.task_spec import HeadInput

STRIDE = 4  # of the heatmaps


class Heatmap(Head):
    """One heatmap per keypoint with stride 4.

    It reads the finest map of a fused backbone (HRNet), and otherwise the coarsest, upsampled by
    deconvolutions.
    """

    reads: ClassVar[HeadInput] = "maps"
    tasks: ClassVar[tuple[str, ...] | None] = ("pose",)

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...]:
        """Returns the finest level of a fused backbone (HRNet), else the coarsest."""
        return best_level(spec)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int = 256):
        super().__init__()
        width, stride = spec.levels[-1]
        steps = (stride // STRIDE).bit_length() - 1
        if stride != STRIDE * 2**steps:
            raise InputError(
                f"Heatmaps have stride {STRIDE}; deconvolutions double the size, and a map of stride {stride} does not "
                f"reach it. Choose a level of stride 4, 8, 16 or 32."
            )
        self.deconv_layers = nn.Sequential()
        for _ in range(steps):
            self.deconv_layers.append(nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False))
            self.deconv_layers.append(nn.BatchNorm2d(channels))
            self.deconv_layers.append(nn.ReLU(inplace=True))
            width = channels
        self.final_layer = nn.Conv2d(width, num_outputs, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=0.001)  # both papers' code

    def forward(self, features: Features) -> Tensor:
        """Features -> (B, K, H / 4, W / 4)."""
        return self.final_layer(self.deconv_layers(features.maps[-1]))
