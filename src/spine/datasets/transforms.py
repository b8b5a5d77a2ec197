"""From a raw sample to a Sample: crops and colours drawn from the sample's own generator, then normalised tensors.

Every step takes (sample, rng) and returns the sample. Albumentations' transforms are steps too, wrapped so that they draw from the
sample's generator; what moves keypoints is done here, by one affine warp, because resizing there shifts them by half a pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Sample

Step = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
Size = tuple[int, int]  # height, width


INTERPOLATIONS = ("auto", "area", "bilinear", "bicubic")


def resize(picture: np.ndarray, size: Size, nearest: bool = False, interpolation: str = "auto") -> np.ndarray:
    """Resizes (h, w[, 3]) to `size`; masks take the nearest.

    `interpolation`: auto averages areas on the way down and is bilinear on the way up; area; bilinear and bicubic, antialiased as PIL's.
    """
    if picture.shape[:2] == tuple(size):
        return picture
    if not nearest and interpolation in ("bilinear", "bicubic"):
        image = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None]
        resized = torch.nn.functional.interpolate(image, tuple(size), mode=interpolation, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()
    if not nearest and interpolation == "area":
        return cv2.resize(picture, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    smaller = picture.shape[0] > size[0]
    how = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(picture, (size[1], size[0]), interpolation=how)


class Resize:
    """Resizes image and mask to `size` (height, width), whatever their aspect."""

    def __init__(self, size: Sequence[int]):
        self.size = (int(size[0]), int(size[1]))

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample at `size`."""
        sample["image"] = resize(sample["image"], self.size)
        if "mask" in sample:
            sample["mask"] = resize(sample["mask"], self.size, nearest=True)
        return sample


class CenterCrop:
    """Resizes so that `size` is `crop_pct` of the shorter side's fit, and cuts the middle: ImageNet's way to evaluate."""

    def __init__(self, size: Sequence[int], crop_pct: float | None = None, interpolation: str | None = None):
        """`crop_pct` None is 0.875; `interpolation`: auto (None), area, bilinear or bicubic."""
        if interpolation not in (None, *INTERPOLATIONS):
            raise InputError(f"interpolation is '{interpolation}'; choose {', '.join(INTERPOLATIONS)}.")
        self.size, self.crop_pct = (int(size[0]), int(size[1])), 0.875 if crop_pct is None else crop_pct
        self.interpolation = interpolation or "auto"

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The middle of the sample at `size`."""
        height, width = sample["image"].shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width) / self.crop_pct
        scaled = max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))
        top, left = (scaled[0] - self.size[0]) // 2, (scaled[1] - self.size[1]) // 2
        for key in {"image", "mask"} & sample.keys():
            picture = resize(sample[key], scaled, nearest=key == "mask", interpolation=self.interpolation)
            sample[key] = picture[top : top + self.size[0], left : left + self.size[1]]
        return sample


class RandomScaleCrop:
    """Fits the picture to `size`, scales it at random and cuts or pads it back: the usual way to train segmentation.

    A scale s above 1 shows a window of 1 / s of the picture; below 1 the whole picture on a black, ignored ground.
    """

    def __init__(self, size: Sequence[int], scale: Sequence[float] = (0.5, 2.0), flip: float = 0.5):
        self.size, self.scale, self.flip = (int(size[0]), int(size[1])), (float(scale[0]), float(scale[1])), flip

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """A random window of the sample at `size`, mirrored with probability `flip`."""
        scale, across, down, mirrored = rng.uniform(*self.scale), rng.random(), rng.random(), rng.random() < self.flip
        height, width = sample["image"].shape[:2]
        for key in {"image", "mask"} & sample.keys():
            picture = sample[key]
            if scale >= 1:
                window = max(1, round(height / scale)), max(1, round(width / scale))
                top, left = round(down * (height - window[0])), round(across * (width - window[1]))
                picture = picture[top : top + window[0], left : left + window[1]]
                picture = resize(picture, self.size, nearest=key == "mask")
            else:
                small = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
                top, left = round(down * (self.size[0] - small[0])), round(across * (self.size[1] - small[1]))
                ground = np.full((*self.size, *picture.shape[2:]), IGNORE_INDEX if key == "mask" else 0, picture.dtype)
                ground[top : top + small[0], left : left + small[1]] = resize(picture, small, nearest=key == "mask")
                picture = ground
            sample[key] = picture[:, ::-1] if mirrored else picture
        return sample


class TopDownAffine:
    """Cuts one object out by its box with one affine warp, scaled, turned and mirrored at random.

    The box is widened to the aspect of `size` and by `padding`. The first pixel's centre is (0, 0), so that the picture spans
    -0.5 to width - 0.5, and that span is what is mapped: no half pixel is lost. Mirroring exchanges `flip_pairs`.
    """

    def __init__(
        self,
        size: Sequence[int],
        padding: float = 1.25,
        scale: float = 0.0,
        rotate: float = 0.0,
        shift: float = 0.0,
        flip: float = 0.0,
    ):
        """`scale` and `shift`: largest relative change; `rotate`: largest angle in degrees; `flip`: probability."""
        self.size, self.padding = (int(size[0]), int(size[1])), padding
        self.scale, self.rotate, self.shift, self.flip = scale, rotate, shift, flip
        self.flip_pairs: tuple[tuple[int, int], ...] = ()  # the data set's, set by Transform

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The object cut out: image, mask and keypoints at `size`, and the `affine` that led there."""
        scale, angle, *shift = rng.uniform(-1, 1, 4) * (self.scale, self.rotate, self.shift, self.shift)
        mirrored = rng.random() < self.flip
        affine = self.matrix(sample["box"], 1 + scale, angle, shift, mirrored)
        for key in {"image", "mask"} & sample.keys():
            sample[key] = cv2.warpAffine(
                sample[key],
                affine,
                (self.size[1], self.size[0]),
                flags=cv2.INTER_NEAREST if key == "mask" else cv2.INTER_LINEAR,
                borderValue=IGNORE_INDEX if key == "mask" else (0, 0, 0),
            )
        if "keypoints" in sample:
            keypoints = sample["keypoints"].copy()
            keypoints[:, :2] = keypoints[:, :2] @ affine[:, :2].T + affine[:, 2]
            if mirrored:
                for a, b in self.flip_pairs:
                    keypoints[[a, b]] = keypoints[[b, a]]
            sample["keypoints"], sample["affine"] = keypoints, affine.astype(np.float32)
        return sample

    def matrix(self, box: np.ndarray, scale: float, angle: float, shift: Sequence[float], mirrored: bool) -> np.ndarray:
        """(2, 3) from pixels of the picture to pixels of the crop."""
        height, width = self.size
        x, y, w, h = (float(value) for value in box)
        span = max(w, h * width / height) * self.padding * scale  # of the picture, across the whole crop
        zoom = width / span
        cos, sin = np.cos(np.deg2rad(angle)) * zoom, np.sin(np.deg2rad(angle)) * zoom
        turn = np.array([[cos, sin], [-sin, cos]])
        if mirrored:
            turn[0] *= -1
        centre = np.array([x + w / 2 - 0.5 + shift[0] * w, y + h / 2 - 0.5 + shift[1] * h])
        middle = np.array([(width - 1) / 2, (height - 1) / 2])
        return np.concatenate([turn, (middle - turn @ centre)[:, None]], axis=1)


class Albumentations:
    """Transforms of albumentations, drawing from the sample's generator and not from a state of their own."""

    def __init__(self, transforms: list[Any]):
        import albumentations

        self.compose = albumentations.Compose(transforms)
        self.moves = any(isinstance(t, albumentations.DualTransform) for t in transforms)

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its colours, and where no keypoints are, its pixels changed."""
        if self.moves and "keypoints" in sample:
            raise InputError(
                "An augmentation of albumentations that moves pixels would leave the keypoints behind. Use the arguments of "
                "spine.datasets.transforms.TopDownAffine (scale, rotate, shift, flip) instead."
            )
        self.compose.set_random_seed(int(rng.integers(2**31)))
        return {**sample, **self.compose(**{key: sample[key] for key in {"image", "mask"} & sample.keys()})}


class Transform:
    """The steps of one split, then normalising and tensors. `mean` and `std` are of pixels in 0..1, one a channel."""

    def __init__(
        self,
        steps: Sequence[Any],
        mean: Sequence[float],
        std: Sequence[float],
        flip_pairs: tuple[tuple[int, int], ...] = (),
        multiple: int = 1,
    ):
        """`multiple`: sides are padded at the right and bottom to a multiple of it, with ignored mask (patches of token models)."""
        self.steps: list[Step] = []
        run: list[Any] = []
        for step in [*steps, None]:  # neighbours from albumentations share one Compose
            if step is not None and type(step).__module__.startswith("albumentations"):
                run.append(step)
                continue
            if run:
                self.steps.append(Albumentations(run))
                run = []
            if step is not None:
                self.steps.append(step)
            if isinstance(step, TopDownAffine):
                step.flip_pairs = flip_pairs
        self.scale = (1 / (255 * np.array(std))).astype(np.float32)
        self.shift = (-np.array(mean) / np.array(std)).astype(np.float32)
        self.multiple = multiple

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> Sample:
        """A raw sample -> tensors; the image (3, H, W) lies in memory as (H, W, 3), so that batches are channels_last without a copy."""
        for step in self.steps:
            sample = step(sample, rng)
        image = sample["image"] * self.scale
        image += self.shift
        image, mask = self._pad(image, 0.0), sample.get("mask")
        tensors: Any = {"image": torch.from_numpy(image).permute(2, 0, 1)}
        if mask is not None:
            tensors["mask"] = torch.from_numpy(self._pad(mask, IGNORE_INDEX).astype(np.int64))
        for key in {"label", "image_id"} & sample.keys():
            tensors[key] = torch.tensor(sample[key], dtype=torch.int64)
        for key in {"keypoints", "affine", "box", "area"} & sample.keys():
            tensors[key] = torch.as_tensor(sample[key], dtype=torch.float32)
        return tensors

    def _pad(self, picture: np.ndarray, value: float) -> np.ndarray:
        down, right = (-side % self.multiple for side in picture.shape[:2])
        if not down and not right:
            return np.ascontiguousarray(picture)
        return np.pad(picture, ((0, down), (0, right), (0, 0))[: picture.ndim], constant_values=value)
