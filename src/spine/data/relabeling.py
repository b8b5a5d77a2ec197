"""Renumbers the annotations of a data set for a checkpoint that was trained with other indices."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from spine.data.view import View
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, KeypointAnnotations, Labels, RawSample

LABEL_FIELDS = {"label": "classes", "mask": "mask_classes", "keypoints": "keypoints"}  # sample key -> field of Labels


class Relabeled(View):
    """A data set with labels, masks and keypoints in the order of `labels`, matched by name."""

    def __init__(self, data: DataSet, labels: Labels, needs: frozenset[str]):
        """`needs`: sample keys that the task needs; the others keep their names. Raises InputError
        for a name that `labels` lacks.
        """
        super().__init__(data)
        self.new_indices: dict[str, np.ndarray] = {}  # by sample key: old index -> new index
        fields: dict[str, Any] = {}
        for key in needs & LABEL_FIELDS.keys():
            field = LABEL_FIELDS[key]
            own, wanted = getattr(data.labels, field), getattr(labels, field)
            self.new_indices[key] = _new_indices(own, wanted, field.replace("mask_", ""))
            fields[field] = wanted
        if "label" in needs and data.labels.several_classes != labels.several_classes:
            kinds = {False: "one class per image", True: "several classes per image"}
            raise InputError(
                f"The checkpoint was trained with {kinds[labels.several_classes]}, and the data set has "
                f"{kinds[data.labels.several_classes]}. Evaluate on data of the same kind."
            )
        if "mask" in needs:
            _check_overlap(data.labels, labels)
            fields["palette"] = labels.palette
        if "keypoints" in needs:
            fields |= {"skeleton": labels.skeleton, "flip_pairs": labels.flip_pairs, "sigmas": labels.sigmas}
            new, own_groups = self.new_indices["keypoints"], data.labels.norm_keypoints
            fields["norm_keypoints"] = tuple(tuple(int(new[i]) for i in group) for group in own_groups) or labels.norm_keypoints
        self.labels = dataclasses.replace(data.labels, **fields)

    def class_indices(self) -> np.ndarray | None:
        """Returns the new index of the class of each sample."""
        own = self.data.class_indices()
        return own if own is None or "label" not in self.new_indices else self.new_indices["label"][own]

    def keypoint_annotations(self) -> KeypointAnnotations | None:
        """Returns all annotated objects with renumbered keypoints."""
        found = self.data.keypoint_annotations()
        if found is None or "keypoints" not in self.new_indices:
            return found
        return dataclasses.replace(found, keypoints=self._renumbered(found.keypoints))

    def _renumbered(self, keypoints: np.ndarray) -> np.ndarray:
        """Returns keypoints (..., K, 3) in the new order. Those that the data set lacks are unlabeled."""
        renumbered = np.zeros((*keypoints.shape[:-2], len(self.labels.keypoints), 3), keypoints.dtype)
        renumbered[..., self.new_indices["keypoints"], :] = keypoints
        return renumbered

    def _renumbered_label(self, label: int | np.ndarray, new_indices: np.ndarray) -> int | np.ndarray:
        """Returns a label with the new indices. Of several classes, those that the data set lacks are unknown."""
        if not self.labels.several_classes:
            return int(new_indices[label])
        renumbered = np.full(len(self.labels.classes), IGNORE_INDEX, np.uint8)
        renumbered[new_indices] = label
        return renumbered

    def _renumbered_mask(self, mask: np.ndarray, new_indices: np.ndarray) -> np.ndarray:
        """Returns a mask with the new indices. If classes may overlap, those that the data set lacks are unlabeled."""
        if self.labels.multi_label:
            renumbered = np.full((*mask.shape[:2], len(self.labels.mask_classes)), IGNORE_INDEX, np.uint8)
            renumbered[..., new_indices] = mask
            return renumbered
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(new_indices)] = new_indices
        return table[mask]

    def load(self, index: int) -> RawSample:
        """Returns a raw sample with renumbered annotations.

        Keypoints that the data set lacks are unlabeled.
        """
        return self._renumber(self.data.load(index))

    def load_annotations(self, index: int) -> RawSample:
        """Returns the renumbered annotations of a sample."""
        return self._renumber(self.data.load_annotations(index))

    def _renumber(self, sample: RawSample) -> RawSample:
        for key, new_indices in self.new_indices.items():
            if key == "label":
                sample["label"] = self._renumbered_label(sample["label"], new_indices)
            elif key == "mask":
                sample["mask"] = self._renumbered_mask(sample["mask"], new_indices)
            else:
                sample["keypoints"] = self._renumbered(sample["keypoints"])
        return sample


def _check_overlap(own: Labels, wanted: Labels) -> None:
    """Raises InputError if classes may overlap in the masks of a data set and not in those of a checkpoint, or the reverse."""
    if own.multi_label != wanted.multi_label:
        kinds = {False: "one class per pixel", True: "a mask for each class (dataset.multi_label)"}
        raise InputError(
            f"The checkpoint was trained with {kinds[wanted.multi_label]}, and the data set has {kinds[own.multi_label]}. Evaluate on "
            f"masks of the same kind."
        )


def _new_indices(own: tuple[str, ...], wanted: tuple[str, ...], what: str) -> np.ndarray:
    """Returns the indices in `wanted` of the names `own`, (len(own),) int."""
    unknown = [name for name in own if name not in wanted]
    if unknown:
        raise InputError(
            f"The data set and the checkpoint do not have the same {what}: '{unknown[0]}' is unknown to the checkpoint. Data set: "
            f"{', '.join(own)}. Checkpoint: {', '.join(wanted)}. Evaluate on data with the names that it was trained for."
        )
    return np.array([wanted.index(name) for name in own], int)
