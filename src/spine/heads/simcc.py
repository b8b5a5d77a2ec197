"""SimCC: coordinate classification (Li et al., arXiv 2107.03332).

The column and the row of a keypoint are classes, with several bins for each pixel of the image. No
heatmaps of high resolution are computed, which saves most of the head's cost after small backbones.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import resize_map
from spine.layers.pyramid import best_level
from spine.task_spec import HeadInput


class SimCC(Head):
    """A small map per keypoint, flattened, and two linear classifiers that all keypoints share.

    It reads the finest map of a fused backbone (HRNet), and otherwise the coarsest, without
    upsampling it. The size of the images is fixed.
    """

    reads: ClassVar[HeadInput] = "maps"
    tasks: ClassVar[tuple[str, ...] | None] = ("pose",)

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...]:
        """Returns the finest level of a fused backbone (HRNet), else the coarsest."""
        return best_level(spec)

    def __init__(
        self,
        spec: FeatureSpec,
        num_outputs: int,
        *,
        image_size: tuple[int, int] = (224, 224),
        split_ratio: float = 2.0,
        channels: int | None = None,
    ):
        """`image_size`: (height, width) of the images. `split_ratio`: bins for each pixel.

        `channels`: of each keypoint before flattening; None: 1 for HRNet and 28 for other backbones,
        as in the authors' networks. Raises InputError if a side of the images is not a whole number of bins.
        """
        super().__init__()
        bins = [side * split_ratio for side in image_size]
        if any(count != round(count) for count in bins):
            raise InputError(
                f"head.split_ratio is {split_ratio}; the sides of the images ({image_size[0]}x{image_size[1]}) times it "
                f"must be whole numbers of bins."
            )
        width, stride = spec.levels[-1]
        channels = (1 if spec.fused else 28) if channels is None else channels
        self.image_size, self.num_keypoints = tuple(image_size), num_outputs
        self.map_size = (-(-image_size[0] // stride), -(-image_size[1] // stride))
        features = channels * self.map_size[0] * self.map_size[1]
        self.final_layer = nn.Conv2d(width, num_outputs * channels, 1)
        self.mlp_head_x = nn.Linear(features, round(bins[1]))
        self.mlp_head_y = nn.Linear(features, round(bins[0]))
        nn.init.normal_(self.final_layer.weight, std=0.001)
        for layer in (self.mlp_head_x, self.mlp_head_y):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Features) -> Tensor:
        """Features -> logits (B, K, X + Y) of the bins of the columns, then of the rows.

        Raises InputError if the map is not of images of `image_size`.
        """
        x = features.maps[-1]
        if any(abs(side - built) > 1 for side, built in zip(x.shape[-2:], self.map_size, strict=True)):
            raise InputError(
                f"This network with head 'simcc' classifies the coordinates in images of {self.image_size[0]}x{self.image_size[1]} "
                f"pixels. Other sizes need a network that was built for them."
            )
        x = resize_map(self.final_layer(x), self.map_size)  # Xception's maps are a pixel smaller than its strides say
        x = x.reshape(x.shape[0], self.num_keypoints, -1)  # (B, K, channels * h * w)
        return torch.cat([self.mlp_head_x(x), self.mlp_head_y(x)], dim=-1)
