"""Transforms of samples.

A pipeline (`Transform`) is a list of steps followed by normalization. A step is a
`spine.interfaces.SampleTransform` or a transform of albumentations. Steps of this package move
image, mask and keypoints together.
"""

from spine.data.transforms.geometry import CenterCrop, RandomScaleCrop, Resize, TopDownAffine
from spine.data.transforms.pipeline import Step, Transform
from spine.data.transforms.resizing import resize
from spine.data.transforms.two_views import CenterRegion, RandomRegion, TwoViews

__all__ = [
    "CenterCrop", "CenterRegion", "RandomRegion", "RandomScaleCrop", "Resize", "Step", "TopDownAffine", "Transform", "TwoViews", "resize",
]  # fmt: skip
