"""MNIST (LeCun et al., 1998) from its IDX files, gzipped or not."""

from __future__ import annotations

from typing import ClassVar

from spine.data.image_files import need_root
from spine.data.memory_images import IDXImages
from spine.interfaces import Labels


class MNIST(IDXImages):
    """28x28 gray images of digits: 55,006 train, 4,994 val, 10,000 test.

    The published files have no validation split. This one is fixed: the last twelfth of the
    training images of each class, in the order of the file. The t10k files are the test split only,
    so that no checkpoint is selected on them.
    """

    name: ClassVar[str] = "mnist"
    labels = Labels(classes=tuple("0123456789"))

    def __init__(self, split: str, *, root: str | None):
        self._read(split, need_root(root, self.name))
