"""Packs a data set into shards: several processes write whole shards, and an interrupted packing goes on with the missing ones."""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import os
import signal
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from spine.data.image_files import evenly_spaced, format_names
from spine.data.shards.index import (
    DESCRIPTION,
    FOLDER,
    OBJECTS,
    Description,
    Shard,
    write_description,
    write_objects,
    write_split,
)
from spine.data.shards.records import encode_sample
from spine.data.shards.storage import LocalFiles
from spine.data.shards.tar import BLOCK, END, pack_members, unpack_members
from spine.errors import STOP_SIGNALS, InputError
from spine.interfaces import DataSet, Labels

STATE = "packing.json"  # what an unfinished folder is packed from
MEASURED = 256  # samples whose mean size determines the number of samples of a shard
MIB = 1 << 20
Report = Callable[[int], None]  # called with a number of samples that are done


@dataclass(frozen=True)
class Plan:
    """How a split is divided: shard k has the samples k * size .. of `order`, or of the data set if that is None."""

    split: str
    samples: int
    size: int  # samples of a shard
    seed: int | None  # of the order in which samples are stored; None: that of the data set

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.samples // self.size)

    def name(self, number: int) -> str:
        """File name of a shard."""
        return f"{self.split}-{number:06d}.tar"

    def count(self, number: int) -> int:
        """Number of samples of a shard."""
        return min(self.size, self.samples - number * self.size)

    def order(self) -> np.ndarray:
        """Returns the samples (N,) of the data set in the order in which they are stored."""
        return (
            np.arange(self.samples)
            if self.seed is None
            else _shuffled(self.samples, (self.seed, zlib.crc32(self.split.encode())))
        )

    def indices(self, number: int) -> np.ndarray:
        """Returns the samples of a shard."""
        return self.order()[number * self.size : (number + 1) * self.size]


@functools.lru_cache(maxsize=1)
def _shuffled(count: int, key: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(key).permutation(count)


def plan_split(data: DataSet, split: str, shard_mb: float, seed: int | None) -> Plan:
    """Returns the division of a split into shards of about `shard_mb` MiB. It does not depend on the number of processes.

    Every shard but the last one has the same number of samples: as many as fit by the mean size of MEASURED samples.
    """
    if not len(data):
        raise InputError(f"Split '{split}' has no samples to pack.")
    sizes = [len(pack_members("", encode_sample(data, index))) for index in evenly_spaced(len(data), MEASURED)]
    return Plan(split, len(data), max(1, round(shard_mb * MIB / np.mean(sizes))), seed)


def begin(folder: Path, source: Mapping[str, object]) -> bool:
    """Prepares a folder for packing and returns whether it is complete already.

    `source`: what is packed, as plain values. Raises InputError if the folder has something else.
    """
    text = json.dumps(source, indent=1, sort_keys=True, default=str)
    state = folder / STATE
    if folder.exists() and not folder.is_dir():
        raise InputError(f"out is '{folder}', which is a file. Give a new folder.")
    if state.is_file() and (state.read_text() == text or next(folder.glob("*.tar*"), None) is not None):
        if state.read_text() != text:
            raise InputError(
                f"'{folder}' holds the unfinished shards of another data set or of other options ({state}). Repeat the same command to "
                f"finish them, or give another folder."
            )
        return (folder / DESCRIPTION).is_file()
    if folder.is_dir() and (found := sorted(set(os.listdir(folder)) - {STATE})):
        raise InputError(f"'{folder}' is not empty: it has {format_names(found, 4)}. Give a new folder for the shards.")
    folder.mkdir(parents=True, exist_ok=True)
    state.write_text(text)
    return False


def pack_split(data: DataSet, plan: Plan, folder: Path, workers: int, report: Report) -> Description:
    """Writes the missing shards of a split and its index, and returns its part of shards.json.

    `workers`: processes; with 1, this one. The shards do not depend on it. Raises InputError for a sample that cannot be read, or
    if what was written is not read back.
    """
    missing = []
    for number in range(plan.shards):
        if _is_complete(folder, plan, number):
            report(plan.count(number))
        else:
            missing.append(number)
    for number in _run(data, plan, folder, missing, workers):
        report(plan.count(number))
    parts = [json.loads(_part(folder, plan, number).read_text()) for number in range(plan.shards)]
    shards = [
        asdict(Shard(plan.name(number), *(part[key] for key in ("samples", "bytes", "sha256"))))
        for number, part in enumerate(parts)
    ]
    order = plan.order()
    classes, groups, weights = (_in(order, values) for values in (_classes(data), data.groups(), data.sample_weights()))
    columns = {
        "ends": np.concatenate([np.array(part["ends"], np.uint32) for part in parts]),
        "classes": classes,
        "groups": groups,
        "weights": weights,
    }
    names, objects = write_split(folder, plan.split, columns), None
    if (found := data.keypoint_annotations()) is not None:
        objects = f"{FOLDER}/{plan.split}.{OBJECTS}.npz"
        write_objects(folder / objects, found)
    return {"provides": sorted(data.provides), "columns": names, "objects": objects, "shards": shards}


def finish(folder: Path, labels: Labels, splits: Mapping[str, Description]) -> None:
    """Writes shards.json and removes what only an interrupted packing needs."""
    write_description(folder, labels, splits)
    for path in folder.glob("*.tar.json"):
        path.unlink()


def _part(folder: Path, plan: Plan, number: int) -> Path:
    """The file with the facts of a complete shard."""
    return folder / f"{plan.name(number)}.json"


def _is_complete(folder: Path, plan: Plan, number: int) -> bool:
    """Whether a shard was written, of a data set with the same number of samples."""
    part, shard = _part(folder, plan, number), folder / plan.name(number)
    if not part.is_file() or not shard.is_file():
        return False
    facts = json.loads(part.read_text())
    return facts["plan"] == asdict(plan) and facts["bytes"] == shard.stat().st_size


def _in(order: np.ndarray, values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else np.asarray(values)[order]


def _classes(data: DataSet) -> np.ndarray | None:
    """Returns the class of each sample (N,) in the smallest type, or (N, classes) uint8 if samples may have several."""
    if "label" not in data.provides:
        return None
    if data.labels.several_classes:
        return np.stack([np.asarray(data.load_annotations(index)["label"], np.uint8) for index in range(len(data))])
    classes = data.class_indices()
    return None if classes is None else np.asarray(classes, np.min_scalar_type(max(len(data.labels.classes) - 1, 0)))


_packed: tuple[DataSet, Plan, Path] | None = None  # of a worker process


def _prepare(data: DataSet, plan: Plan, folder: Path) -> None:
    global _packed
    import cv2

    cv2.setNumThreads(0)
    for (
        number
    ) in STOP_SIGNALS:  # signals go to all processes of a terminal; the first one stops after the shards that are being written
        signal.signal(number, signal.SIG_IGN)
    _packed = data, plan, folder


def _pack(number: int) -> int:
    assert _packed is not None
    write_shard(*_packed, number)
    return number


def _run(data: DataSet, plan: Plan, folder: Path, numbers: Sequence[int], workers: int) -> Iterator[int]:
    """Yields the numbers of the shards as they are written."""
    if workers <= 1 or len(numbers) <= 1:
        for number in numbers:
            write_shard(data, plan, folder, number)
            yield number
        return
    context = multiprocessing.get_context("spawn")  # forks of a process with threads may hang
    with ProcessPoolExecutor(min(workers, len(numbers)), context, _prepare, (data, plan, folder)) as pool:
        futures = [pool.submit(_pack, number) for number in numbers]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_shard(data: DataSet, plan: Plan, folder: Path, number: int) -> None:
    """Writes a shard and its facts. It has its name only when it is complete and was read back.

    Raises InputError if the bytes on the disk are not those that were written.
    """
    target = folder / plan.name(number)
    part = target.with_suffix(".tar.part")
    ends, sums, digest, place = [], [], hashlib.sha256(), number * plan.size
    with part.open("wb") as file:
        for offset, index in enumerate(plan.indices(number).tolist()):
            record = pack_members(f"{place + offset:010d}", encode_sample(data, index))
            file.write(record)
            ends.append(file.tell() // BLOCK)
            sums.append(zlib.crc32(record))
            digest.update(record)
        file.write(END)
        digest.update(END)
        file.flush()
        os.fsync(file.fileno())
    _verify(part, ends, sums)
    facts = {"plan": asdict(plan), "samples": len(ends), "bytes": part.stat().st_size, "sha256": digest.hexdigest(), "ends": ends}
    part.replace(target)
    facts_part = _part(folder, plan, number).with_suffix(".part")
    facts_part.write_text(json.dumps(facts))
    facts_part.replace(_part(folder, plan, number))


def _verify(path: Path, ends: Sequence[int], sums: Sequence[int]) -> None:
    """Reads the records of a shard by their index. Raises InputError if one is not as it was written."""
    files, start = LocalFiles(path.parent), 0
    for number, (end, expected) in enumerate(zip(ends, sums, strict=True)):
        record = files.read(path.name, start * BLOCK, (end - start) * BLOCK)
        if zlib.crc32(record.tobytes()) != expected or not unpack_members(record, f"Sample {number} of '{path}'"):
            raise InputError(f"Sample {number} of '{path}' was not read back as it was written. Check the disk, and pack again.")
        start = end
