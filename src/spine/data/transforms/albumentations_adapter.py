"""Transforms of albumentations as a step of a pipeline.

The library is imported only if it is used: the import takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from spine.errors import InputError
from spine.interfaces import RawSample, SampleTransform

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform

RESIZING = frozenset({"Resize", "LongestMaxSize", "SmallestMaxSize"})  # transforms that show the whole image


class Albumentations(SampleTransform):
    """Applies transforms of albumentations to image and mask.

    Random numbers come from the sample's generator. Keypoints are not passed to albumentations:
    its resizing shifts them by up to half a pixel, and its flips do not swap left and right.
    """

    targets = frozenset({"image", "mask"})

    def __init__(self, transforms: Sequence[BasicTransform | BaseCompose]):
        import albumentations

        self.compose = albumentations.Compose(list(transforms))
        self.geometric_parts = [name for transform in transforms for name in geometric_parts(transform)]
        self.geometric = bool(self.geometric_parts)
        self.whole_image = set(self.geometric_parts) <= RESIZING

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample with a transformed image and mask.

        Raises InputError if keypoints would not move with the image.
        """
        if self.geometric and "keypoints" in sample:
            raise InputError(unsupported_message(self, "keypoints"))
        self.compose.set_random_seed(int(rng.integers(2**31)))
        arrays = {"image": sample["image"]} | ({"mask": sample["mask"]} if "mask" in sample else {})
        sample.update(self.compose(**arrays))
        return sample


def is_albumentations(step: object) -> TypeGuard[BasicTransform | BaseCompose]:
    """Whether a step is a transform or a composite of albumentations. Does not import the library."""
    library = sys.modules.get("albumentations")
    return library is not None and isinstance(step, (library.BasicTransform, library.BaseCompose))


def geometric_parts(transform: BasicTransform | BaseCompose) -> list[str]:
    """Names of the transforms that move pixels, including those in composites such as OneOf."""
    import albumentations
    from albumentations.augmentations.dropout.transforms import BaseDropout

    if isinstance(transform, albumentations.BaseCompose):
        return [name for part in transform.transforms for name in geometric_parts(part)]
    in_place = (albumentations.ImageOnlyTransform, albumentations.NoOp, albumentations.PixelDropout, BaseDropout)
    return [] if isinstance(transform, in_place) else [type(transform).__name__]


INSTEAD = {  # what to use if a step does not move a target
    "keypoints": "augment=pose, or the options of spine.data.transforms.TopDownAffine (scale, rotate, shift, flip)",
    "mask": "augment=seg, or spine.data.transforms.RandomScaleCrop",
}


def unsupported_message(step: SampleTransform, target: str) -> str:
    """Message for a geometric step that does not move `target`, a key of INSTEAD."""
    if isinstance(step, Albumentations):
        name, hint = f"albumentations.{step.geometric_parts[0]}", ""
    else:
        name = type(step).__name__
        hint = f" If it is your own step, add '{target}' to its `targets`, or set `geometric = False` if it moves no pixels."
    return f"Augmentation '{name}' moves pixels of the image but not its {target}, which the task needs. Use {INSTEAD[target]}.{hint}"
