"""Image classification from folders: root/split/class/image or root/class/image.

The second form is divided into train and val.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data import faults
from spine.data.folder_index import FolderIndex, index_folder, warn_of_unreadable_files
from spine.data.image_files import (
    NUM_CHECKED,
    check_images,
    class_names,
    evenly_spaced,
    format_names,
    has_images,
    log_warning,
    need_root,
    subfolders,
)
from spine.data.image_per_file import ClassifiedImages
from spine.data.splits import (
    ALL_COMMON_NAMES,
    COMMON_NAMES,
    Splits,
    configured_name,
    divide,
    split_folder,
    warn_of_division,
)
from spine.errors import InputError
from spine.interfaces import Labels


class ImageFolder(ClassifiedImages):
    """Images with one folder per class.

    The classes are those of the training split in alphabetical order, or `classes`.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        splits: Splits | None = None,
        classes: list[str] | str | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`splits`: folder name of each split. `classes`: names of the class folders in the order
        of the outputs, or a file relative to root with one name per line; with it, the training
        split does not have to exist.

        If the class folders are directly in `root`, `val_fraction` of the images of each class,
        drawn with `split_seed`, are the validation split. Raises InputError if a folder does not
        exist, has no images, or has a class that is not known.
        """
        base = need_root(root, "image_folder")
        self.split, divided = split, holds_classes(base, splits)
        self.folder = base if divided else split_folder(base, "{split}", split, splits)
        own = index_folder(self.folder)
        if classes is None:
            training = base if divided else split_folder(base, "{split}", "train", splits)
            index = own if training == self.folder else index_folder(training)
            classes = class_folders(index)
            if not classes:
                raise InputError(f"The class folders of '{training}' have no images.{_nested_hint(index)}")
            self._check_classes(own, classes, f"which '{training}' does not have")
        else:
            source = f"'{base / classes}'" if isinstance(classes, str) else "dataset.classes"
            classes = class_names(base, classes)
            self._check_classes(own, classes, f"which {source} does not name")
        self.labels = Labels(classes=tuple(classes))
        rows = rows_of_classes(own, classes)
        if divided:
            rows = self._divide(rows, classes, val_fraction, split_seed)
        self.targets = np.repeat(np.arange(len(classes), dtype=np.int32), [len(of_class) for of_class in rows])
        if not len(self.targets):
            raise InputError(f"The class folders of '{self.folder}' have no images.{_nested_hint(own)}")
        self.names = own.names.select(np.concatenate(rows))
        self.nested, self.unreadable = nested_images(own), own.unreadable

    def _divide(self, rows: list[np.ndarray], classes: list[str], fraction: float, seed: int) -> list[np.ndarray]:
        """Returns the images of each class that belong to this split."""
        chosen = [
            of_class[divide(len(of_class), self.split, fraction, (seed, zlib.crc32(name.encode())))]
            for name, of_class in zip(classes, rows, strict=True)
        ]
        if self.split == "train":
            warn_of_division(self.folder, sum(map(len, chosen)), sum(map(len, rows)), fraction, seed)
        return chosen

    def _check_classes(self, index: FolderIndex, classes: list[str], reason: str) -> None:
        """Raises InputError if there is a class folder that is not among `classes`.

        `reason` completes the message.
        """
        present = class_folders(index)
        if unknown := [name for name in present if name not in classes]:
            faults.report(
                "class_folders",
                f"Folder '{self.folder}' has class '{unknown[0]}', {reason}. Classes of this folder: {format_names(present)}. "
                f"Known classes ({len(classes)}): {format_names(classes)}.",
                [self.folder / name for name in unknown],
            )

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images.

        Logs warnings about classes without images and about files that are not read.
        """
        self.warn_of_empty_classes()
        if self.nested:
            log_warning(
                f"Folders inside the class folders of '{self.folder}' hold images that are not read: {format_names(self.nested)}. "
                f"Move the images into the class folder."
            )
        warn_of_unreadable_files(self.unreadable, self.folder)
        check_images([(self.path(i), None) for i in evenly_spaced(len(self), NUM_CHECKED)])

    def path(self, index: int) -> Path:
        """Returns the file of an image."""
        return Path(self.folder, self.labels.classes[self.targets[index]], self.names[index])


def holds_classes(base: Path, splits: Splits | None) -> bool:
    """Whether a folder has class folders and no split folders.

    `train` and `val` are always splits. A name such as `valid` is a class if it has images directly
    in it.
    """
    if any(configured_name(split, splits) for split in COMMON_NAMES):
        return False
    names = subfolders(base)

    def is_split(name: str) -> bool:
        unambiguous = (*COMMON_NAMES["train"], "val", "test")
        return name.lower() in unambiguous or (name.lower() in ALL_COMMON_NAMES and not has_images(base / name))

    return any(has_images(base / name) for name in names) and not any(map(is_split, names))


def class_folders(index: FolderIndex) -> list[str]:
    """Returns the names of the folders directly in a folder that have images directly in them, sorted."""
    return sorted(name for name, count in index.counts().items() if count and name and "/" not in name)


def rows_of_classes(index: FolderIndex, classes: Sequence[str]) -> list[np.ndarray]:
    """Returns the images of each class folder, as positions in `index.names`."""
    position = {index.folders[i]: i for i in range(len(index.folders))}
    nothing = np.zeros(0, np.int64)
    return [np.arange(*index.starts[position[name] : position[name] + 2]) if name in position else nothing for name in classes]


def nested_images(index: FolderIndex) -> list[str]:
    """Returns the folders inside class folders that have images, as `class/inner`."""
    return [name for name, count in index.counts().items() if count and name.count("/") == 1]


def _nested_hint(index: FolderIndex) -> str:
    nested = nested_images(index)
    return f" Images are one folder deeper, as in '{nested[0]}': move them into the class folders." if nested else ""
