"""The index of a split: where each sample is, its class, group and weight. Arrays are memory-mapped, and processes share them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spine.data.shards.tar import BLOCK
from spine.errors import InputError
from spine.interfaces import KeypointAnnotations, Labels

DESCRIPTION = "shards.json"
FOLDER = "index"
FORMAT, VERSION = "spine shards", 1
COLUMNS = ("ends", "classes", "groups", "weights")  # files index/<split>.<column>.npy
OBJECTS = "objects"  # file index/<split>.objects.npz: keypoint annotations of all objects
Description = dict[str, Any]  # content of shards.json


@dataclass(frozen=True)
class Shard:
    """One tar archive."""

    name: str  # of the file, relative to the root
    samples: int
    bytes: int
    sha256: str | None = None  # of the file; None for shards that spine did not write


class SplitIndex:
    """The samples of one split in the order of the data set.

    ends (N,) uint32: where the record of a sample ends in its shard, in blocks of 512 bytes; the next one begins there. Four bytes
    are enough for shards of 2 TiB. classes (N,), or (N, classes) if an image may have several; groups (N,) int64; weights (N,)
    float64. Each is None if the data set has none.
    """

    def __init__(self, shards: Sequence[Shard], columns: Mapping[str, np.ndarray], path: str):
        """`columns`: arrays by name. `path`: for messages. Raises InputError if the numbers of samples differ."""
        self.shards = shards
        self.counts = np.array([shard.samples for shard in shards], np.int64)
        self.firsts = np.concatenate([[0], np.cumsum(self.counts)])
        self.ends = columns["ends"]
        self.classes, self.groups, self.weights = (columns.get(name) for name in COLUMNS[1:])
        for name, column in columns.items():
            if len(column) != self.firsts[-1]:
                raise InputError(
                    f"The index '{path}' has {len(column)} {name}, and its shards have {self.firsts[-1]} samples: it belongs to other "
                    f"shards. Pack the data set again."
                )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.ends)

    def find(self, index: int) -> tuple[Shard, int, int]:
        """Returns the shard of a sample, the start of its record and the size in bytes."""
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        start = int(self.ends[index - 1]) if index > self.firsts[number] else 0
        return self.shards[number], start * BLOCK, (int(self.ends[index]) - start) * BLOCK


def check_shard(folder: Path, shard: Shard) -> str | None:
    """Returns what differs between a shard of a folder, which exists, and the index, in a sentence. None: nothing.

    Reads the whole file if the index has its hash.
    """
    path = folder / shard.name
    if (size := path.stat().st_size) != shard.bytes:
        return changed_message(path, size, shard.bytes)
    if shard.sha256 is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == shard.sha256:
        return None
    return (
        f"Shard '{path}' does not have the content that the index was made for: its SHA-256 begins with {found[:8]}, not with "
        f"{shard.sha256[:8]}. Copy it again, or pack the data set again."
    )


def changed_message(path: object, size: int, expected: int) -> str:
    """Message for a shard of another size than the index states, in bytes."""
    return (
        f"Shard '{path}' has {size} bytes, and the index was made for {expected}: it is truncated or was replaced. Copy it "
        f"again, or pack the data set again."
    )


def write_split(folder: Path, split: str, columns: Mapping[str, np.ndarray | None]) -> dict[str, str]:
    """Writes the columns of a split and returns the names of their files."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    names = {}
    for column, values in columns.items():
        if values is not None:
            names[column] = f"{FOLDER}/{split}.{column}.npy"
            np.save(folder / names[column], values, allow_pickle=False)
    return names


def write_description(folder: Path, labels: Labels, splits: Mapping[str, Description]) -> None:
    """Writes shards.json: labels, and the `provides`, `columns`, `objects` and `shards` of each split."""
    content = {"format": FORMAT, "version": VERSION, "labels": dataclasses.asdict(labels), "splits": splits}
    part = folder / f"{DESCRIPTION}.part"
    part.write_text(json.dumps(content, indent=1, default=list) + "\n")
    part.replace(folder / DESCRIPTION)


def read_description(content: bytes | str, path: str) -> Description:
    """Returns the content of a shards.json. Raises InputError if it is not one of this version."""
    try:
        found = json.loads(content)
        known = found["format"] == FORMAT and isinstance(found["splits"], dict)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"'{path}' is not a list of shards that spine wrote. Pack the data set again.")
    if found["version"] != VERSION:
        raise InputError(
            f"'{path}' has version {found['version']}, and this version of spine reads {VERSION}. Pack the data set again."
        )
    return found


def open_split(folder: Path, split: str, description: Description) -> SplitIndex:
    """Returns the index of a split in a local folder. Raises InputError if a file of it is missing or broken."""
    node = description["splits"][split]
    columns = {}
    for name, file in node["columns"].items():
        try:
            columns[name] = np.load(folder / file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The index file '{folder / file}' is missing or broken. Copy it again, or pack the data set again."
            ) from error
    return SplitIndex([Shard(**shard) for shard in node["shards"]], columns, str(folder / FOLDER))


def write_objects(path: Path, found: KeypointAnnotations) -> None:
    """Writes keypoint annotations of all objects, without their images, to an npz file."""
    images = [
        {"id": number, "path": file, "size": None if size is None else list(map(int, size))}
        for number, (file, size) in found.images.items()
    ]
    arrays = {key: getattr(found, key) for key in ARRAYS}
    text = json.dumps({"path": found.path, "category": int(found.category), "images": images})
    np.savez_compressed(path, allow_pickle=False, text=np.array(text), **arrays)


def read_objects(path: Path) -> KeypointAnnotations:
    """Returns the keypoint annotations in an npz file. Raises InputError if it is missing or broken."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays, text = {key: file[key] for key in ARRAYS}, json.loads(str(file["text"]))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"The index file '{path}' is missing or broken. Copy it again, or pack the data set again.") from error
    images = {each["id"]: (each["path"], tuple(each["size"]) if each["size"] else None) for each in text["images"]}
    return KeypointAnnotations(path=text["path"], category=text["category"], images=images, **arrays)


ARRAYS = ("image_ids", "keypoints", "boxes", "areas", "crowd", "labeled")  # of KeypointAnnotations
