"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its IDX files, gzipped or not."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.datasets.files import need_root
from spine.errors import InputError
from spine.interfaces import DataSet, Labels

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FILES = {"train": "train", "val": "t10k", "test": "t10k"}  # it has no third split: val and test are the same pictures


class FashionMNIST(DataSet):
    """28x28 grey pictures of ten kinds of clothing, 60,000 and 10,000."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    labels = Labels(classes=CLASSES)

    def __init__(self, split: str, *, root: str | None):
        base = need_root(root, "fashion_mnist")
        if split not in FILES:
            raise InputError(f"Data set 'fashion_mnist' has no split '{split}'. Choices: {', '.join(FILES)}.")
        self.images = read_idx(base, f"{FILES[split]}-images-idx3-ubyte", dimensions=3)
        self.targets = read_idx(base, f"{FILES[split]}-labels-idx1-ubyte", dimensions=1)
        if len(self.images) != len(self.targets):
            raise InputError(f"'{base}' holds {len(self.images)} {split} pictures but {len(self.targets)} labels.")
        if self.targets.max() >= len(CLASSES):
            raise InputError(f"The {split} labels in '{base}' reach {self.targets.max()}; Fashion-MNIST has classes 0 to 9.")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.images)

    def load(self, index: int) -> dict:
        """image (28, 28, 3) uint8 with three equal channels, label."""
        return {"image": self.images[index][..., None].repeat(3, axis=2), "label": int(self.targets[index])}


def read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray:
    """An array of bytes from `name` or `name`.gz. InputError where both are missing, or where the file is not what its header says."""
    path = next((folder / (name + suffix) for suffix in ("", ".gz") if (folder / (name + suffix)).is_file()), None)
    if path is None:
        raise InputError(f"'{folder}' holds neither '{name}' nor '{name}.gz'.")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise InputError(f"'{path}' is not a whole gzip file ({error}).") from error
    header = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(data[4:header], ">u4").astype(int))
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != header + int(np.prod(shape)):
        raise InputError(f"'{path}' is not an IDX file of bytes with {dimensions} dimensions, or it is cut short.")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
