"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its IDX files, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.image_files import need_root
from spine.errors import InputError
from spine.interfaces import DataSet, Labels, RawSample

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {"train": "train", "val": "train", "test": "t10k"}
VAL_DIVISOR = 12  # the last twelfth of the training images of each class is the validation split


class FashionMNIST(DataSet):
    """28x28 gray images of ten kinds of clothing: 55,000 train, 5,000 val, 10,000 test.

    The published files have no validation split. This one is fixed: the last 500 of the 6,000
    training images of each class, in the order of the file. The t10k files are the test split only,
    so that no checkpoint is selected on them.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    labels = Labels(classes=CLASSES)

    def __init__(self, split: str, *, root: str | None):
        self.base = base = need_root(root, "fashion_mnist")
        if split not in FILES:
            raise InputError(f"Data set 'fashion_mnist' has no split '{split}'. Choices: {', '.join(FILES)}.")
        self.file_names = f"{FILES[split]}-images-idx3-ubyte", f"{FILES[split]}-labels-idx1-ubyte"
        self.images = read_idx(base, self.file_names[0], dimensions=3)
        self.targets = read_idx(base, self.file_names[1], dimensions=1)
        if len(self.images) != len(self.targets):
            raise InputError(f"'{base}' has {len(self.images)} {split} images but {len(self.targets)} labels.")
        if self.targets.max(initial=0) >= len(CLASSES):
            raise InputError(
                f"The largest {split} label in '{base}' is {self.targets.max()}; the classes of Fashion-MNIST are 0 to 9."
            )
        if FILES[split] == "train":
            chosen = is_validation(self.targets) == (split == "val")
            self.images, self.targets = self.images[chosen], self.targets[chosen]
        if not len(self.images):
            raise InputError(f"'{base}' has no {split} images; validation needs {VAL_DIVISOR} training images of a class.")

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)

    def class_indices(self) -> np.ndarray:
        """Returns the class of each image."""
        return self.targets

    def shared_files(self) -> list[str]:
        """Returns the files of images and labels."""
        return [str(find_idx(self.base, name)) for name in self.file_names]

    def load(self, index: int) -> RawSample:
        """Returns image (28, 28, 3) uint8 with three equal channels, and label."""
        return {"image": self.images[index][..., None].repeat(3, axis=2), "label": int(self.targets[index])}


def is_validation(targets: np.ndarray) -> np.ndarray:
    """Returns (N,) bool: True for the last 1 / VAL_DIVISOR of the images of each class."""
    chosen = np.zeros(len(targets), bool)
    for label in np.unique(targets):
        of_class = np.flatnonzero(targets == label)
        chosen[of_class[len(of_class) - len(of_class) // VAL_DIVISOR :]] = True
    return chosen


def find_idx(folder: Path, name: str) -> Path:
    """Returns the path of `name` or `name`.gz. Raises InputError if both are missing."""
    path = next((folder / (name + suffix) for suffix in ("", ".gz") if (folder / (name + suffix)).is_file()), None)
    if path is None:
        raise InputError(f"'{folder}' has neither '{name}' nor '{name}.gz'.")
    return path


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """Reads an array of bytes from `name` or `name`.gz.

    Raises InputError if both are missing, or if the content is not an IDX file.
    """
    path = find_idx(folder, name)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"'{path}' is not a complete gzip file ({error}).") from error
    header = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:header], ">u4").astype(int))
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != header + int(np.prod(shape)):
        raise InputError(f"'{path}' is not an IDX file of bytes with {dimensions} dimensions, or it is truncated.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
