"""Transforms of albumentations as a step of a pipeline.

The library is imported only if it is used: the import takes a second.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard

import cv2
import numpy as np

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, RawSample, SampleTransform

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform

RESIZING = frozenset({"Resize", "LongestMaxSize", "SmallestMaxSize"})  # transforms that show the whole image
NEAREST = (cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
RESIZED = frozenset({  # transforms that resize masks; INTER_NEAREST would move them by up to half a pixel
    *RESIZING, "CropAndPad", "RandomResizedCrop", "RandomScale", "RandomSizedBBoxSafeCrop", "RandomSizedCrop",
})  # fmt: skip
SHIFTING = {  # transforms of the image alone that move its pixels, and what to do about it
    "MotionBlur": "Set allow_shifted: false and direction_range: [0, 0] of MotionBlur.",
    "Downscale": "Set interpolation_pair: {downscale: 3, upscale: 1} of Downscale (averages areas).",
    "Emboss": "Emboss shifts edges by a pixel.",
    "GlassBlur": "GlassBlur exchanges pixels.",
    "ZoomBlur": "ZoomBlur enlarges the image.",
}


class Albumentations(SampleTransform):
    """Applies transforms of albumentations to image and mask.

    Random numbers come from the sample's generator. Keypoints are not passed to albumentations:
    its resizing shifts them by up to half a pixel, and its flips do not swap left and right.
    New pixels of a mask, such as padding, are ignored; albumentations' default gives them class 0.
    """

    targets = frozenset({"image", "mask"})

    def __init__(self, transforms: Sequence[BasicTransform | BaseCompose]):
        """Raises InputError if a mask would be interpolated, which makes up labels."""
        import albumentations

        for part in _parts(transforms):
            _keep_labels(part)
        self.shifting = [type(part).__name__ for part in _parts(transforms) if _shifts_image(part)]
        if self.shifting:
            self.targets = frozenset({"image"})
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
        mask = sample.get("mask")
        if mask is None:
            sample["image"] = self.compose(image=sample["image"])["image"]
        elif mask.ndim == 2:
            sample.update(self.compose(image=sample["image"], mask=mask))
        else:  # one layer at a time: OpenCV fills only the first channel with a number
            layers = [np.ascontiguousarray(layer) for layer in np.moveaxis(mask, 2, 0)]
            out = self.compose(image=sample["image"], masks=layers)
            sample["image"], sample["mask"] = out["image"], np.stack(out["masks"], axis=2)
        return sample


def is_albumentations(step: object) -> TypeGuard[BasicTransform | BaseCompose]:
    """Whether a step is a transform or a composite of albumentations. Does not import the library."""
    library = sys.modules.get("albumentations")
    return library is not None and isinstance(step, (library.BasicTransform, library.BaseCompose))


def geometric_parts(transform: BasicTransform | BaseCompose) -> list[str]:
    """Names of the transforms that move pixels, including those in composites such as OneOf."""
    import albumentations
    from albumentations.augmentations.dropout.transforms import BaseDropout

    in_place = (albumentations.ImageOnlyTransform, albumentations.NoOp, albumentations.PixelDropout, BaseDropout)
    return [type(part).__name__ for part in _parts([transform]) if _shifts_image(part) or not isinstance(part, in_place)]


def _parts(transforms: Sequence[BasicTransform | BaseCompose]) -> Iterator[BasicTransform]:
    """Yields the transforms, with those in composites instead of the composites."""
    import albumentations

    for transform in transforms:
        if isinstance(transform, albumentations.BaseCompose):
            yield from _parts(transform.transforms)
        else:
            yield transform


def _shifts_image(part: BasicTransform) -> bool:
    """Whether a transform moves pixels of the image and leaves the mask in place."""
    name = type(part).__name__
    if name == "MotionBlur":
        return bool(part.allow_shifted) or any(part.direction_range)
    if name == "Downscale":
        return part.interpolation_pair["downscale"] in NEAREST
    return name in SHIFTING


def _keep_labels(part: BasicTransform) -> None:
    """Sets the options of a transform that keep labels as they are. Raises InputError for an interpolation that mixes them."""
    name, interpolation = type(part).__name__, getattr(part, "mask_interpolation", None)
    if interpolation is not None and interpolation not in NEAREST:
        raise InputError(
            f"mask_interpolation of albumentations.{name} is {interpolation}, which mixes the numbers of classes. Leave it out: masks "
            f"get the label of the nearest pixel."
        )
    if interpolation is not None and name in RESIZED:
        part.mask_interpolation = cv2.INTER_NEAREST_EXACT
    if getattr(part, "fill_mask", None) == 0:  # the default
        part.fill_mask = IGNORE_INDEX


INSTEAD = {  # what to use if a step does not move a target
    "keypoints": "augment=pose, or the options of spine.data.transforms.TopDownAffine (scale, rotate, shift, flip)",
    "mask": "augment=seg, or spine.data.transforms.RandomScaleCrop",
}


def unsupported_message(step: SampleTransform, target: str) -> str:
    """Message for a geometric step that does not move `target`, a key of INSTEAD."""
    if isinstance(step, Albumentations):
        culprit = (step.shifting or step.geometric_parts)[0] if target == "mask" else step.geometric_parts[0]
        name, hint = f"albumentations.{culprit}", f" {SHIFTING[culprit]}" if culprit in SHIFTING else ""
    else:
        name = type(step).__name__
        hint = f" If it is your own step, add '{target}' to its `targets`, or set `geometric = False` if it moves no pixels."
    return f"Augmentation '{name}' moves pixels of the image but not its {target}, which the task needs. Use {INSTEAD[target]}.{hint}"
