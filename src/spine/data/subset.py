"""A part of the training split: a number or a share of its samples, the same for every run with the same seed."""

from __future__ import annotations

import numpy as np

from spine.data.view import View
from spine.errors import InputError
from spine.interfaces import DataSet

KEY = 0x11817  # distinguishes these random numbers from others of the same seed


class Subset(View):
    """The samples of a data set with the given indices, in their order."""

    def __init__(self, data: DataSet, indices: np.ndarray):
        super().__init__(data, indices)


def limited(data: DataSet, limit: int | float, seed: int) -> Subset:
    """Returns a random part of a data set: `limit` samples, or a share of them if `limit` is a fraction.

    With class labels, every class keeps its share, and at least one sample. With the same seed, a
    smaller part is contained in a larger one, up to the rounding of the numbers per class.
    Raises InputError if `limit` is larger than the data set or smaller than the number of classes.
    """
    if isinstance(limit, int) and limit > len(data):
        raise InputError(f"dataset.limit is {limit}, but the training split has {len(data)} samples. Set at most {len(data)}.")
    classes = data.class_indices()
    groups = [np.arange(len(data))] if classes is None else [np.flatnonzero(classes == label) for label in np.unique(classes)]
    if isinstance(limit, int) and limit < len(groups):
        raise InputError(
            f"dataset.limit is {limit}, but the training split has images of {len(groups)} classes, and each keeps at least one. "
            f"Set at least {len(groups)}."
        )
    total = limit if isinstance(limit, int) else max(round(limit * len(data)), len(groups))
    counts = _counts(np.array([len(group) for group in groups]), total)
    chosen = [
        np.random.default_rng((seed, KEY, number)).permutation(group)[:count]
        for number, (group, count) in enumerate(zip(groups, counts, strict=True))
    ]
    return Subset(data, np.sort(np.concatenate(chosen)))


def _counts(sizes: np.ndarray, total: int) -> np.ndarray:
    """Divides `total` among groups in proportion to their sizes: at least one each, the rest by the largest remainders."""
    shares = sizes * total / sizes.sum()
    counts = np.maximum(np.floor(shares).astype(int), 1)
    while counts.sum() != total:
        step = 1 if counts.sum() < total else -1
        possible = counts < sizes if step > 0 else counts > 1
        error = np.where(possible, step * (shares - counts), -np.inf)  # the group that is furthest from its share
        counts[np.argmax(error)] += step
    return counts
