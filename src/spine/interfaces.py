"""The vocabulary of the house: what a backbone emits, what a head reads, what a sample holds.

Shape letters, used everywhere: B batch, C channels, H W image, h w map, N tokens, K keypoints, P patch side, D embedding width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, TypedDict

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from spine.errors import InputError
from spine.task_spec import HeadInput

Use = Literal["pooled", "maps", "drop", "replace"]
IGNORE_INDEX = 255  # value of a mask pixel that neither loss nor metric counts


class Level(NamedTuple):
    """One feature map: its channels, and how many image pixels one of its pixels steps over."""

    channels: int
    stride: int


@dataclass(frozen=True)
class FeatureSpec:
    """What a backbone emits, known before any forward."""

    levels: tuple[Level, ...]  # fine to coarse; those it was built for
    embed_dim: int  # D, width of the pooled embedding
    patch_size: int | None = None  # token models
    grid: tuple[int, int] | None = None  # token models: patches down and across at the image size they were built for
    masking: frozenset[str] = frozenset()  # "drop": hidden patches are not encoded; "replace": a mask token takes their place
    fused: bool = False  # every level has exchanged with all others, so that the finest alone carries the meaning (HRNet)


class Features(NamedTuple):
    """What `Backbone.forward` returns: maps (B, C_i, h_i, w_i) fine to coarse, and the class token (B, D) of token models."""

    maps: tuple[Tensor, ...]
    cls_token: Tensor | None = None


class Tokens(NamedTuple):
    """What an encoder of masked images returns: patches (B, N_visible or N, D) in raster order, class token (B, D)."""

    patches: Tensor
    cls_token: Tensor | None = None


class Backbone(nn.Module):
    """A network without its last layer, built for one use: `pooled`, `maps` at chosen levels, or masked, `drop` or `replace`."""

    spec: FeatureSpec
    pooling: nn.Module  # what only pool() uses

    def forward(self, image: Tensor) -> Features:
        """Feature maps of normalised images (B, 3, H, W)."""
        raise TypeError(f"{type(self).__name__} was not built for feature maps.")

    def pool(self, features: Features) -> Tensor:
        """The embedding (B, D): what the paper feeds to its last linear layer."""
        return self.pooling(features)

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str) -> Tokens:
        """Encodes images (B, 3, H, W) whose patches are hidden where patch_mask (B, N) is True; only where spec.masking offers it."""
        raise TypeError(f"{type(self).__name__} has no masked form; MaskedModel paints the hidden patches over instead.")

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Groups of parameter-name prefixes in forward order, each parameter in exactly one: for layer decay and freezing."""
        raise TypeError(f"{type(self).__name__} does not state the order of its layers.")


class Head(nn.Module):
    """What turns features into a task's answer."""

    reads: ClassVar[HeadInput]
    levels: ClassVar[tuple[int, ...] | None] = None  # which maps it reads, None for all
    masking: ClassVar[
        tuple[str, ...]
    ] = ()  # heads of tokens: the ways of masking that they read_weight_file, the preferred one first

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...] | None:
        """Levels to read of a backbone that offers `spec`. Asked before either part is built."""
        return cls.levels


@dataclass(frozen=True)
class Labels:
    """What a data set knows about its annotations. Empty where it has none of that kind."""

    classes: tuple[str, ...] = ()  # of whole images
    mask_classes: tuple[str, ...] = ()  # of pixels
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of keypoint indices, from 0
    flip_pairs: tuple[tuple[int, int], ...] = ()  # keypoints that change places in a mirrored image
    sigmas: tuple[float, ...] = ()  # per keypoint, of the object keypoint similarity (COCO)
    can_flip: bool = True  # False: which keypoints change places is not known, so that images must not be mirrored

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> Labels:
        """Labels as a checkpoint holds them: lists and tuples of plain values. Unknown keys are ignored."""

        def frozen(value: object) -> object:
            return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

        known = {field.name for field in fields(cls)}
        return cls(**{key: frozen(value) for key, value in saved.items() if key in known})  # type: ignore[arg-type]


class Sample(TypedDict, total=False):
    """What a data set's samples may hold once transformed; every sample of a data set holds the same keys."""

    image: Tensor  # (3, H, W) float32, normalised
    label: Tensor  # () int64
    mask: Tensor  # (H, W) int64, 255 = ignore
    keypoints: Tensor  # (K, 3) float32: x, y in pixels of `image` (the centre of the first pixel is 0, 0), visibility 0/1/2
    patch_mask: Tensor  # (N,) bool, True = hidden
    index: Tensor  # () int64
    affine: Tensor  # (2, 3) float32: from pixels of the original picture to pixels of `image`; with keypoints
    box: Tensor  # (4,) float32: x, y, width, height of the object in the original picture; with keypoints
    area: Tensor  # () float32: pixels of the object in the original picture; with keypoints
    image_id: Tensor  # () int64: objects of one picture share it; with keypoints


class RawSample(TypedDict, total=False):
    """A sample before it is converted to tensors: the input and the output of transforms."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    label: int
    mask: np.ndarray  # (H, W) uint8, 255 = ignore
    keypoints: np.ndarray  # (K, 3) float32: x, y in pixels of `image`, visibility 0/1/2
    box: np.ndarray  # (4,) float32: x, y, width, height in pixels of the original image; with keypoints
    area: float  # of the object, in pixels of the original image; with keypoints
    image_id: int  # objects in the same image share it; with keypoints
    affine: np.ndarray  # (2, 3) float32: from pixels of the original image to pixels of `image`; set by geometric transforms


class SampleTransform(ABC):
    """One step of a transform pipeline.

    A geometric step moves pixels of the image. The pipeline refuses it if the task needs masks or
    keypoints that the step does not move with the image, so a subclass declares what it moves:

        class Shear(SampleTransform):
            targets = frozenset({"image", "mask", "keypoints"})
            geometric = True

    A step that changes colors only sets `geometric = False`. Most steps declare both as class
    attributes; a step that wraps other steps may set them on the instance.
    """

    targets: frozenset[str] = frozenset({"image"})  # of image, mask, keypoints: those that the step transforms consistently
    geometric: bool = True  # whether it moves pixels

    def prepare(self, labels: Labels, needs: frozenset[str]) -> None:  # noqa: B027
        """Called once before the first sample.

        `labels`: of the data set; `needs`: sample keys that the task needs.
        """

    @abstractmethod
    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the transformed sample.

        Every random number comes from `rng`, the sample's generator.
        """


SampleExtra = Callable[[np.random.Generator], Tensor]  # what a task adds to every sample, drawn from the sample's generator


class DataSet(Dataset):
    """One split of a data set on disk or rendered. `load` reads; cropping, augmenting and normalising come after it."""

    provides: ClassVar[frozenset[str]]  # sample keys it can give
    labels: Labels

    def __len__(self) -> int:
        """Number of samples."""
        raise TypeError(f"{type(self).__name__} does not state its length.")

    def check(self, needs: frozenset[str]) -> None:
        """Called before the first sample is read, with the sample keys that will be used. Raises InputError for what can be known before
        training, and reports the rest as warnings of the logger `spine.data`. `load` may leave out other keys afterwards.
        """

    def load(self, index: int) -> RawSample:
        """A raw sample: `image` (H, W, 3) uint8 RGB; of what it provides: `label` int, `mask` (H, W) uint8 with 255 = ignore,
        `keypoints` (K, 3) float32 in pixels with `box` (4,) x, y, width, height, `area` and `image_id`.
        """
        raise TypeError(f"{type(self).__name__} does not say how a sample is read.")


def pick_levels(levels: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Level numbers 0..count-1 in ascending order; None means all, negative ones count from the coarsest."""
    if levels is None:
        return tuple(range(count))
    if bad := [level for level in levels if not -count <= level < count]:
        raise InputError(f"There is no feature level {bad[0]}: this backbone has {count} of them, 0 (finest) to {count - 1}.")
    if not levels:
        raise InputError(f"No feature level was chosen; choose among 0 (finest) to {count - 1}.")
    return tuple(sorted({level % count for level in levels}))


def check_use(use: str, offered: tuple[str, ...] = ("pooled", "maps")) -> None:
    """InputError where a backbone is asked for a use that it was not written for."""
    if use not in offered:
        raise InputError(f"use is '{use}'; this backbone can be built for {', '.join(offered)}.")
