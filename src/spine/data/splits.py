"""Finds the files of a split: in separate folders, or in one folder that is divided at random."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spine.data.image_files import format_names, log_warning, subfolders
from spine.errors import InputError

Splits = Mapping[str, str | None]  # dataset.splits: split -> name of its folder, None for the name of the split
COMMON_NAMES = {  # usual folder names of each split; only suggested in messages
    "train": ("train", "training", "train2017", "train2014"),
    "val": ("val", "validation", "valid", "dev", "val2017", "val2014", "test", "testing"),
    "test": ("test", "testing", "test2017", "val", "validation", "valid"),
}
ALL_COMMON_NAMES = frozenset(name for names in COMMON_NAMES.values() for name in names)


def configured_name(split: str, splits: Splits | None) -> str | None:
    """Returns the name that dataset.splits gives a split, None if it gives none.

    Raises InputError for an unknown split in it.
    """
    splits = splits or {}
    if unknown := sorted(set(splits) - set(COMMON_NAMES)):
        raise InputError(f"dataset.splits has the key '{unknown[0]}'; its keys are {', '.join(COMMON_NAMES)}.")
    name = splits.get(split)
    return None if name is None else str(name)  # YAML reads a folder named 2017 as a number


def resolve_pattern(base: Path, pattern: str, name: str) -> Path:
    """Returns base/pattern with {split} replaced by `name`.

    A pattern without {split} is its subfolder `name` if that exists, otherwise the folder itself.
    """
    if "{split}" in pattern:
        return base / pattern.replace("{split}", name)
    return base / pattern / name if (base / pattern / name).is_dir() else base / pattern


def split_folder(base: Path, pattern: str, split: str, splits: Splits | None, what: str = "images") -> Path:
    """Returns the folder of a split. Raises InputError, with the key to set, if it does not exist."""
    folder = resolve_pattern(base, pattern, configured_name(split, splits) or split)
    if folder.is_dir():
        return folder
    siblings = subfolders(folder.parent)
    candidates = [name for common in COMMON_NAMES.get(split, ()) for name in siblings if name.lower() == common]
    hint = f" Folders next to it: {format_names(siblings)}." if siblings else " Set dataset.root to the folder of the data."
    if candidates and "{split}" in pattern:
        hint += f" To use '{candidates[0]}', set dataset.splits.{split}={candidates[0]}."
    raise InputError(f"There is no folder '{folder}', where the {split} {what} should be.{hint}")


def has_no_splits(folder: Path, splits: Splits | None) -> bool:
    """Whether a folder exists and has no split folders. Its files are then divided at random."""
    if any(configured_name(split, splits) for split in COMMON_NAMES):
        return False
    return folder.is_dir() and not any(name.lower() in ALL_COMMON_NAMES for name in subfolders(folder))


def divide(count: int, split: str, fraction: float, key: tuple[int, ...]) -> np.ndarray:
    """Divides the indices 0..count-1 at random; returns those of `split` (train or val), sorted.

    The division depends on `count`, `fraction` and `key` (with the seed) only. The fraction
    `fraction` is `val`, rounded, at least one and not all of them; a single one is `train`. Raises
    InputError for another split, or if the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise InputError(
            f"dataset.val_fraction is {fraction}; it is the fraction of images used for validation, between 0 and 1."
        )
    if split not in ("train", "val"):
        raise InputError(
            f"The data set has no folder for each split, so its images are divided into train and val; there is no split '{split}'."
        )
    order = np.random.default_rng(key).permutation(count)
    num_val = min(max(1, round(count * fraction)), count - 1) if count > 1 else 0
    return np.sort(order[:num_val] if split == "val" else order[num_val:])


def divide_groups(members: np.ndarray, groups: np.ndarray, count: int, split: str, fraction: float, seed: int) -> np.ndarray:
    """Divides `count` samples at random so that samples of a group stay together; returns the indices of `split`, sorted.

    `members` (M, 2) int: the pairs (index of a sample, class) of all samples and their classes; a sample may have several.
    `groups` (count,) int: the group of each sample.
    Groups are drawn in random order. A group is for validation if this brings the shares of its classes
    nearer to `fraction`, so each class keeps its share as far as the groups allow it.
    Raises InputError as `divide` does, and if there is only one group.
    """
    divide(count, split, fraction, (seed,))  # reports a wrong fraction or split
    number_of, groups = np.unique(groups, return_inverse=True)
    if len(number_of) < 2:
        raise InputError(
            "All samples are in one group, so they cannot be divided into train and val. Give the split of each row."
        )
    sizes = np.bincount(members[:, 1]).astype(float)
    wanted = fraction * sizes
    keys, counts = np.unique(groups[members[:, 0]] * len(sizes) + members[:, 1], return_counts=True)
    starts = np.searchsorted(keys, np.arange(len(number_of) + 1) * len(sizes))
    chosen, have = np.zeros(len(number_of), bool), np.zeros(len(sizes))
    for group in np.random.default_rng(seed).permutation(len(number_of)):
        part = slice(starts[group], starts[group + 1])
        classes, more = keys[part] % len(sizes), counts[part]
        change = more * (2 * (have[classes] - wanted[classes]) + more) / sizes[classes]  # of the sum of squared differences
        if change.sum() < 0:
            chosen[group] = True
            have[classes] += more
    if chosen.all() or not chosen.any():  # few groups: the smallest one stands alone
        chosen[:] = chosen.all()
        chosen[np.argmin(np.bincount(groups))] ^= True
    return np.flatnonzero(chosen[groups] == (split == "val"))


def warn_of_division(folder: Path, num_train: int, total: int, fraction: float, seed: int) -> None:
    """Logs a warning that a folder was divided.

    Split folders that are missing or misspelled have the same effect.
    """
    log_warning(
        f"'{folder}' has no folder for each split: {num_train} of its {total} images are for training, the others for validation "
        f"(dataset.val_fraction={fraction}, dataset.split_seed={seed})."
    )
