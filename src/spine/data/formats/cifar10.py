"""CIFAR-10 (Krizhevsky, 2009) from cifar-10-python.tar.gz, cifar-10-binary.tar.gz or their folders."""

from __future__ import annotations

from spine.data.cifar_files import CIFARFiles, CIFARImages
from spine.data.image_files import need_root
from spine.interfaces import Labels

FILES = CIFARFiles(
    archive="cifar-10",
    python_folder="cifar-10-batches-py",
    binary_folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test=("test_batch",),
    label_keys=("labels",),
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(CIFARImages):
    """32x32 color images of ten classes: 45,000 train, 5,000 val, 10,000 test.

    The published files have no validation split. This one is fixed: the last 500 of the 5,000
    training images of each class, in the order of the files. The test files are the test split only,
    so that no checkpoint is selected on them.
    """

    labels = Labels(classes=CLASSES)

    def __init__(self, split: str, *, root: str | None):
        """`root`: folder of the archive as downloaded, or of the extracted files."""
        self._read(split, need_root(root, "cifar10"), FILES, "labels")
