"""Images without labels, in folders nested at any depth, for pre-training."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.folder_index import FolderIndex, index_folder, warn_of_unreadable_files
from spine.data.image_files import NUM_CHECKED, check_images, evenly_spaced, need_root
from spine.data.image_per_file import ImagePerFile
from spine.data.splits import Splits, divide, has_no_splits, split_folder, warn_of_division
from spine.errors import InputError
from spine.interfaces import Labels, RawSample


class UnlabeledFolder(ImagePerFile):
    """All images in a folder and its subfolders, at any depth."""

    provides: ClassVar[frozenset[str]] = frozenset({"image"})
    labels = Labels()

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        pattern: str | None = None,
        splits: Splits | None = None,
        val_fraction: float = 0.01,
        split_seed: int = 0,
    ):
        """`pattern`: of the paths relative to the folder of the split, such as `*/front/*.jpg`; `*` stands for any characters.
        None: all images. `splits`: folder name of each split.

        If `root` has no folder for each split, `val_fraction` of the images, drawn with `split_seed`, are
        the validation split. Raises InputError if there are no images.
        """
        base = need_root(root, "unlabeled_folder")
        divided = has_no_splits(base, splits)
        self.folder = base if divided else split_folder(base, "{split}", split, splits)
        index = index_folder(self.folder)
        rows = np.arange(len(index.names)) if pattern is None else _matching(index, pattern)
        if not len(rows):
            reason = "has no images" if pattern is None else f"has no image with a path like dataset.pattern={pattern}"
            raise InputError(f"'{self.folder}' {reason}.{_example(index)}")
        if divided:
            total, rows = len(rows), rows[divide(len(rows), split, val_fraction, (split_seed,))]
            if split == "train":
                warn_of_division(self.folder, len(rows), total, val_fraction, split_seed)
        self.folders, self.unreadable = index.folders, index.unreadable
        self.folder_of = np.searchsorted(index.starts, rows, side="right").astype(np.int32) - 1  # (N,)
        self.names = index.names.select(rows)

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images. Logs a warning about files that are not read."""
        warn_of_unreadable_files(self.unreadable, self.folder)
        check_images([(self.path(i), None) for i in evenly_spaced(len(self), NUM_CHECKED)])

    def path(self, index: int) -> Path:
        """Returns the file of an image."""
        return self.folder / self.folders[self.folder_of[index]] / self.names[index]

    def load_annotations(self, index: int) -> RawSample:
        """Returns nothing: the images have no annotations."""
        return {}


def _matching(index: FolderIndex, pattern: str) -> np.ndarray:
    """Returns the positions of the images whose relative paths match a pattern."""
    match = re.compile(fnmatch.translate(pattern)).match
    found = []
    for i in range(len(index.folders)):
        prefix = f"{index.folders[i]}/" if index.folders[i] else ""
        found += [row for row in range(index.starts[i], index.starts[i + 1]) if match(prefix + index.names[row])]
    return np.array(found, int)


def _example(index: FolderIndex) -> str:
    if not len(index.names):
        return ""
    folder = index.folders[int(np.searchsorted(index.starts, 0, side="right")) - 1]
    return f" One of its {len(index.names)} images is '{Path(folder, index.names[0])}'."
