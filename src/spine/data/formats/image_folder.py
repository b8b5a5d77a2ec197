"""Image classification from folders: root/split/class/image, or root/class/image, which is divided into train and val."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.image_files import (
    CHECKED,
    PackedNames,
    check_images,
    has_images,
    image_names,
    listed,
    need_root,
    read_image,
    report,
    report_unread,
    spaced,
    subfolders,
)
from spine.data.splits import KNOWN, USUAL, Splits, chosen_name, divide, report_division, split_folder
from spine.errors import InputError
from spine.interfaces import DataSet, Labels


class ImageFolder(DataSet):
    """One class a folder. The classes are the folders with images of the training split, in alphabetical order, or `classes`."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        splits: Splits | None = None,
        classes: list[str] | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`splits`: names of the folders of the splits. `classes`: names of the class folders, in the order of the outputs; the training
        split need not exist then.

        Where root holds class folders directly, `val_fraction` of each class's images, drawn by `split_seed`, are the validation split.
        """
        base = need_root(root, "image_folder")
        self.split, divided = split, holds_classes(base, splits)
        self.folder = base if divided else split_folder(base, "{split}", split, splits)
        if classes is None:
            training = base if divided else split_folder(base, "{split}", "train", splits)
            classes = [name for name in subfolders(training) if has_images(training / name)]
            if not classes:
                raise InputError(f"The class folders of '{training}' hold no images.{self._deeper(training)}")
            self._refuse_strange(classes, f"which '{training}' does not know")
        else:
            classes = [str(name) for name in classes]
            self._refuse_strange(classes, "which dataset.classes does not name")
        self.labels = Labels(classes=tuple(classes))
        names = [image_names(self.folder / name) if (self.folder / name).is_dir() else [] for name in classes]
        if divided:
            names = self._share(names, classes, val_fraction, split_seed)
        self.targets = np.repeat(np.arange(len(classes), dtype=np.int32), [len(found) for found in names])
        self.names = PackedNames(name for found in names for name in found)
        if not len(self.names):
            raise InputError(f"The class folders of '{self.folder}' hold no images.{self._deeper(self.folder)}")

    def _share(self, names: list[list[str]], classes: list[str], fraction: float, seed: int) -> list[list[str]]:
        """What this split takes of the images of each class."""
        taken = [
            [found[i] for i in divide(len(found), self.split, fraction, (seed, zlib.crc32(name.encode())))]
            for name, found in zip(classes, names, strict=True)
        ]
        if self.split == "train":
            report_division(self.folder, sum(map(len, taken)), sum(map(len, names)), fraction, seed)
        return taken

    @staticmethod
    def _deeper(folder: Path) -> str:
        nested = nested_images(folder)
        return f" Images lie one folder deeper, as in '{nested[0]}': move them into the class folders." if nested else ""

    def _refuse_strange(self, classes: list[str], why: str) -> None:
        present = [name for name in subfolders(self.folder) if has_images(self.folder / name)]
        if strange := [name for name in present if name not in classes]:
            raise InputError(
                f"Folder '{self.folder}' holds class '{strange[0]}', {why}. Classes of this folder: {listed(present)}. "
                f"Known classes ({len(classes)}): {listed(classes)}."
            )

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images; reports classes without images, and files that are passed over."""
        counts = np.bincount(self.targets, minlength=len(self.labels.classes))
        if empty := [name for name, count in zip(self.labels.classes, counts, strict=True) if not count]:
            report(f"Split '{self.split}' in '{self.folder}' has no image of {len(empty)} classes: {listed(empty)}.")
        if nested := nested_images(self.folder):
            report(
                f"Folders inside the class folders of '{self.folder}' hold images that are not read: {listed(nested)}. "
                f"Move the images into the class folder."
            )
        report_unread([self.folder / name for name in subfolders(self.folder)], self.folder)
        check_images([(self.path(i), None) for i in spaced(len(self), CHECKED)])

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / self.labels.classes[self.targets[index]] / self.names[index]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, label."""
        return {"image": read_image(self.path(index)), "label": int(self.targets[index])}


def holds_classes(base: Path, splits: Splits | None) -> bool:
    """Whether a folder holds class folders and no folders of splits. `valid` beside `invalid` may be classes; `train` or `val` may not."""
    if any(chosen_name(split, splits) for split in USUAL):
        return False
    names = subfolders(base)

    def of_split(name: str) -> bool:
        certain = (*USUAL["train"], "val", "test")
        return name.lower() in certain or (name.lower() in KNOWN and not has_images(base / name))

    return any(has_images(base / name) for name in names) and not any(map(of_split, names))


def nested_images(folder: Path) -> list[str]:
    """The folders inside class folders that hold images, as `class/inner`."""
    return [
        f"{name}/{inner}"
        for name in subfolders(folder)
        for inner in subfolders(folder / name)
        if has_images(folder / name / inner)
    ]
