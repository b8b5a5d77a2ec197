"""Cross-validation: divides the training split into folds, one of which validates."""

from __future__ import annotations

import numpy as np

from spine.data.image_files import format_names, log_warning
from spine.data.subset import Subset
from spine.errors import InputError
from spine.interfaces import DataSet

KEY = 0xF01D  # distinguishes these random numbers from others of the same seed


def fold_of_split(data: DataSet, split: str, count: int, fold: int, seed: int) -> Subset:
    """Returns the samples of the training split `data` that validate ("val") or train ("train") in one of `count` folds.

    See `divide_into_folds`. Raises InputError if the samples or their groups are fewer than the folds.
    """
    folds = divide_into_folds(data, count, seed)
    if split == "train" and (classes := data.class_indices()) is not None:
        counts = np.bincount(classes)
        if rare := [data.labels.classes[i] for i in np.flatnonzero((counts > 0) & (counts < count))]:
            log_warning(
                f"{len(rare)} classes have fewer samples than the {count} folds, so that some folds have none: {format_names(rare)}."
            )
    return Subset(data, np.flatnonzero(folds == fold if split == "val" else folds != fold))


def divide_into_folds(data: DataSet, count: int, seed: int) -> np.ndarray:
    """Returns the fold of each sample, (N,) int from 0 to `count` - 1.

    Samples of one group are in the same fold, and so are the objects of one image. Each class is
    divided as evenly as possible, if samples have one class. The folds depend on the samples, the count and the
    seed only. Raises InputError if the samples or their groups are fewer than the folds.
    """
    if len(data) < count:
        raise InputError(f"dataset.k_fold is {count}, but the training split has {len(data)} samples. Set at most {len(data)}.")
    rng, classes, groups = np.random.default_rng((seed, KEY, count)), data.class_indices(), _groups(data)
    classes = np.zeros(len(data), int) if classes is None else classes
    if groups is None:
        return _divide_samples(classes, count, rng)
    numbers, groups = np.unique(groups, return_inverse=True)
    if len(numbers) < count:
        raise InputError(
            f"dataset.k_fold is {count}, but the samples of the training split are in {len(numbers)} groups, which stay together. "
            f"Set at most {len(numbers)}."
        )
    return _divide_groups(classes, groups, count, rng)[groups]


def _groups(data: DataSet) -> np.ndarray | None:
    """Returns the group of each sample (N,) int: that of the data set, else the image of an object. None: samples are independent."""
    if (groups := data.groups()) is not None or "keypoints" not in data.provides:
        return groups
    numbers: dict[tuple[str, ...], int] = {}
    found = [numbers.setdefault(tuple(data.files(index)), len(numbers)) for index in range(len(data))]
    return np.array(found) if len(numbers) > 1 else None  # rendered objects have no files


def _divide_samples(classes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Deals the samples of one class after the other to the folds in turn, so that classes and folds differ by one sample at most."""
    order = rng.permutation(len(classes))
    order = order[np.argsort(classes[order], kind="stable")]
    folds = np.empty(len(classes), int)
    folds[order] = np.arange(len(classes)) % count
    return folds


def _divide_groups(classes: np.ndarray, groups: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns the fold of each group (G,): the largest groups first, each to the fold that has least of its classes.

    The sum of squares of the samples of each class in each fold, and of all samples in each fold,
    both relative to their total, grows as little as possible.
    """
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    totals = np.maximum(np.bincount(classes), 1)
    of_class, of_all = np.zeros((count, len(totals))), np.zeros(count)
    folds = np.empty(len(sizes), int)
    for position, group in enumerate(order):
        present, numbers = np.unique(classes[members[group]], return_counts=True)
        growth = (2 * of_class[:, present] * numbers / totals[present]).sum(1) + 2 * of_all * sizes[group] / len(classes)
        left = len(order) - position
        if left <= (empty := np.flatnonzero(of_all == 0)).size:  # no fold stays empty
            growth[np.setdiff1d(np.arange(count), empty)] = np.inf
        fold = int(growth.argmin())
        folds[group] = fold
        of_class[fold, present] += numbers
        of_all[fold] += sizes[group]
    return folds
