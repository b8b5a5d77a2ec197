"""Where the splits of a data set lie: in folders of their own, or in one folder that a seed divides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spine.data.image_files import listed, report, subfolders
from spine.errors import InputError

Splits = Mapping[str, str | None]  # dataset.splits: split -> name of its folder, None for its own name
USUAL = {  # what others call the splits; suggested in messages, never taken silently
    "train": ("train", "training", "train2017", "train2014"),
    "val": ("val", "validation", "valid", "dev", "val2017", "val2014", "test", "testing"),
    "test": ("test", "testing", "test2017", "val", "validation", "valid"),
}
KNOWN = frozenset(name for names in USUAL.values() for name in names)


def chosen_name(split: str, splits: Splits | None) -> str | None:
    """The name that dataset.splits gives a split; None where it gives none."""
    splits = splits or {}
    if bad := sorted(set(splits) - set(USUAL)):
        raise InputError(f"dataset.splits names '{bad[0]}'; its keys are {', '.join(USUAL)}.")
    name = splits.get(split)
    return None if name is None else str(name)  # a folder called 2017 arrives as a number


def place(base: Path, pattern: str, name: str) -> Path:
    """base/pattern with {split} replaced. A pattern without it means its sub-folder `name` where there is one, else itself."""
    if "{split}" in pattern:
        return base / pattern.replace("{split}", name)
    return base / pattern / name if (base / pattern / name).is_dir() else base / pattern


def split_folder(base: Path, pattern: str, split: str, splits: Splits | None, what: str = "images") -> Path:
    """The folder of a split. InputError with the key to set where there is none."""
    folder = place(base, pattern, chosen_name(split, splits) or split)
    if folder.is_dir():
        return folder
    beside = subfolders(folder.parent)
    usual = [name for other in USUAL.get(split, ()) for name in beside if name.lower() == other]
    hint = f" Folders beside it: {listed(beside)}." if beside else " Set dataset.root to where the data lies."
    if usual and "{split}" in pattern:
        hint += f" To use '{usual[0]}', set dataset.splits.{split}={usual[0]}."
    raise InputError(f"There is no folder '{folder}', where the {split} {what} should be.{hint}")


def undivided(folder: Path, splits: Splits | None) -> bool:
    """Whether a folder that exists holds no folder of a split, so that it is one set to divide."""
    if any(chosen_name(split, splits) for split in USUAL):
        return False
    return folder.is_dir() and not any(name.lower() in KNOWN for name in subfolders(folder))


def divide(count: int, split: str, fraction: float, key: tuple[int, ...]) -> np.ndarray:
    """Ascending indices of split `train` or `val` among 0..count-1: a function of count, fraction and `key` (the seed) alone.

    `fraction` of them, at least one and not all, are `val`; a single one is `train`.
    """
    if not 0 < fraction < 1:
        raise InputError(f"dataset.val_fraction is {fraction}; it is the share of validation images, between 0 and 1.")
    if split not in ("train", "val"):
        raise InputError(
            f"The data set has no folders of splits, so that its images are divided into train and val; there is no split '{split}'."
        )
    order = np.random.default_rng(key).permutation(count)
    held = min(max(1, round(count * fraction)), count - 1) if count > 1 else 0
    return np.sort(order[:held] if split == "val" else order[held:])


def report_division(folder: Path, used: int, total: int, fraction: float, seed: int) -> None:
    """Says that a folder was divided: one whose split folders are missing or misnamed looks the same."""
    report(
        f"'{folder}' has no folders of splits: {used} of its {total} images are for training, the others for validation "
        f"(dataset.val_fraction={fraction}, dataset.split_seed={seed})."
    )
