"""Geometric transforms, which move image, mask and keypoints together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from spine.data.image_files import format_names, log_warning
from spine.data.keypoint_flips import find_flip_pairs
from spine.data.transforms.resizing import Size, check_interpolation, resize
from spine.encoded_image import EncodedImage
from spine.interfaces import IGNORE_INDEX, Labels, RawSample, SampleTransform


def scale_matrix(old: Size, new: Size, top: float = 0.0, left: float = 0.0) -> np.ndarray:
    """Affine matrix (2, 3) of a resize from size `old` to `new`, then a crop at (`top`, `left`).

    Sizes are (height, width). The center of the first pixel is (0, 0).
    """
    scale_y, scale_x = new[0] / old[0], new[1] / old[1]
    return np.array([[scale_x, 0, (scale_x - 1) / 2 - left], [0, scale_y, (scale_y - 1) / 2 - top]])


def compose_affine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Affine matrix (2, 3) that applies `first` and then `second`."""
    return np.concatenate([second[:, :2] @ first[:, :2], (second[:, :2] @ first[:, 2] + second[:, 2])[:, None]], axis=1)


class GeometricTransform(SampleTransform):
    """Base class of the transforms that move image, mask and keypoints together.

    They keep `affine` up to date.
    """

    targets = frozenset({"image", "mask", "keypoints"})
    geometric = True
    flip: float = 0.0  # probability of a horizontal flip
    flip_pairs: tuple[tuple[int, int], ...] = ()  # keypoints that swap in a flipped image

    def prepare(self, labels: Labels, needs: frozenset[str]) -> None:
        """Takes the flip pairs of the data set.

        Turns flipping off, with a warning, if the pairs of needed keypoints are unknown.
        """
        self.flip_pairs = labels.flip_pairs
        if "keypoints" in needs and self.flip and not labels.can_flip:
            self.flip = 0.0
            unknown = find_flip_pairs(labels.keypoints)[1] or labels.keypoints
            log_warning(
                f"Images are not flipped: it is not known which keypoints swap in a flipped image ({format_names(unknown)}). "
                f"Set dataset.flip_pairs=[[0,1],...] (indices from 0), or dataset.flip_pairs=[] if none swap."
            )

    def transform_image_and_mask(self, sample: RawSample, transform: Callable[[np.ndarray, bool], np.ndarray]) -> None:
        """Replaces image and mask by `transform(image, False)` and `transform(mask, True)`."""
        sample["image"] = transform(sample["image"], False)
        if "mask" in sample:
            sample["mask"] = transform(sample["mask"], True)

    def transform_keypoints(self, sample: RawSample, matrix: np.ndarray, flipped: bool = False) -> None:
        """Moves keypoints and updates `affine`.

        `matrix` (2, 3) maps pixels before the step to pixels after it.
        """
        if "keypoints" not in sample:
            return
        keypoints = sample["keypoints"].copy()
        keypoints[:, :2] = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        if flipped:
            for a, b in self.flip_pairs:
                keypoints[[a, b]] = keypoints[[b, a]]
        before = sample.get("affine")
        sample["keypoints"] = keypoints
        sample["affine"] = (matrix if before is None else compose_affine(before, matrix)).astype(np.float32)


class ReadingTransform(GeometricTransform):
    """Base class of the steps that decode only what they need of an image, if they are the first step and `fast`."""

    fast: bool = False

    @abstractmethod
    def read(self, encoded: EncodedImage, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the transformed sample of a sample without `image`. It draws the same numbers as a call."""


class HorizontalFlip(GeometricTransform):
    """Mirrors image, mask and keypoints left and right, and swaps left and right keypoints."""

    def __init__(self, p: float = 0.5):
        """`p`: probability of a flip."""
        self.flip = p

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample, flipped or not."""
        if rng.random() >= self.flip:
            return sample
        width = sample["image"].shape[1]

        def mirror(array: np.ndarray, is_mask: bool) -> np.ndarray:
            return np.ascontiguousarray(array[:, ::-1]) if is_mask else cv2.flip(array, 1)

        self.transform_image_and_mask(sample, mirror)
        self.transform_keypoints(sample, np.array([[-1.0, 0, width - 1], [0, 1, 0]]), flipped=True)
        return sample


class Resize(GeometricTransform):
    """Resizes to `size` (height, width) without keeping the aspect ratio."""

    whole_image = True

    def __init__(self, size: Sequence[int], interpolation: str | None = None):
        """`interpolation` of the image: "area", "bilinear", "bicubic", "lanczos" or "linear"; None or "auto"
        selects by the change of size (see `resize`).
        """
        self.size, self.interpolation = (int(size[0]), int(size[1])), check_interpolation(interpolation)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample resized to `size`."""
        self.transform_keypoints(sample, scale_matrix(sample["image"].shape[:2], self.size))
        self.transform_image_and_mask(
            sample, lambda array, is_mask: resize(array, self.size, "nearest" if is_mask else self.interpolation)
        )
        return sample


class CenterCrop(GeometricTransform):
    """Resizes, then crops the center: ImageNet's evaluation crop.

    The crop of `size` (height, width) covers the fraction `crop_pct` of the resized image along the
    side that limits it.
    """

    def __init__(self, size: Sequence[int], crop_pct: float | None = None, interpolation: str | None = None):
        """`crop_pct`: crop size divided by the size before the crop; None is 0.875.

        `interpolation` of the image: "area", "bilinear", "bicubic", "lanczos" or "linear"; None or "auto"
        selects by the change of size (see `resize`).
        """
        self.size, self.crop_pct = (int(size[0]), int(size[1])), 0.875 if crop_pct is None else crop_pct
        self.interpolation = check_interpolation(interpolation)

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the center of the sample at `size`."""
        height, width = sample["image"].shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width) / self.crop_pct
        scaled = max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))
        top, left = (scaled[0] - self.size[0]) // 2, (scaled[1] - self.size[1]) // 2

        def crop(array: np.ndarray, is_mask: bool) -> np.ndarray:
            whole = resize(array, scaled, "nearest" if is_mask else self.interpolation)
            return whole[top : top + self.size[0], left : left + self.size[1]]

        self.transform_keypoints(sample, scale_matrix((height, width), scaled, top, left))
        self.transform_image_and_mask(sample, crop)
        return sample


class RandomScaleCrop(GeometricTransform):
    """Resizes to `size`, scales at random, and crops or pads back to `size`.

    This is the usual augmentation of segmentation. A scale s above 1 crops a window of 1 / s of
    the image. A scale below 1 pads the image with black, and its mask with ignored pixels.
    """

    def __init__(self, size: Sequence[int], scale: Sequence[float] = (0.5, 2.0), flip: float = 0.5):
        """`scale`: range of the scale; `flip`: probability of a horizontal flip."""
        self.size, self.scale, self.flip = (int(size[0]), int(size[1])), (float(scale[0]), float(scale[1])), flip

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random window of the sample at `size`."""
        scale, across, down, flipped = rng.uniform(*self.scale), rng.random(), rng.random(), rng.random() < self.flip
        old = height, width = sample["image"].shape[:2]
        everything = slice(None), slice(None)
        if scale >= 1:  # a window of the image fills the crop
            window, inner = (max(1, round(height / scale)), max(1, round(width / scale))), self.size
            top, left = round(down * (height - window[0])), round(across * (width - window[1]))
            matrix = compose_affine(np.array([[1.0, 0, -left], [0, 1.0, -top]]), scale_matrix(window, self.size))
            source, target = (slice(top, top + window[0]), slice(left, left + window[1])), everything
        else:  # the whole image fills a part of the crop
            inner = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
            top, left = round(down * (self.size[0] - inner[0])), round(across * (self.size[1] - inner[1]))
            matrix = scale_matrix(old, inner, -top, -left)
            source, target = everything, (slice(top, top + inner[0]), slice(left, left + inner[1]))

        def crop(array: np.ndarray, is_mask: bool) -> np.ndarray:
            result = np.full((*self.size, *array.shape[2:]), IGNORE_INDEX if is_mask else 0, array.dtype)
            result[target] = resize(array[source], inner, "nearest" if is_mask else None)
            return result[:, ::-1] if flipped else result

        self.transform_image_and_mask(sample, crop)
        if flipped:
            matrix = compose_affine(matrix, np.array([[-1.0, 0, self.size[1] - 1], [0, 1, 0]]))
        self.transform_keypoints(sample, matrix, flipped)
        return sample
