"""Base classes of data sets whose images are files of their own."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import numpy as np

from spine.data.image_files import PackedNames, format_names, log_warning, read_bytes, read_image
from spine.encoded_image import EncodedImage
from spine.interfaces import DataSet, RawSample


class ImagePerFile(DataSet):
    """Images in files of their own. Subclasses know their paths and annotations."""

    names: PackedNames  # (N,) of the files

    @abstractmethod
    def path(self, index: int) -> Path:
        """Returns the file of an image."""

    @abstractmethod
    def load_annotations(self, index: int) -> RawSample:
        """Returns the annotations of an image."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def files(self, index: int) -> list[str]:
        """Returns the image file of a sample."""
        return [str(self.path(index))]

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8 and the annotations."""
        return {**self.load_annotations(index), "image": read_image(self.path(index))}

    def encoded_image(self, index: int) -> EncodedImage:
        """Returns the bytes of the image file."""
        path = self.path(index)
        return EncodedImage(read_bytes(path, "an image"), str(path))


class ClassifiedImages(ImagePerFile):
    """Images of one class each."""

    split: str
    folder: Path  # of the split
    targets: np.ndarray  # (N,) int32: number of the class

    def load_annotations(self, index: int) -> RawSample:
        """Returns the label."""
        return {"label": int(self.targets[index])}

    def class_indices(self) -> np.ndarray:
        """Returns the class of each image."""
        return self.targets

    def warn_of_empty_classes(self) -> None:
        """Logs a warning if there are classes without images."""
        counts = np.bincount(self.targets, minlength=len(self.labels.classes))
        if empty := [name for name, count in zip(self.labels.classes, counts, strict=True) if not count]:
            log_warning(f"Split '{self.split}' in '{self.folder}' has no image of {len(empty)} classes: {format_names(empty)}.")
