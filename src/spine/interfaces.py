"""Shared interfaces: Backbone and Head with their features, DataSet, Labels and Sample.

Shape letters in all docstrings: B batch, C channels, H and W height and width of the image, h and w
height and width of a feature map, N tokens, K keypoints, P patch size in pixels, D embedding width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, NamedTuple, TypedDict

import numpy as np
from torch import Tensor, nn
from torch.utils.data import Dataset

from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.task_spec import HeadInput

Use = Literal["pooled", "maps", "drop", "replace"]
Palette = tuple[tuple[int, int, int], ...]  # red, green and blue of classes in 0..255
IGNORE_INDEX = 255  # mask pixels with this value are ignored by losses and metrics


class Level(NamedTuple):
    """Channels and stride of one feature map. The stride is in image pixels."""

    channels: int
    stride: int


@dataclass(frozen=True)
class FeatureSpec:
    """Shapes of the outputs of a backbone, known before the first forward pass. Heads are built from it.

    levels: the feature maps that the backbone was built for, fine to coarse.
    embed_dim: D, the width of the pooled embedding.
    patch_size, grid: of token networks: P, and the number of patches down and across at the image size that the network was
        built for.
    masking: how the backbone can encode masked images. "drop": masked patches are not encoded. "replace": a mask token
        replaces them.
    fused: every level has received the features of all others, so that the finest level alone is enough for a head (HRNet).
    """

    levels: tuple[Level, ...]
    embed_dim: int
    patch_size: int | None = None
    grid: tuple[int, int] | None = None
    masking: frozenset[str] = frozenset()
    fused: bool = False


class Features(NamedTuple):
    """Output of `Backbone.forward`.

    maps: (B, C_i, h_i, w_i), fine to coarse. cls_token: (B, D), of token networks.
    """

    maps: tuple[Tensor, ...]
    cls_token: Tensor | None = None

    def select(self, *numbers: int) -> Features:
        """Returns the features with some of the maps, by their numbers in `maps`."""
        return self._replace(maps=tuple(self.maps[number] for number in numbers))


class TrainingOutputs(NamedTuple):
    """Output of a network that has auxiliary classifiers, in training mode.

    output: what the network returns in evaluation. auxiliary: outputs of the same kind, each with the
    weight of its loss.
    """

    output: Tensor
    auxiliary: tuple[tuple[Tensor, float], ...] = ()

    @classmethod
    def of(cls, output: Tensor | TrainingOutputs) -> TrainingOutputs:
        """Returns the output of any network as TrainingOutputs."""
        return output if isinstance(output, TrainingOutputs) else cls(output)


class Tokens(NamedTuple):
    """Output of `Backbone.forward_masked`.

    patches: (B, N_visible, D) or (B, N, D) in raster order. cls_token: (B, D).
    """

    patches: Tensor
    cls_token: Tensor | None = None


class Backbone(nn.Module):
    """A network without its classification layer, built for one use.

    The uses are "pooled" (an embedding), "maps" (feature maps at the chosen levels), and "drop" and
    "replace" (tokens of masked images). A backbone has only the parameters that its use needs.
    """

    spec: FeatureSpec
    pooling: nn.Module  # layers that only pool() uses
    grad_checkpointing: bool = False  # whether training recomputes activations in the backward pass instead of storing them

    def forward(self, image: Tensor) -> Features:
        """Returns the feature maps of normalized images (B, 3, H, W)."""
        raise TypeError(f"{type(self).__name__} was not built for feature maps.")

    def pool(self, features: Features) -> Tensor:
        """Returns the embedding (B, D), the input of the paper's last linear layer."""
        return self.pooling(features)

    def forward_masked(self, image: Tensor, patch_mask: Tensor, masking: str) -> Tokens:
        """Encodes images (B, 3, H, W) with masked patches, for a `masking` in `spec.masking`.

        patch_mask: (B, N) bool in raster order, True = masked.
        """
        raise TypeError(f"{type(self).__name__} cannot mask patches; MaskedModel fills them with a learned pixel value instead.")

    def layer_groups(self) -> list[tuple[str, ...]]:
        """Returns groups of parameter-name prefixes in forward order, for layer decay and freezing.

        Each parameter is in exactly one group.
        """
        raise TypeError(f"{type(self).__name__} does not define layer groups.")


class Head(nn.Module):
    """Layers that turn the output of a backbone into the predictions of a task.

    reads: the input: "pooled" embedding, feature "maps" or "tokens".
    levels: the feature maps that the head reads; None for all.
    tasks: the tasks that its output is for; None: all that pass its input.
    masking: for heads of tokens: the kinds of masking (`FeatureSpec.masking`) that the head supports, the preferred one first.

    In training mode a head of maps may return TrainingOutputs.
    A head of tokens is called with Tokens, patch_mask (B, N) bool and `masked_only`. It returns (B, N, outputs), or with `masked_only`
    the outputs (M, outputs) of the M masked patches of the batch alone, in raster order. A head whose constructor has an argument
    `image_size` gets the (height, width) of the images.
    """

    reads: ClassVar[HeadInput]
    levels: ClassVar[tuple[int, ...] | None] = None
    tasks: ClassVar[tuple[str, ...] | None] = None
    masking: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def choose_levels(cls, spec: FeatureSpec) -> tuple[int, ...] | None:
        """Returns the levels to read from a backbone that offers `spec`. Called before backbone and head are built."""
        return cls.levels


@dataclass(frozen=True)
class Labels:
    """Names and properties of the annotations of a data set.

    Fields are empty for annotations that it does not have.
    """

    classes: tuple[str, ...] = ()  # of whole images
    several_classes: bool = False  # whether an image may have several of `classes`, or none: each class has a sigmoid
    mask_classes: tuple[str, ...] = ()  # of pixels
    multi_label: bool = False  # whether the classes of pixels may overlap: each has a mask of its own, and a sigmoid
    palette: Palette = ()  # of the classes of pixels, for figures
    keypoints: tuple[str, ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()  # pairs of keypoint indices, from 0
    flip_pairs: tuple[tuple[int, int], ...] = ()  # pairs of left and right keypoints, swapped when an image is flipped
    sigmas: tuple[float, ...] = ()  # per keypoint, of the object keypoint similarity (COCO)
    norm_keypoints: tuple[tuple[int, ...], ...] = ()  # two groups, such as the eyes; NME's unit is the distance of their centers
    can_flip: bool = True  # False if the flip pairs are not known: images must not be flipped

    @classmethod
    def from_dict(cls, saved: Mapping[str, object]) -> Labels:
        """Creates Labels from the plain values in a checkpoint. Unknown keys are ignored."""

        def frozen(value: object) -> object:
            return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value

        known = {field.name for field in fields(cls)}
        return cls(**{key: frozen(value) for key, value in saved.items() if key in known})  # type: ignore[arg-type]


class Sample(TypedDict, total=False):
    """A transformed sample. All samples of a data set have the same keys."""

    image: Tensor  # (3, H, W) float32, normalized
    label: Tensor  # () int64; with Labels.several_classes (classes,) float32 of 0 and 1
    mask: Tensor  # (H, W) int64, 255 = ignore, or (classes, H, W) uint8 (Labels.multi_label); of the original size with original_size
    image_size: Tensor  # (2,) int64: height and width of `image` without its padding; in evaluations of masks
    original_size: Tensor  # (2,) int64: height and width of the original image; in evaluations at its resolution
    keypoints: Tensor  # (K, 3) float32: x, y in pixels of `image` (the center of the first pixel is 0, 0), visibility 0/1/2
    tokenizer_image: Tensor  # (3, h, w) uint8: the same pixels as `image`, at the size of a tokenizer; from TwoViews
    patch_mask: Tensor  # (N,) bool, True = masked
    index: Tensor  # () int64
    copy: Tensor  # () int64: number of this draw among those of the same sample in an epoch; with dataset.repeats
    spare: Tensor  # () bool; only in copies that keep a process in step with others: losses and metrics leave them out
    affine: Tensor  # (2, 3) float32: from pixels of the original image to pixels of `image`; with keypoints
    box: Tensor  # (4,) float32: x, y, width, height of the object in the original image; with keypoints
    area: Tensor  # () float32: pixels of the object in the original image; with keypoints
    image_id: Tensor  # () int64: equal for all objects of one image; with keypoints
    box_score: Tensor  # () float32: confidence of the box; with the boxes of a detector
    head_size: Tensor  # () float32: unit of PCKh, in pixels of the original image; in data sets that have it


class RawSample(TypedDict, total=False):
    """A sample before it is converted to tensors: the input and the output of transforms."""

    image: np.ndarray  # (H, W, 3) uint8, RGB
    tokenizer_image: np.ndarray  # (h, w, 3) uint8, RGB: the same pixels at the size of a tokenizer; set by TwoViews
    label: int | np.ndarray  # number of the class; with Labels.several_classes (classes,) uint8 of 0 and 1
    mask: np.ndarray  # (H, W) uint8, 255 = ignore; if classes may overlap, (H, W, classes) uint8 of 0, 1 and 255
    keypoints: np.ndarray  # (K, 3) float32: x, y in pixels of `image`, visibility 0/1/2
    box: np.ndarray  # (4,) float32: x, y, width, height in pixels of the original image; with keypoints
    area: float  # of the object, in pixels of the original image; with keypoints
    image_id: int  # objects in the same image share it; with keypoints
    box_score: float  # confidence of the box, of a detector
    head_size: float  # unit of PCKh, in pixels of the original image
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
    whole_image: bool = False  # of geometric steps: whether the output shows the whole image and nothing else, at another size
    after_normalization: bool = False  # whether it gets the normalized image, (H, W, 3) float32; such steps are the last

    def prepare(self, labels: Labels, needs: frozenset[str]) -> None:  # noqa: B027
        """Called once before the first sample, with the labels of the data set and the sample keys that the task needs."""

    @abstractmethod
    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the transformed sample. Every random number comes from `rng`, the sample's generator."""


class BatchTransform(ABC):
    """A change of whole training batches on their device, such as mixup.

    `off_epochs`: the last epochs of a training, in which batches are not changed.
    """

    off_epochs: int = 0

    @abstractmethod
    def __call__(self, batch: dict[str, Tensor], classes: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns the values that replace those of the batch, or are added to it.

        `target` (B, classes) are the probabilities of the classes, instead of `label` (B,). Every random number comes from
        `rng`, the generator of the batch. The values of `batch` are not changed.
        """


SampleExtra = Callable[[np.random.Generator], Tensor]  # makes a tensor that a task adds to each sample, such as patch_mask


@dataclass(frozen=True, eq=False)
class KeypointAnnotations:
    """All N annotated objects of a split: the ground truth of the COCO protocol. Some are not samples, such as crowds.

    Coordinates are in pixels of the original images.
    """

    path: str  # of the file, for messages
    category: int  # number of the objects' category in the file
    images: Mapping[int, tuple[str, tuple[int, int] | None]]  # image_id -> path, and (height, width) if known
    image_ids: np.ndarray  # (N,) int64
    keypoints: np.ndarray  # (N, K, 3) float64: x, y, visibility
    boxes: np.ndarray  # (N, 4) float64: x, y, width, height
    areas: np.ndarray  # (N,) float64
    crowd: np.ndarray  # (N,) bool: the object is a group
    labeled: np.ndarray  # (N,) int64: number of labeled keypoints, as the file states it


class DataSet(Dataset):
    """One split of a data set, read from disk or rendered. Subclasses read raw samples; transforms are applied later."""

    reads_files: ClassVar[bool] = True  # False: images are made, and dataset.root is not needed
    provides: ClassVar[frozenset[str]]  # sample keys that the data set can load
    labels: Labels

    def __len__(self) -> int:
        """Returns the number of samples."""
        raise TypeError(f"{type(self).__name__} does not define its length.")

    def check(self, needs: frozenset[str]) -> None:
        """Checks the annotations of the sample keys `needs`, before the first sample is loaded.

        Raises InputError for mistakes that can be found before training, and logs the others as
        warnings of the logger `spine.data`. Afterwards `load` may leave out all other keys.
        """

    def load(self, index: int) -> RawSample:
        """Returns a raw sample: `image` (H, W, 3) uint8 RGB, and the annotations in `provides`.

        These are `label` int; `mask` (H, W) uint8 with 255 = ignore, or (H, W, classes) of 0, 1, 255 (`Labels.multi_label`); `keypoints`
        (K, 3) float32 in pixels, with `box` (4,) x, y, width, height, `area`, `image_id`, and where known `box_score`, `head_size`.
        """
        raise TypeError(f"{type(self).__name__} does not define how a sample is loaded.")

    def load_annotations(self, index: int) -> RawSample:
        """Returns the raw sample without its image.

        By default, loads the sample. A data set that need not decode the image for it overrides this.
        """
        sample = self.load(index)
        sample.pop("image", None)
        return sample

    def encoded_image(self, index: int) -> EncodedImage | None:
        """Returns the image of a sample as it is stored, or None if the data set has none that it can return without decoding.

        Decoded, it is the `image` of `load`, and `load_annotations` has the other keys.
        """
        return None

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each sample (N,) int, or None if samples have no class label or may have several.

        By default, loads all samples. A data set that knows the labels without it overrides this.
        """
        if "label" not in self.provides or self.labels.several_classes:
            return None
        return np.array([self.load_annotations(index)["label"] for index in range(len(self))], int)

    def sample_weights(self) -> np.ndarray | None:
        """Returns the weight of each sample (N,) float64 that the data set states, for dataset.sampling, or None."""
        return None

    def groups(self) -> np.ndarray | None:
        """Returns the number of the group of each sample (N,) int that the data set states, such as a person, or None.

        A division of the data set keeps the samples of a group together.
        """
        return None

    def keypoint_annotations(self) -> KeypointAnnotations | None:
        """Returns all annotated objects, or None if the samples are all there is to evaluate."""
        return None

    def files(self, index: int) -> list[str]:
        """Returns the paths of the files that belong to one sample alone, such as its image and mask.

        Empty for rendered images and for images that share a file.
        """
        return []

    def shared_files(self) -> list[str]:
        """Returns the paths of the files that belong to all samples, such as annotations and lists of classes."""
        return []


def pick_levels(levels: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """Returns level numbers 0 .. count - 1 in ascending order. None means all; -1 is the coarsest.

    Raises InputError if a level does not exist, or if `levels` is empty.
    """
    if levels is None:
        return tuple(range(count))
    if bad := [level for level in levels if not -count <= level < count]:
        raise InputError(f"There is no feature level {bad[0]}: this backbone has {count} of them, 0 (finest) to {count - 1}.")
    if not levels:
        raise InputError(f"No feature level was chosen; choose among 0 (finest) to {count - 1}.")
    return tuple(sorted({level % count for level in levels}))


def check_use(use: str, supported: tuple[str, ...] = ("pooled", "maps")) -> None:
    """Raises InputError if a backbone cannot be built for this use."""
    if use not in supported:
        raise InputError(f"use is '{use}'; this backbone can be built for {', '.join(supported)}.")
