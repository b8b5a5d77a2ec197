"""Reads all samples of a split, in several processes."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import cv2
import numpy as np

from spine.data.checks import keypoints, masks
from spine.data.checks.files import RECORD, broken, describe, storage
from spine.data.faults import Fault, collected
from spine.data.image_files import read_bytes
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, RawSample

CHUNK = 32  # images that a process reads at once
FEW = 2000  # images that are read without further processes, whose start takes seconds
Group = list[int]  # samples of one image; several are objects of the same picture


@dataclass
class Examined:
    """What was read of a part of a split."""

    records: np.ndarray  # (N,) RECORD, of the images that can be read
    faults: list[Fault] = field(default_factory=list)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # of each class of masks
    shown: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # masks that show each class
    labels: np.ndarray = field(
        default_factory=lambda: np.zeros(0, np.int64)
    )  # images of each class, with several classes for each
    visible: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # labeled points of each keypoint

    def add(self, other: Examined) -> None:
        """Adds the counts and the faults of another part. Its records are kept apart, because joining them costs time."""
        self.faults += other.faults
        for name in ("pixels", "shown", "labels", "visible"):
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, theirs if not len(mine) else mine + theirs)


def group_samples(data: DataSet) -> list[Group]:
    """Returns the samples by image: objects in the same picture are read together."""
    groups: dict[str | int, Group] = {}
    for index in range(len(data)):
        files = data.files(index)
        groups.setdefault(files[0] if files else index, []).append(index)
    return list(groups.values())


class Examiner:
    """Reads groups of samples of a data set."""

    def __init__(self, data: DataSet):
        self.data = data

    def __call__(self, groups: list[Group]) -> Examined:
        """Returns what was read."""
        labels = self.data.labels
        found = Examined(
            np.zeros(0, RECORD),
            pixels=np.zeros(len(labels.mask_classes), np.int64),
            shown=np.zeros(len(labels.mask_classes), np.int64),
            labels=np.zeros(len(labels.classes), np.int64),
            visible=np.zeros(len(labels.keypoints), np.int64),
        )
        records = [record for group in groups if (record := self._image(group, found)) is not None]
        found.records = np.array(records, RECORD)
        return found

    def _image(self, group: Group, found: Examined) -> np.ndarray | None:
        """Reads the samples of one image. Returns its record, or None if it cannot be read."""
        index, files = group[0], tuple(self.data.files(group[0]))
        try:
            data = self._bytes(index, files)
        except InputError as error:
            found.faults.append(_fault_of(error, files, index))
            return None
        if data is not None and (fault := broken(files[0] if files else f"sample {index}", data, "image")) is not None:
            found.faults.append(fault)
            return None
        if "mask" in self.data.provides and (faults := self._broken_masks(files[1:])):
            found.faults += faults
            return None
        sample = self._load(index, files, found)
        if sample is None:
            return None
        image = sample["image"]
        if data is not None:
            found.faults += storage(files[0] if files else f"sample {index}", data, image)
        elif image.ndim == 3 and (image == image[..., :1]).all():
            found.faults.append(Fault("grayscale", f"Sample {index} is grayscale.", files, index=index))
        if "keypoints" in sample:
            self._objects(group, sample, files, found)
        label = sample.get("label", -1)
        if isinstance(label, np.ndarray):
            found.labels += label == 1  # 255 is unknown
        return describe(index, label if isinstance(label, int) else -1, image, data)

    def _bytes(self, index: int, files: tuple[str, ...]) -> np.ndarray | None:
        """Returns the bytes of the image. Raises InputError if there are none."""
        if files:
            return read_bytes(files[0], "an image")
        encoded = self.data.encoded_image(index)
        return None if encoded is None else encoded.data

    def _broken_masks(self, files: tuple[str, ...]) -> list[Fault]:
        found = []
        for file in files:
            try:
                fault = broken(file, read_bytes(file, "a mask"), "mask")
            except UnreadableFileError as error:
                fault = Fault(error.kind, str(error), (file,))
            found += [fault] if fault is not None else []
        return found

    def _load(self, index: int, files: tuple[str, ...], found: Examined) -> RawSample | None:
        """Loads a sample and judges its mask. Returns None if it cannot be loaded."""
        with collected() as faults:
            try:
                sample = self.data.load(index)
            except InputError as error:
                faults.append(_fault_of(error, files, index))
                sample = None
        jpegs = [fault for fault in faults if fault.kind == "jpeg_mask"]
        found.faults += jpegs or faults  # the values of a JPEG are wrong for one reason
        if sample is None or faults or "mask" not in sample:
            return sample
        counts = masks.count_pixels(sample["mask"], len(self.data.labels.mask_classes))
        found.pixels += counts
        found.shown += counts > 0
        if masks.is_empty(sample["mask"]):
            where = files[1] if len(files) > 1 else f"of sample {index}"
            found.faults.append(Fault("empty_mask", f"Mask '{where}' has no pixel of a class above 0.", files, index=index))
        return sample

    def _objects(self, group: Group, first: RawSample, files: tuple[str, ...], found: Examined) -> None:
        size = (int(first["image"].shape[0]), int(first["image"].shape[1]))
        for index in group:
            sample = first if index == group[0] else self.data.load_annotations(index)
            found.faults += keypoints.outside(sample, size, files, index)
            found.visible += sample["keypoints"][:, 2] > 0


def _fault_of(error: InputError, files: tuple[str, ...], index: int) -> Fault:
    """Returns the fault of a sample that raised an error. `files`: of the sample."""
    if isinstance(error, UnreadableFileError):
        return Fault(error.kind, str(error), (error.path,) if error.path else files, index=index)
    return Fault("sample", str(error), files, index=index)


_examiner: Examiner | None = None  # of a worker process


def _start(examiner: Examiner) -> None:
    global _examiner
    _examiner = examiner
    cv2.setNumThreads(0)


def _examine(groups: list[Group]) -> Examined:
    assert _examiner is not None
    with silent_decoders():
        return _examiner(groups)


@contextmanager
def silent_decoders() -> Iterator[None]:
    """Discards what libraries print about broken files, which are reported."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def examine(data: DataSet, groups: list[Group], num_workers: int, advance: Callable[[int], None]) -> Examined:
    """Returns what was read of all groups. `advance` is called with the number of images that were read since the last call."""
    parts, total = [], Examined(np.zeros(0, RECORD))
    for part, count in _parts(data, groups, num_workers):
        total.add(part)
        parts.append(part.records)
        advance(count)
    total.records = np.concatenate(parts) if parts else total.records
    return total


def _parts(data: DataSet, groups: list[Group], num_workers: int) -> Iterator[tuple[Examined, int]]:
    chunks = [groups[i : i + CHUNK] for i in range(0, len(groups), CHUNK)]
    examiner = Examiner(data)
    workers = min(num_workers, os.cpu_count() or 1, len(chunks))
    if workers < 2 or len(groups) <= FEW:
        for chunk in chunks:
            with silent_decoders():
                part = examiner(chunk)
            yield part, len(chunk)
        return
    # a process that has threads of torch must not be forked
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(examiner,))
    try:
        for chunk, part in zip(chunks, pool.map(_examine, chunks), strict=True):
            yield part, len(chunk)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
