"""Transforms of samples.

A pipeline (`Transform`) is a list of steps followed by normalization. A step is a
`spine.interfaces.SampleTransform` or a transform of albumentations. The geometric steps of this
package move image, mask and keypoints together. `Mixing` changes whole batches.
"""

from spine.data.transforms.auto_augment import AutoAugment, RandAugment
from spine.data.transforms.geometry import CenterCrop, HorizontalFlip, RandomScaleCrop, Resize
from spine.data.transforms.lighting import Lighting
from spine.data.transforms.mixing import Mixing
from spine.data.transforms.photometric_distortion import PhotometricDistortion
from spine.data.transforms.pipeline import Step, Transform
from spine.data.transforms.random_crop import Pad, RandomCrop
from spine.data.transforms.random_erasing import RandomErasing
from spine.data.transforms.random_resized_crop import RandomResizedCrop
from spine.data.transforms.resizing import resize
from spine.data.transforms.scaling import RandomResize, ResizeToMultiple, ResizeToScale
from spine.data.transforms.top_down_affine import TopDownAffine
from spine.data.transforms.trivial_augment import TrivialAugment
from spine.data.transforms.two_views import CenterRegion, RandomRegion, TwoViews

__all__ = [
    "AutoAugment", "CenterCrop", "CenterRegion", "HorizontalFlip", "Lighting", "Mixing", "Pad", "PhotometricDistortion", "RandAugment",
    "RandomCrop", "RandomErasing", "RandomRegion", "RandomResize", "RandomResizedCrop", "RandomScaleCrop", "Resize", "ResizeToMultiple",
    "ResizeToScale", "Step", "TopDownAffine", "Transform", "TrivialAugment", "TwoViews", "resize",
]  # fmt: skip
