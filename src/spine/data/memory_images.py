"""Small images that are kept in memory, and the file formats of MNIST and its relatives."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data import faults
from spine.errors import InputError
from spine.interfaces import DataSet, RawSample

IDX_FOLDERS = ("", "raw", "MNIST/raw", "FashionMNIST/raw")  # in the root; the others are torchvision's


class MemoryImages(DataSet):
    """Images of one size in memory, with a class each. Subclasses read them."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    images: np.ndarray  # (N, H, W) gray or (N, H, W, 3) uint8 RGB
    targets: np.ndarray  # (N,) int
    paths: list[Path]  # of the files that they were read from

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def class_indices(self) -> np.ndarray:
        """Returns the class of each image."""
        return self.targets

    def shared_files(self) -> list[str]:
        """Returns the files of images and labels."""
        return [str(path) for path in self.paths]

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8, with three equal channels if it is gray, and label."""
        image = self.images[index]
        image = image[..., None].repeat(3, axis=2) if image.ndim == 2 else image.copy()
        return {"image": image, "label": int(self.targets[index])}

    def load_annotations(self, index: int) -> RawSample:
        """Returns the label."""
        return {"label": int(self.targets[index])}

    def known_labels(self, images: np.ndarray, targets: np.ndarray, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
        """Returns the images (N, ...) of a file whose label (N,) is the number of a class, and their labels.

        `path`: of the file. Raises InputError if a label is not; the doctor goes on without these images.
        """
        count = len(self.labels.classes)
        known = (targets >= 0) & (targets < count)
        for number in np.flatnonzero(~known).tolist():
            message = f"'{path}' has the label {targets[number]}; there are {count} classes (image {number}, counted from 0)."
            faults.report("unknown_label", message, [f"{path}, image {number}"])
        return (images, targets) if known.all() else (images[known], targets[known])


def is_validation(targets: np.ndarray, divisor: int) -> np.ndarray:
    """Returns (N,) bool: True for the last 1 / `divisor` of the images of each class."""
    chosen = np.zeros(len(targets), bool)
    for label in np.unique(targets):
        of_class = np.flatnonzero(targets == label)
        chosen[of_class[len(of_class) - len(of_class) // divisor :]] = True
    return chosen


# ---- IDX -------------------------------------------------------------------------------------------------------------

IDX_PARTS = {"train": "train", "val": "train", "test": "t10k"}
VAL_DIVISOR = 12  # the last twelfth of the training images of each class is the validation split


class IDXImages(MemoryImages):
    """Gray images of ten classes from the IDX files of MNIST or a data set with the same files, gzipped or not.

    The published files have no validation split. This one is fixed: the last twelfth of the training
    images of each class, in the order of the file. The t10k files are the test split only, so
    that no checkpoint is selected on them.
    """

    name: ClassVar[str]  # of the data set, for messages

    def _read(self, split: str, base: Path) -> None:
        """Reads a split. Raises InputError if its files are missing or are no IDX files, or if it has no images."""
        if split not in IDX_PARTS:
            raise InputError(f"Data set '{self.name}' has no split '{split}'. Choices: {', '.join(IDX_PARTS)}.")
        part = IDX_PARTS[split]
        images = find_idx(base, f"{part}-images", 3)
        self.images = read_idx(images, 3)
        labels = find_idx(base, f"{part}-labels", 1)
        self.targets, self.paths = read_idx(labels, 1), [images, labels]
        if len(self.images) != len(self.targets):
            message = f"'{base}' has {len(self.images)} {split} images but {len(self.targets)} labels."
            faults.report("label_count", message, [images, labels])
            count = min(len(self.images), len(self.targets))
            self.images, self.targets = self.images[:count], self.targets[:count]
        self.images, self.targets = self.known_labels(self.images, self.targets, labels)
        if part == "train":
            chosen = is_validation(self.targets, VAL_DIVISOR) == (split == "val")
            self.images, self.targets = self.images[chosen], self.targets[chosen]
        if not len(self.images):
            raise InputError(f"'{base}' has no {split} images; validation needs {VAL_DIVISOR} training images of a class.")


def find_idx(base: Path, name: str, dimensions: int) -> Path:
    """Returns the path of `name`-idx<dimensions>-ubyte, gzipped or not, in the folder or in those of torchvision.

    Raises InputError if it is missing.
    """
    names = [f"{name}{dot}idx{dimensions}-ubyte{suffix}" for dot in "-." for suffix in ("", ".gz")]
    path = next((base / folder / n for folder in IDX_FOLDERS for n in names if (base / folder / n).is_file()), None)
    if path is None:
        raise InputError(f"'{base}' has neither '{names[0]}' nor '{names[1]}'.")
    return path


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Reads an array of bytes. Raises InputError if the file is not an IDX file of bytes with this number of dimensions, or if it has
    another size than its header states; the doctor goes on with the items that are there.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"'{path}' is not a complete gzip file ({error}).") from error
    header = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:header], ">u4").astype(int)) if len(data) >= header else ()
    message = f"'{path}' is not an IDX file of bytes with {dimensions} dimensions, or it is truncated."
    if data[:4] != bytes([0, 0, 8, dimensions]) or not shape:
        raise InputError(message)
    count, size = shape[0], int(np.prod(shape[1:]))  # of items, and bytes of one
    if len(data) != header + count * size:
        faults.report("file_size", message, [path])
        count = min(count, (len(data) - header) // max(size, 1))
    return np.frombuffer(data, np.uint8, count * size, header).reshape(count, *shape[1:])
