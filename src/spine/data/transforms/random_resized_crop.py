"""The random resized crop of timm and torchvision, with Pillow's filters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spine.data.image_files import decode, exif_orientation
from spine.data.jpeg import SCALES, decode_reduced, read_jpeg_header
from spine.data.transforms.geometry import ReadingTransform, scale_matrix
from spine.data.transforms.resizing import Size, check_interpolation, resize, resize_fast
from spine.data.transforms.two_views import RandomRegion, Region
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.interfaces import RawSample

RANDOM = ("bilinear", "bicubic")  # one of them is drawn for each image with interpolation "random"


class RandomResizedCrop(RandomRegion, ReadingTransform):
    """Crops a region of random area, aspect ratio and place, and resizes it to `size` (height, width)."""

    def __init__(
        self,
        size: Sequence[int],
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str | None = "random",
        fast: bool = False,
    ):
        """`scale`: range of the area, as a fraction of that of the image. `ratio`: range of width / height.

        `interpolation` of the image: a filter of `resize`, such as "bicubic"; "random" for bilinear or
        bicubic, drawn for each image; None or "auto" selects by the change of size.

        `fast`, for "bilinear" only: values differ by at most 1 from those of Pillow. As the first step, it
        also decodes a JPEG file at 1/2, 1/4 or 1/8 of its size if the region is still at least as large
        as `size` then. The edges of the region are rounded to whole pixels of that size, and its
        values differ a little from those of the whole decoded image (in photos by 1 to 1.4 of 255 on average).
        """
        super().__init__(scale, ratio)
        self.size, self.fast = (int(size[0]), int(size[1])), fast
        self.filters = RANDOM if interpolation == "random" else (check_interpolation(interpolation),)
        if fast and self.filters != ("bilinear",):
            raise InputError(f"RandomResizedCrop: fast=true needs interpolation=bilinear, not {interpolation or 'auto'}.")

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random region of the sample at `size`."""
        height, width = sample["image"].shape[:2]
        return self._resized(sample, self.draw((height, width), rng), rng)

    def _resized(self, sample: RawSample, region: Region, rng: np.random.Generator) -> RawSample:
        sample = self.crop(sample, region)
        chosen = self.filters[rng.integers(len(self.filters))] if len(self.filters) > 1 else self.filters[0]
        self.transform_keypoints(sample, scale_matrix(region[2:], self.size))
        self.transform_image_and_mask(sample, lambda array, is_mask: self._resize(array, "nearest" if is_mask else chosen))
        return sample

    def _resize(self, array: np.ndarray, interpolation: str | None) -> np.ndarray:
        return (
            resize_fast(array, self.size)
            if self.fast and interpolation == "bilinear"
            else resize(array, self.size, interpolation)
        )

    def read(self, encoded: EncodedImage, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns a random region of a sample without `image` at `size`. Raises InputError if the file is broken."""
        size = _stored_size(encoded)
        if size is None:
            sample["image"] = decode(encoded)
            return self(sample, rng)
        region = self.draw(size, rng)
        scale = next((n for n in SCALES if min(region.height // self.size[0], region.width // self.size[1]) >= n), 1)
        reduced = decode_reduced(encoded.data, scale) if scale > 1 else None
        if reduced is None:
            sample["image"] = decode(encoded)
            return self._resized(sample, region, rng)
        part = region.divided(scale, size)
        region = Region(*(side * scale for side in part))
        top, left, height, width = part
        sample["image"] = self._resize(reduced[top : top + height, left : left + width], "bilinear")
        self.transform_keypoints(sample, scale_matrix(size, size, region.top, region.left))
        self.transform_keypoints(sample, scale_matrix(region[2:], self.size))
        if "mask" in sample:
            mask = sample["mask"][region.top : region.top + region.height, region.left : region.left + region.width]
            sample["mask"] = self._resize(mask, "nearest")
        return sample


def _stored_size(encoded: EncodedImage) -> Size | None:
    """Returns the size of a JPEG file whose stored pixels are those that `decode` returns. None for others."""
    header = read_jpeg_header(encoded.data)
    if header is None:
        return None
    size = header.height, header.width
    if encoded.size is not None:
        return size if size == tuple(encoded.size) else None
    turned = encoded.upright and header.has_exif and exif_orientation(encoded.data) != 1
    return None if turned else size
