"""A data set under the names that a checkpoint was trained for, in their order."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, Labels

KINDS = {"label": "classes", "mask": "mask_classes", "keypoints": "keypoints"}  # sample key -> field of Labels


class Relabeled(DataSet):
    """`data` with labels, masks and keypoints numbered as in `labels`. Names that `labels` lacks are refused."""

    def __init__(self, data: DataSet, labels: Labels, needs: frozenset[str]):
        """`needs`: the sample keys that are read; names of the others stay the data set's."""
        self.data, self.provides = data, data.provides  # type: ignore[misc]
        self.positions: dict[str, np.ndarray] = {}
        names: dict[str, Any] = {}
        for key in needs & KINDS.keys():
            own, wanted = getattr(data.labels, KINDS[key]), getattr(labels, KINDS[key])
            self.positions[key] = _positions(own, wanted, KINDS[key].replace("mask_", ""))
            names[KINDS[key]] = wanted
        if "keypoints" in needs:
            names |= {"skeleton": labels.skeleton, "flip_pairs": labels.flip_pairs, "sigmas": labels.sigmas}
        self.labels = dataclasses.replace(data.labels, **names)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data)

    def check(self, needs: frozenset[str]) -> None:
        """Checks the data set, as before its first sample is read."""
        self.data.check(needs)

    def load(self, index: int) -> dict[str, Any]:
        """A raw sample under the checkpoint's numbers; a keypoint that the data lacks is unlabeled."""
        sample = self.data.load(index)
        for key, positions in self.positions.items():
            if key == "label":
                sample[key] = int(positions[sample[key]])
            elif key == "mask":
                table = np.full(256, IGNORE_INDEX, np.uint8)
                table[: len(positions)] = positions
                sample[key] = table[sample[key]]
            else:
                moved = np.zeros((len(self.labels.keypoints), 3), np.float32)
                moved[positions] = sample[key]
                sample[key] = moved
        return sample


def _positions(own: tuple[str, ...], wanted: tuple[str, ...], what: str) -> np.ndarray:
    """Where each of the names `own` stands in `wanted`: (len(own),) int."""
    unknown = [name for name in own if name not in wanted]
    if unknown:
        raise InputError(
            f"The data set and the checkpoint do not have the same {what}: '{unknown[0]}' is unknown to the checkpoint. Data set: "
            f"{', '.join(own)}. Checkpoint: {', '.join(wanted)}. Evaluate on data with the names that it was trained for."
        )
    return np.array([wanted.index(name) for name in own], int)
