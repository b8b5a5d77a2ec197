"""Fashion-MNIST (Xiao et al., arXiv 1708.07747) from its IDX files, gzipped or not."""

from __future__ import annotations

from typing import ClassVar

from spine.data.image_files import need_root
from spine.data.memory_images import IDXImages
from spine.interfaces import Labels

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


class FashionMNIST(IDXImages):
    """28x28 gray images of ten kinds of clothing: 55,000 train, 5,000 val, 10,000 test.

    The published files have no validation split. This one is fixed: the last 500 of the 6,000
    training images of each class, in the order of the file. The t10k files are the test split only,
    so that no checkpoint is selected on them.
    """

    name: ClassVar[str] = "fashion_mnist"
    labels = Labels(classes=CLASSES)

    def __init__(self, split: str, *, root: str | None):
        self._read(split, need_root(root, self.name))
