"""Images of a data set that stay in memory, which all worker processes share."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Literal

import numpy as np

from spine.data.image_files import decode, log_warning
from spine.data.view import View
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.interfaces import DataSet, RawSample

CacheKind = Literal["none", "encoded", "decoded"]
FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
COLUMNS = 5  # of the table of a cache: start (0: not there), bytes, height and width (0: unknown), upright


class SharedMemory:
    """A block of memory of a fixed size, which this process shares with the processes that are forked from it later.

    The operating system provides a page when it is first written.
    """

    def __init__(self, limit: int):
        """`limit`: size of the block in bytes. Raises InputError if processes cannot be forked here."""
        if FORK is None:
            raise InputError("dataset.cache needs worker processes that are forked, as on Linux. Set dataset.cache=none.")
        self.lock = FORK.Lock()
        self.block = np.frombuffer(mmap.mmap(-1, max(limit, mmap.PAGESIZE)), np.uint8)[:limit]
        self.state = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64)  # used bytes, whether something did not fit

    @property
    def used(self) -> int:
        """Number of bytes in use."""
        return int(self.state[0])

    def reserve(self, size: int) -> int | None:
        """Returns the start of `size` bytes that nothing else uses, or None if they do not fit. Call it with the lock."""
        start = self.used
        if start + size > len(self.block):
            if not self.state[1]:
                self.state[1] = 1
                log_warning(
                    f"dataset.cache is full: {start / 2**30:.3g} GiB. Other images are read again. Set dataset.cache_gb to keep more."
                )
            return None
        self.state[0] = start + -(-size // 8) * 8  # numbers are aligned
        return start


class Cached(View):
    """A data set whose images are kept in shared memory when they are first read, until the memory is full.

    "encoded": the bytes of image files. "decoded": the pixels; crops of large JPEG files are then cut
    from the whole decoded image. Objects of the same image file share its place.
    """

    def __init__(self, data: DataSet, memory: SharedMemory, kind: CacheKind):
        """Raises InputError if the data set cannot return its images encoded."""
        super().__init__(data)
        self.memory, self.decoded = memory, kind == "decoded"
        if not self.decoded and len(data) and data.encoded_image(0) is None:
            raise InputError(
                "dataset.cache=encoded needs a data set that reads one image file for each sample. Set dataset.cache=decoded or none."
            )
        self.rows = _first_of_file(data) if "keypoints" in data.provides else None
        with memory.lock:
            size = len(data) * COLUMNS * 8
            start = memory.reserve(size)
        self.table = None if start is None else memory.block[start : start + size].view(np.int64).reshape(-1, COLUMNS)

    def load(self, index: int) -> RawSample:
        """Returns a raw sample."""
        if not self.decoded:
            encoded = self.encoded_image(index)
            assert encoded is not None
            return {**self.data.load_annotations(index), "image": decode(encoded)}
        found = self._find(index)
        if found is None:
            sample = self.data.load(index)
            image = sample["image"]
            self._keep(index, image.reshape(-1), image.shape[0], image.shape[1])
            return sample
        pixels, row = found
        return {**self.data.load_annotations(index), "image": pixels.reshape(row[2], row[3], -1).copy()}

    def encoded_image(self, index: int) -> EncodedImage | None:
        """Returns the image as it is stored. None if the cache holds decoded images."""
        if self.decoded:
            return None
        found = self._find(index)
        if found is None:
            encoded = self.data.encoded_image(index)
            assert encoded is not None
            self._keep(index, encoded.data, *(encoded.size or (0, 0)), upright=encoded.upright)
            return encoded
        data, row = found
        return EncodedImage(data, "".join(self.files(index)[:1]), (row[2], row[3]) if row[2] else None, bool(row[4]))

    def _row(self, index: int) -> int:
        """Returns the row of the table for the image of a sample."""
        return index if self.rows is None else int(self.rows[index])

    def _find(self, index: int) -> tuple[np.ndarray, list[int]] | None:
        """Returns the bytes of an image and its row of the table, or None if it is not there."""
        if self.table is None:
            return None
        with self.memory.lock:
            row = self.table[self._row(index)].tolist()
        return (self.memory.block[row[0] : row[0] + row[1]], row) if row[0] else None

    def _keep(self, index: int, data: np.ndarray, height: int, width: int, upright: bool = True) -> None:
        """Keeps the bytes of an image if there is room for them."""
        if self.table is None:
            return
        number = self._row(index)
        with self.memory.lock:
            if self.table[number, 0]:  # another process was faster
                return
            start = self.memory.reserve(len(data))
            if start is not None:
                self.memory.block[start : start + len(data)] = data
                self.table[number] = start, len(data), height, width, upright


def _first_of_file(data: DataSet) -> np.ndarray:
    """Returns the index (N,) of the first sample with the same image file. A sample without a file has its own."""
    first: dict[str, int] = {}
    return np.array(
        [first.setdefault("".join(data.files(index)[:1]) or f"sample {index}", index) for index in range(len(data))], int
    )
