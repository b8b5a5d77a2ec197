"""From a raw sample to a Sample: crops and colors drawn from the sample's own generator, then normalized tensors.

Every step takes (sample, rng) and returns the sample. A step that moves pixels is a `GeometricStep`: it moves image, mask and keypoints
together, and keeps `affine`, the way from pixels of the original image. Albumentations' transforms are steps too, wrapped so that they
draw from the sample's generator; those that move pixels are refused where there are keypoints, because their resizing shifts keypoints
by up to half a pixel and their flips do not exchange left and right.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image

from spine.data.image_files import listed, report
from spine.data.keypoint_flips import find_flip_pairs
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Labels, Sample, SampleTransform

Step = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]
Size = tuple[int, int]  # height, width
FILTERS = {"area": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resize(image: np.ndarray, size: Size, interpolation: str | None = None) -> np.ndarray:
    """Resizes (h, w[, 3]) uint8 to `size` without aliasing.

    None: an axis that shrinks is averaged over areas, one that grows is linear. "area", "bilinear" and "bicubic" are Pillow's filters,
    whose support grows where the image shrinks. "nearest" is for masks.
    """
    if image.shape[:2] == tuple(size):
        return image
    if interpolation in FILTERS:
        return np.asarray(Image.fromarray(image).resize((size[1], size[0]), FILTERS[interpolation]))
    if interpolation == "nearest":
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    smaller = min(image.shape[0], size[0]), min(image.shape[1], size[1])
    if smaller != image.shape[:2]:  # OpenCV averages areas only where no axis grows
        image = cv2.resize(image, (smaller[1], smaller[0]), interpolation=cv2.INTER_AREA)
    return image if smaller == tuple(size) else cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def check_interpolation(name: str | None) -> str | None:
    """None for "auto". InputError for a name that is unknown."""
    if name in (None, "auto"):
        return None
    if name not in FILTERS:
        raise InputError(f"interpolation is '{name}'; choices: auto, {', '.join(FILTERS)}.")
    return name


def scaling(old: Size, new: Size, top: float = 0.0, left: float = 0.0) -> np.ndarray:
    """(2, 3) from pixels of an image of size `old` to those of the same image resized to `new`, `top` and `left` pixels cut off there."""
    down, across = new[0] / old[0], new[1] / old[1]
    return np.array([[across, 0, (across - 1) / 2 - left], [0, down, (down - 1) / 2 - top]])


def chain(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(2, 3), one affine map behind another."""
    return np.concatenate([then[:, :2] @ first[:, :2], (then[:, :2] @ first[:, 2] + then[:, 2])[:, None]], axis=1)


class GeometricStep(SampleTransform):
    """Base of the steps that move pixels. `flip` is the probability of mirroring, `flip_pairs` the keypoints that change places then."""

    moves_keypoints: ClassVar[bool] = True
    flip: float = 0.0
    flip_pairs: tuple[tuple[int, int], ...] = ()  # the data set's, set by Transform

    def move_keypoints(self, sample: dict[str, Any], matrix: np.ndarray, mirrored: bool = False) -> None:
        """Keypoints through `matrix` (2, 3), which leads from pixels before the step to pixels after it; `affine` is kept up to date."""
        if "keypoints" not in sample:
            return
        keypoints = sample["keypoints"].copy()
        keypoints[:, :2] = keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        if mirrored:
            for a, b in self.flip_pairs:
                keypoints[[a, b]] = keypoints[[b, a]]
        before = sample.get("affine")
        sample["keypoints"] = keypoints
        sample["affine"] = (matrix if before is None else chain(before, matrix)).astype(np.float32)


class Resize(GeometricStep):
    """Resizes the sample to `size` (height, width), whatever its aspect."""

    def __init__(self, size: Sequence[int], interpolation: str | None = None):
        """`interpolation` of the image: "area", "bilinear", "bicubic" as in `resize`; None or "auto" its own choice."""
        self.size, self.interpolation = (int(size[0]), int(size[1])), check_interpolation(interpolation)

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample at `size`."""
        self.move_keypoints(sample, scaling(sample["image"].shape[:2], self.size))
        sample["image"] = resize(sample["image"], self.size, self.interpolation)
        if "mask" in sample:
            sample["mask"] = resize(sample["mask"], self.size, "nearest")
        return sample


class CenterCrop(GeometricStep):
    """Resizes so that `size` is `crop_pct` of the shorter side's fit, and cuts the middle: ImageNet's way to evaluate."""

    def __init__(self, size: Sequence[int], crop_pct: float | None = None, interpolation: str | None = None):
        """`crop_pct` None is 0.875. `interpolation` of the image: "area", "bilinear", "bicubic" as in `resize`; None or "auto" its own."""
        self.size, self.crop_pct = (int(size[0]), int(size[1])), 0.875 if crop_pct is None else crop_pct
        self.interpolation = check_interpolation(interpolation)

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The middle of the sample at `size`."""
        height, width = sample["image"].shape[:2]
        scale = max(self.size[0] / height, self.size[1] / width) / self.crop_pct
        scaled = max(self.size[0], round(height * scale)), max(self.size[1], round(width * scale))
        top, left = (scaled[0] - self.size[0]) // 2, (scaled[1] - self.size[1]) // 2
        self.move_keypoints(sample, scaling((height, width), scaled, top, left))
        for key in {"image", "mask"} & sample.keys():
            whole = resize(sample[key], scaled, "nearest" if key == "mask" else self.interpolation)
            sample[key] = whole[top : top + self.size[0], left : left + self.size[1]]
        return sample


class RandomScaleCrop(GeometricStep):
    """Fits the image to `size`, scales it at random and cuts or pads it back: the usual way to train segmentation.

    A scale s above 1 shows a window of 1 / s of the image; below 1 the whole image on a black, ignored ground.
    """

    def __init__(self, size: Sequence[int], scale: Sequence[float] = (0.5, 2.0), flip: float = 0.5):
        self.size, self.scale, self.flip = (int(size[0]), int(size[1])), (float(scale[0]), float(scale[1])), flip

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """A random window of the sample at `size`, mirrored with probability `flip`."""
        scale, across, down, mirrored = rng.uniform(*self.scale), rng.random(), rng.random(), rng.random() < self.flip
        old = height, width = sample["image"].shape[:2]
        if scale >= 1:  # a window of the image fills the crop
            window, inner = (max(1, round(height / scale)), max(1, round(width / scale))), self.size
            top, left = round(down * (height - window[0])), round(across * (width - window[1]))
            matrix = chain(np.array([[1.0, 0, -left], [0, 1.0, -top]]), scaling(window, self.size))
            source, target = (slice(top, top + window[0]), slice(left, left + window[1])), (slice(None), slice(None))
        else:  # the whole image fills a part of the crop
            inner = max(1, round(self.size[0] * scale)), max(1, round(self.size[1] * scale))
            top, left = round(down * (self.size[0] - inner[0])), round(across * (self.size[1] - inner[1]))
            matrix = scaling(old, inner, -top, -left)
            source, target = (slice(None), slice(None)), (slice(top, top + inner[0]), slice(left, left + inner[1]))
        for key in {"image", "mask"} & sample.keys():
            whole, mask = sample[key], key == "mask"
            crop = np.full((*self.size, *whole.shape[2:]), IGNORE_INDEX if mask else 0, whole.dtype)
            crop[target] = resize(whole[source], inner, "nearest" if mask else None)
            sample[key] = crop[:, ::-1] if mirrored else crop
        if mirrored:
            matrix = chain(matrix, np.array([[-1.0, 0, self.size[1] - 1], [0, 1, 0]]))
        self.move_keypoints(sample, matrix, mirrored)
        return sample


class TopDownAffine(GeometricStep):
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
        self.move_keypoints(sample, affine, mirrored)
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
        self.moving = [name for transform in transforms for name in moving_parts(transform)]

    @property
    def moves_keypoints(self) -> bool:
        """Whether keypoints are right after it: albumentations is used for what leaves pixels where they are."""
        return not self.moving

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The sample with its colors, and where no keypoints are, its pixels changed."""
        if self.moving and "keypoints" in sample:
            raise InputError(keypoints_left(self))
        self.compose.set_random_seed(int(rng.integers(2**31)))
        return {**sample, **self.compose(**{key: sample[key] for key in {"image", "mask"} & sample.keys()})}


def moving_parts(transform: Any) -> list[str]:
    """The names of the transforms of albumentations that move pixels, inside OneOf and other compositions too."""
    import albumentations
    from albumentations.augmentations.dropout.transforms import BaseDropout

    if isinstance(transform, albumentations.BaseCompose):
        return [name for part in transform.transforms for name in moving_parts(part)]
    still = (albumentations.ImageOnlyTransform, albumentations.NoOp, albumentations.PixelDropout, BaseDropout)
    return [] if isinstance(transform, still) else [type(transform).__name__]


def is_albumentations(step: Any) -> bool:
    """Whether a step is a transform or a composition of albumentations; does not import it."""
    library = sys.modules.get("albumentations")
    return library is not None and isinstance(step, (library.BasicTransform, library.BaseCompose))


def keypoints_left(step: Any) -> str:
    """What to say of a step that would move pixels and leave keypoints where they are."""
    what = f"albumentations.{step.moving[0]}" if isinstance(step, Albumentations) else type(step).__name__
    return (
        f"Augmentation '{what}' moves pixels and would leave the keypoints behind. Use augment=pose, or the arguments of "
        f"spine.data.transforms.TopDownAffine (scale, rotate, shift, flip). An own step that moves keypoints too, or moves no pixels, "
        f"states moves_keypoints = True."
    )


class Transform:
    """The steps of one split, then normalizing and tensors. `mean` and `std` are of pixels in 0..1, one a channel."""

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
            if step is not None and is_albumentations(step):
                run.append(step)
                continue
            if run:
                self.steps.append(Albumentations(run))
                run = []
            if step is not None:
                self.steps.append(step)
            if isinstance(step, GeometricStep):
                step.flip_pairs = flip_pairs
        self.scale = (1 / (255 * np.array(std))).astype(np.float32)
        self.shift = (-np.array(mean) / np.array(std)).astype(np.float32)
        self.multiple = multiple

    def prepare(self, labels: Labels, keys: frozenset[str]) -> None:
        """Called once, with the labels of the data set and the sample keys that are used. Where keypoints are: InputError for a step that
        would leave them behind; mirroring is switched off, and reported, where it is not known which of them change places.
        """
        if "keypoints" not in keys:
            return
        moved = False
        for step in self.steps:
            if not getattr(step, "moves_keypoints", False):
                raise InputError(keypoints_left(step))
            if moved and isinstance(step, TopDownAffine):
                raise InputError(
                    "Step TopDownAffine cuts by the box in the original image: put it before every other step that moves pixels."
                )
            moved = moved or isinstance(step, GeometricStep)
            if isinstance(step, GeometricStep) and step.flip and not labels.can_flip:
                step.flip = 0.0
                unknown = find_flip_pairs(labels.keypoints)[1] or labels.keypoints
                report(
                    f"Images are not mirrored: it is not known which keypoints change places in a mirrored image ({listed(unknown)}). "
                    f"Set dataset.flip_pairs=[[0,1],...] (numbers from 0), or dataset.flip_pairs=[] where none does."
                )

    def __call__(self, sample: dict[str, Any], rng: np.random.Generator) -> Sample:
        """A raw sample -> tensors; the image (3, H, W) lies in memory as (H, W, 3), so that batches are channels_last without a copy."""
        for step in self.steps:
            sample = step(sample, rng)
        if "keypoints" in sample:
            sample.setdefault("affine", np.eye(2, 3, dtype=np.float32))
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
