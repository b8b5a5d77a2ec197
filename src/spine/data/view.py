"""The base class of data sets that show the samples of another data set in another way."""

from __future__ import annotations

import numpy as np

from spine.encoded_image import EncodedImage
from spine.interfaces import DataSet, KeypointAnnotations, RawSample


class View(DataSet):
    """Samples of another data set: all of them in their order, or those with the numbers `indices`.

    Subclasses override what they change.
    """

    def __init__(self, data: DataSet, indices: np.ndarray | None = None):
        self.data, self.indices = data, indices
        self.labels, self.provides = data.labels, data.provides  # type: ignore[misc]

    def source_index(self, index: int) -> int:
        """Returns the index in the other data set."""
        return index if self.indices is None else int(self.indices[index])

    def _chosen(self, values: np.ndarray | None) -> np.ndarray | None:
        return values if values is None or self.indices is None else values[self.indices]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data) if self.indices is None else len(self.indices)

    def check(self, needs: frozenset[str]) -> None:
        """Checks the whole other data set."""
        self.data.check(needs)

    def load(self, index: int) -> RawSample:
        """Returns a raw sample."""
        return self.data.load(self.source_index(index))

    def load_annotations(self, index: int) -> RawSample:
        """Returns a raw sample without its image."""
        return self.data.load_annotations(self.source_index(index))

    def encoded_image(self, index: int) -> EncodedImage | None:
        """Returns the image of a sample as it is stored, or None."""
        return self.data.encoded_image(self.source_index(index))

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each sample."""
        return self._chosen(self.data.class_indices())

    def sample_weights(self) -> np.ndarray | None:
        """Returns the weight of each sample."""
        return self._chosen(self.data.sample_weights())

    def groups(self) -> np.ndarray | None:
        """Returns the number of the group of each sample."""
        return self._chosen(self.data.groups())

    def keypoint_annotations(self) -> KeypointAnnotations | None:
        """Returns all annotated objects of the other data set, or None for a part of it."""
        return self.data.keypoint_annotations() if self.indices is None else None

    def files(self, index: int) -> list[str]:
        """Returns the files of a sample."""
        return self.data.files(self.source_index(index))

    def shared_files(self) -> list[str]:
        """Returns the shared files of the whole other data set."""
        return self.data.shared_files()
