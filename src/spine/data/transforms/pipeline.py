"""The pipeline from a raw sample to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import numpy as np
import torch

from spine.data.transforms.albumentations_adapter import INSTEAD, Albumentations, is_albumentations, unsupported_message
from spine.data.transforms.geometry import ReadingTransform
from spine.data.transforms.normalization import Normalization
from spine.data.transforms.top_down_affine import TopDownAffine
from spine.data.transforms.two_views import TwoViews
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Labels, RawSample, Sample, SampleTransform

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform

Step: TypeAlias = "SampleTransform | BasicTransform | BaseCompose"  # the last two are of albumentations

Resolution = Literal["original", "input"]


class Transform:
    """Applies steps to a raw sample, normalizes the image, and converts everything to tensors."""

    def __init__(
        self,
        steps: Sequence[Step],
        mean: Sequence[float],
        std: Sequence[float],
        pad_multiple: int = 1,
        channels: str = "rgb",
        resolution: Resolution | None = None,
    ):
        """`mean`, `std`: of red, green and blue pixels in 0..1. `pad_multiple`: height and width are
        padded to a multiple of it at the bottom and right; padded pixels of a mask are ignored.
        `channels`: order of the channels of the normalized image, "rgb" or "bgr".
        `resolution`: of the masks of an evaluation, whose images may have any sizes. "input": the steps
        change mask and image. "original": they change the image only, and the mask stays that of the
        original image. Samples then have `image_size`, and with "original" also `original_size`.

        Raises InputError if a step is neither a SampleTransform nor a transform of albumentations,
        or if one that needs the normalized image is not at the end.
        """
        self.steps = group_steps(steps)
        self.before = [step for step in self.steps if not step.after_normalization]
        self.after = [step for step in self.steps if step.after_normalization]
        if self.steps != [*self.before, *self.after]:
            raise InputError(f"{type(self.after[0]).__name__} changes the normalized image: put it at the end of the list.")
        self.reverse = channels == "bgr"
        self.normalization = Normalization(mean, std, channels)
        self.pad_multiple, self.resolution = pad_multiple, resolution

    def prepare(self, labels: Labels, needs: frozenset[str]) -> None:
        """Prepares the steps for the labels of a data set and the sample keys that a task needs.

        Raises InputError if a geometric step does not move a mask or keypoints that the task needs,
        if a crop by box comes too late, if two views are made too early, or if a step leaves out a
        part of an image that is evaluated at its original resolution.
        """
        moved = split = False
        for step in self.steps:
            for target in INSTEAD:
                kept = self.resolution == "original" and target == "mask"
                if step.geometric and target in needs and target not in step.targets and not kept:
                    raise InputError(unsupported_message(step, target))
            if self.resolution == "original" and step.geometric and not step.whole_image:
                raise InputError(partial_message(step))
            if moved and "keypoints" in needs and isinstance(step, TopDownAffine):
                raise InputError(
                    "TopDownAffine crops by the box in the original image: put it before every other step that moves pixels."
                )
            if split and step.geometric:
                raise InputError(
                    "TwoViews makes both views of an image: put it after every other step that moves pixels, so that both show "
                    "the same."
                )
            moved, split = moved or step.geometric, split or isinstance(step, TwoViews)
            step.prepare(labels, needs)

    @property
    def reads_encoded(self) -> bool:
        """Whether the first step may decode the image itself: see `ReadingTransform`."""
        return bool(self.before) and isinstance(self.before[0], ReadingTransform) and self.before[0].fast

    def __call__(
        self, sample: RawSample, rng: np.random.Generator, *, encoded: EncodedImage | None = None, normalize: bool = True
    ) -> Sample:
        """Returns the sample as tensors.

        Images (3, H, W) are stored as (H, W, 3), so that batches are channels_last without a copy.
        `encoded`: the image of a sample without `image`, if `reads_encoded`. `normalize`: False leaves
        images as uint8 pixels, for `Normalization.batch`, unless a later step or padding needs the
        normalized image.
        """
        if encoded is not None:
            sample, steps = cast(ReadingTransform, self.before[0]).read(encoded, sample, rng), self.before[1:]
        else:
            steps = self.before
        original_size = sample["image"].shape[:2]
        mask = sample.pop("mask") if self.resolution == "original" and "mask" in sample else None
        for step in steps:
            sample = step(sample, rng)
        if "keypoints" in sample:
            sample.setdefault("affine", np.eye(2, 3, dtype=np.float32))
        if normalize or not self._can_stay_pixels(sample["image"]):
            sample["image"] = self.normalization.image(sample["image"])
        for step in self.after:
            sample = step(sample, rng)
        image = sample["image"][:, :, ::-1] if self.reverse else sample["image"]
        tensors = {"image": torch.from_numpy(self._pad(image, 0.0)).permute(2, 0, 1)}
        if "tokenizer_image" in sample:
            tensors["tokenizer_image"] = torch.tensor(sample["tokenizer_image"]).permute(2, 0, 1)
        if self.resolution is not None:
            tensors["image_size"] = torch.tensor(image.shape[:2])
        if self.resolution == "original":
            tensors["original_size"] = torch.tensor(original_size)
        if mask is not None:
            tensors["mask"] = mask_tensor(mask)
        elif "mask" in sample:
            tensors["mask"] = mask_tensor(self._pad(sample["mask"], IGNORE_INDEX))
        for key, value in sample.items():
            if key in ("label", "image_id"):
                tensors[key] = torch.tensor(value, dtype=torch.float32 if np.ndim(value) else torch.int64)  # type: ignore[arg-type]
            elif key in ("keypoints", "affine", "box", "area", "box_score", "head_size"):
                tensors[key] = torch.as_tensor(value, dtype=torch.float32)
        return cast(Sample, tensors)

    def _can_stay_pixels(self, image: np.ndarray) -> bool:
        """Whether an image can be normalized later, on its device."""
        padded = any(side % self.pad_multiple for side in image.shape[:2])
        return image.dtype == np.uint8 and not (self.after or padded or self.resolution is not None)

    def _pad(self, array: np.ndarray, value: float) -> np.ndarray:
        bottom, right = (-side % self.pad_multiple for side in array.shape[:2])
        if not bottom and not right:
            return np.require(array, requirements=["C", "W"])  # Pillow's images are read-only, and PyTorch warns of such arrays
        return np.pad(array, ((0, bottom), (0, right), (0, 0))[: array.ndim], constant_values=value)


def to_pixels(image: torch.Tensor, mean: Sequence[float], std: Sequence[float], channels: str = "rgb") -> np.ndarray:
    """Converts normalized images (B, 3, H, W) back to pixels (B, H, W, 3) uint8 RGB. See `Transform` for the arguments."""
    pixels = image.detach().float().cpu()
    shift, scale = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
    pixels = (pixels.flip(1) if channels == "bgr" else pixels) * scale + shift
    return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def mask_tensor(mask: np.ndarray) -> torch.Tensor:
    """Returns a mask (H, W) as int64; one whose classes may overlap, (H, W, classes), as (classes, H, W) uint8."""
    if mask.ndim == 2:
        return torch.from_numpy(mask.astype(np.int64))
    return torch.from_numpy(np.ascontiguousarray(mask.transpose(2, 0, 1)))


def partial_message(step: SampleTransform) -> str:
    """Message for a step of an evaluation whose output does not show the whole image, and nothing else."""
    instead = "Use spine.data.transforms.Resize in augment.eval, or set task.resolution=input."
    if isinstance(step, Albumentations):
        name = f"albumentations.{step.geometric_parts[0]}"
    else:
        name = type(step).__name__
        instead += " If it is your own step and only resizes the image, set `whole_image = True`."
    return (
        f"Augmentation '{name}' changes which part of the image is seen, and task.resolution=original evaluates every pixel of the "
        f"original image. {instead}"
    )


def group_steps(steps: Sequence[Step]) -> list[SampleTransform]:
    """Wraps transforms of albumentations in the adapter. Adjacent ones share one Compose.

    Raises InputError if a step is neither a SampleTransform nor a transform of albumentations.
    """
    grouped: list[SampleTransform] = []
    for of_albumentations, group in groupby(steps, is_albumentations):
        if of_albumentations:
            grouped.append(Albumentations(list(group)))
            continue
        for step in group:
            if not isinstance(step, SampleTransform):
                name = getattr(step, "__name__", type(step).__name__)
                raise InputError(
                    f"Augmentation '{name}' is not a transform. Use one of spine.data.transforms or of albumentations, or an "
                    f"object of a subclass of spine.interfaces.SampleTransform."
                )
            grouped.append(step)
    return grouped
