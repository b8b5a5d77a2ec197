"""Several data sets as one: their samples one after the other, with classes that are united by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np

from spine.data.relabeling import Relabeled
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.interfaces import DataSet, KeypointAnnotations, Labels, RawSample

KEYS = frozenset({"image", "label", "mask", "keypoints"})  # that a part may provide


class JoinedDataSets(DataSet):
    """The samples of several data sets, the parts, one part after the other.

    They provide what all parts provide. The images of two parts never have the same `image_id`, and
    their groups are separate.
    """

    provides: ClassVar[frozenset[str]] = KEYS

    def __init__(self, parts: Mapping[str, DataSet], labels: Labels, weights: Mapping[str, float] | None = None):
        """`parts`: by name. `labels`: of all of them, see `unite_labels`. `weights`: share of the draws of each part with
        dataset.sampling=weighted; None: the weights of samples are those of the parts, or 1.

        Raises InputError if a part has a name that `labels` lacks.
        """
        self.provides = frozenset.intersection(*(part.provides for part in parts.values()))  # type: ignore[misc]
        self.parts = [Relabeled(part, labels, self.provides) for part in parts.values()]
        self.labels, self.shares = labels, None if weights is None else [weights[name] for name in parts]
        self.ends = np.cumsum([len(part) for part in self.parts])

    def _find(self, index: int) -> tuple[int, int]:
        """Returns the number of the part that has a sample, and the index of the sample in it."""
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)

    def __len__(self) -> int:
        """Number of samples of all parts."""
        return int(self.ends[-1])

    def check(self, needs: frozenset[str]) -> None:
        """Checks all parts."""
        for part in self.parts:
            part.check(needs)

    def load(self, index: int) -> RawSample:
        """Returns a raw sample with the annotations that all parts provide."""
        number, own = self._find(index)
        return self._common(self.parts[number].load(own), number)

    def load_annotations(self, index: int) -> RawSample:
        """Returns a raw sample without its image."""
        number, own = self._find(index)
        return self._common(self.parts[number].load_annotations(own), number)

    def _common(self, sample: RawSample, number: int) -> RawSample:
        """Returns a sample of a part without the annotations that other parts lack, and with an `image_id` of its own."""
        common: RawSample = {key: value for key, value in sample.items() if key not in KEYS - self.provides}  # type: ignore[assignment]
        if "image_id" in common:
            common["image_id"] = self._image_id(common["image_id"], number)
        return common

    def _image_id(self, image_id: int, number: int) -> int:
        return image_id * len(self.parts) + number

    def encoded_image(self, index: int) -> EncodedImage | None:
        """Returns the image of a sample as it is stored, or None."""
        number, own = self._find(index)
        return self.parts[number].encoded_image(own)

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each sample, or None if samples have none or may have several."""
        if "label" not in self.provides:
            return None
        found = [part.class_indices() for part in self.parts]
        return None if any(one is None for one in found) else np.concatenate([one for one in found if one is not None])

    def sample_weights(self) -> np.ndarray:
        """Returns the weight of each sample. With weights of parts, those of the samples of a part sum to its share."""
        own = [part.sample_weights() for part in self.parts]
        found = [np.ones(len(part)) if one is None else one for part, one in zip(self.parts, own, strict=True)]
        if self.shares is not None:
            found = [one * (share / max(one.sum(), 1e-12)) for one, share in zip(found, self.shares, strict=True)]
        return np.concatenate(found)

    def groups(self) -> np.ndarray | None:
        """Returns the number of the group of each sample; one without a group is a group of its own. None if no part has groups."""
        found = [part.groups() for part in self.parts]
        if all(one is None for one in found):
            return None
        total, numbered = 0, []
        for part, groups in zip(self.parts, found, strict=True):
            own = np.arange(len(part)) if groups is None else np.unique(groups, return_inverse=True)[1]
            numbered.append(own + total)
            total += len(part)
        return np.concatenate(numbered)

    @cached_property
    def _annotations(self) -> KeypointAnnotations | None:
        found = [each for part in self.parts if (each := part.keypoint_annotations()) is not None]
        if len(found) < len(self.parts):
            return None
        images = {self._image_id(key, number): image for number, one in enumerate(found) for key, image in one.images.items()}
        image_ids = [one.image_ids * len(found) + number for number, one in enumerate(found)]
        arrays = {
            name: np.concatenate([getattr(one, name) for one in found])
            for name in ("keypoints", "boxes", "areas", "crowd", "labeled")
        }
        path = ", ".join(one.path for one in found)
        return KeypointAnnotations(path, found[0].category, images, np.concatenate(image_ids), **arrays)

    def keypoint_annotations(self) -> KeypointAnnotations | None:
        """Returns all annotated objects of the parts, or None if a part has none but its samples."""
        return self._annotations

    def files(self, index: int) -> list[str]:
        """Returns the files of a sample."""
        number, own = self._find(index)
        return self.parts[number].files(own)

    def shared_files(self) -> list[str]:
        """Returns the shared files of all parts."""
        return [file for part in self.parts for file in part.shared_files()]


def unite_labels(parts: Mapping[str, DataSet]) -> Labels:
    """Returns the labels of several data sets together, for the annotations that all of them provide.

    Classes of images and of pixels are united by name, in the order of the parts; keypoints have the
    names of the first part, in its order. Raises InputError if labels cannot be united.
    """
    names, keys = list(parts), frozenset.intersection(*(part.provides for part in parts.values()))
    every = [part.labels for part in parts.values()]
    first, united = every[0], Labels()
    if "label" in keys:
        _check_equal(
            "images with several classes (several_classes)", {name: part.labels.several_classes for name, part in parts.items()}
        )
        classes = tuple(dict.fromkeys(name for labels in every for name in labels.classes))
        united = dataclasses.replace(united, classes=classes, several_classes=first.several_classes)
    if "mask" in keys:
        _check_equal("masks whose classes overlap (multi_label)", {name: part.labels.multi_label for name, part in parts.items()})
        classes = tuple(dict.fromkeys(name for labels in every for name in labels.mask_classes))
        colors = {
            name: color for labels in reversed(every) for name, color in zip(labels.mask_classes, labels.palette, strict=False)
        }
        palette = tuple(colors[name] for name in classes) if all(name in colors for name in classes) else ()
        united = dataclasses.replace(united, mask_classes=classes, multi_label=first.multi_label, palette=palette)
    if "keypoints" in keys:
        for name, labels in zip(names, every, strict=True):
            if differing := sorted(set(labels.keypoints) ^ set(first.keypoints)):
                raise InputError(
                    f"Data sets with different keypoints cannot be joined: '{differing[0]}' is in one of the parts '{names[0]}' and "
                    f"'{name}' only."
                )
        fields = ("keypoints", "skeleton", "flip_pairs", "sigmas", "norm_keypoints")
        own = {field: getattr(first, field) for field in fields}
        united = dataclasses.replace(united, **own, can_flip=all(labels.can_flip for labels in every))
    return united


def _check_equal(what: str, values: Mapping[str, bool]) -> None:
    """Raises InputError if a property of labels differs between parts, by name."""
    with_it, without = ([name for name, value in values.items() if value == wanted] for wanted in (True, False))
    if with_it and without:
        raise InputError(f"Part '{with_it[0]}' has {what}, and part '{without[0]}' has not: such data sets cannot be joined.")
