"""Tar shards in WebDataset's convention: those of `spine pack` for every task, and those of others for images, classes and masks."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data import faults
from spine.data.image_files import class_names, decode, evenly_spaced, format_names, need_root
from spine.data.shards.index import (
    DESCRIPTION,
    Description,
    changed_message,
    check_shard,
    open_split,
    read_description,
    read_objects,
)
from spine.data.shards.order import WindowOrder
from spine.data.shards.records import decode_annotations, find_image
from spine.data.shards.scanning import index_shards
from spine.data.shards.storage import CopiedShards, LocalFiles, Storage, Store, is_url, missing_message, replace_folder
from spine.data.shards.tar import BLOCK, END, broken_record, unpack_members
from spine.data.splits import Splits, configured_name
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import IGNORE_INDEX, DataSet, KeypointAnnotations, Labels, RawSample
from spine.user_cache import cache_folder, locked

STORE_WINDOW = 4096  # samples of a window if the shards are in an object store
NUM_CHECKED = 16  # samples of a split that are read before training, evenly spaced
MAX_SIZES = 4096  # shards whose sizes are compared with the index before training
GIB = 1 << 30


class Shards(DataSet):
    """Samples of tar archives, read at their offsets."""

    reads_urls: ClassVar[bool] = True
    provides: ClassVar[frozenset[str]] = frozenset({"image", "label", "mask", "keypoints"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        splits: Splits | None = None,
        classes: list[str] | str | None = None,
        window: int | None = None,
        streams: int = 64,
        copies: str | None = None,
        copies_gb: float = 50.0,
    ):
        """`root`: a folder, or the address of an object store, such as s3://bucket/folder. `splits`: name of each split, or for
        shards without an index a pattern such as "imagenet-train-*.tar". `classes`: names, or a file relative to a local root
        with one name per line, for shards without an index; None: the numbers.

        `window`: samples in a row that are shuffled together, after the shards were shuffled, in each of the `streams` parts that
        are read side by side; see `WindowOrder`. None: all samples are shuffled, as those of every other data set; in an object
        store, windows of STORE_WINDOW. Shards of an object store are copied to the folder `copies` when they are read, at most
        `copies_gb` GiB of each split; None: ~/.cache/spine. With 0 GiB, each sample is read by a request of its own.
        Raises InputError if there are no such shards, or if their index is broken.
        """
        for name, value, least in (("window", window, 1), ("streams", streams, 1), ("copies_gb", copies_gb, 0)):
            if value is not None and value < least:
                raise InputError(f"dataset.{name} is {value}; it must be {least} or more.")
        if root is not None and is_url(root):
            self.root, store = root.rstrip("/"), Store(root)
            self.folder, description, self.name = _remote_index(store, split, splits)
            base = Path(copies).expanduser() if copies is not None else cache_folder() / "shards"
            folder = base / f"copies-{self.folder.name}"  # the name depends on the content of the index: no copy is out of date
            self.storage: Storage = CopiedShards(store, folder, round(copies_gb * GIB)) if copies_gb else store
            window = window or STORE_WINDOW
        else:
            self.root = str(need_root(root, "shards"))
            self.folder, description, self.name = _local_index(self.root, split, splits)
            self.storage = LocalFiles(self.root)
        self.window, self.streams = window, streams
        node = description["splits"][self.name]
        self.index = open_split(self.folder, self.name, description)
        self.provides = frozenset(node["provides"])  # type: ignore[misc]
        self.objects = self.folder / node["objects"] if node["objects"] else None
        self.labels = self._labels(Labels.from_dict(description["labels"]), classes)
        # the members of the sample that was read last: image and annotations are asked for one after the other
        self._last: tuple[int, dict[str, np.ndarray]] | None = None
        if faults.is_collecting():
            self._report_changed_shards()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "index": None, "_last": None}  # another process maps the same files

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        path = self.folder / DESCRIPTION
        self.index = open_split(self.folder, self.name, read_description(path.read_bytes(), str(path)))

    def _labels(self, labels: Labels, classes: list[str] | str | None) -> Labels:
        """Returns the labels of the index, with other names of the classes if they are given."""
        if classes is None:
            return labels
        names = tuple(class_names(Path(self.root), classes))
        field = "classes" if labels.classes else "mask_classes"
        count = len(getattr(labels, field))
        if len(names) < count:
            raise InputError(
                f"dataset.classes has {len(names)} names, and the shards of '{self.root}' have the classes 0 to {count - 1}."
            )
        return dataclasses.replace(labels, **{field: names})  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.index)

    def check(self, needs: frozenset[str]) -> None:
        """Checks the sizes of local shards, and reads a few samples.

        Raises InputError if a shard is missing or does not have the size in the index, or if an annotation is missing.
        """
        storage = self.storage
        if isinstance(storage, LocalFiles):
            self._check_sizes()
        if isinstance(storage, CopiedShards):
            self.storage = storage.store  # a few requests, and no copies
        try:
            for index in evenly_spaced(len(self), NUM_CHECKED):
                sample = self.load(index)
                if "mask" in needs and not self.labels.multi_label:
                    self._check_mask(index, sample["mask"])
        finally:
            self.storage = storage

    def _check_mask(self, index: int, mask: np.ndarray) -> None:
        """Raises InputError if a mask has a class without a name."""
        count, highest = len(self.labels.mask_classes), int(mask.max(initial=0, where=mask != IGNORE_INDEX))
        if highest >= count:
            names = f"there are {count} classes" if count else "the classes have no names"
            raise InputError(
                f"The mask of {self._where(index)} has the class {highest}, and {names}. Set dataset.classes=[...] to the names of "
                f"all classes."
            )

    def _check_sizes(self) -> None:
        for number in evenly_spaced(len(self.index.shards), MAX_SIZES):
            shard = self.index.shards[number]
            path = os.path.join(self.root, shard.name)
            try:
                size = os.stat(path).st_size
            except FileNotFoundError:
                raise UnreadableFileError(missing_message(path), path, "missing_file") from None
            if size != shard.bytes:
                raise InputError(changed_message(path, size, shard.bytes))

    def _report_changed_shards(self) -> None:
        """Compares all local shards with the index, for the doctor. It finds missing shards and those of a store when it reads them.

        Raises InputError if the index has a class without a name.
        """
        for number, shard in enumerate(self.index.shards if isinstance(self.storage, LocalFiles) else ()):
            path = Path(self.root) / shard.name
            difference = check_shard(Path(self.root), shard) if path.is_file() else None
            if difference is None and shard.sha256 is not None and shard.samples:
                end = int(self.index.ends[self.index.firsts[number + 1] - 1]) * BLOCK + len(END)
                if end != shard.bytes:
                    difference = (
                        f"Shard '{path}' has {shard.bytes} bytes, and by the index its {shard.samples} samples end at {end}: their "
                        f"number is wrong. Copy shards.json again, or pack the data set again."
                    )
            if difference is not None:
                faults.report("changed_shard", difference, [path])
        classes, count = self.class_indices(), len(self.labels.classes)
        if classes is not None and len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < count:
            raise InputError(
                f"The index of '{self.root}' has the class {int(classes.max())}, and there are {count} classes. Copy it again, or "
                f"pack the data set again."
            )

    def _where(self, index: int) -> str:
        """The place of a sample, for messages."""
        shard, start, _ = self.index.find(index)
        return f"Sample {index} ('{self.root}/{shard.name}', byte {start})"

    def _members(self, index: int) -> dict[str, np.ndarray]:
        """Returns the members of a sample by their suffix."""
        last = self._last
        if last is not None and last[0] == index:
            return last[1]
        shard, start, size = self.index.find(index)
        if size <= 0:  # the index has wrong numbers of samples
            raise UnreadableFileError(broken_record(self._where(index)), self._where(index), "changed_shard")
        members = unpack_members(self.storage.read(shard.name, start, size), self._where(index))
        self._last = index, members
        return members

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8 and the annotations."""
        return {**self.load_annotations(index), "image": decode(self.encoded_image(index))}

    def load_annotations(self, index: int) -> RawSample:
        """Returns the annotations of a sample. Raises UnreadableFileError if one is missing or broken."""
        if self.provides == {"image", "label"} and self.index.classes is not None and self.index.classes.ndim == 1:
            return {"label": int(self.index.classes[index])}
        where = self._where(index)
        sample = decode_annotations(self._members(index), self.labels, where)
        if missing := sorted(self.provides - {"image"} - sample.keys()):
            raise UnreadableFileError(f"{where} has no {missing[0]}. Pack the data set again.", where, "missing_annotation")
        return sample

    def encoded_image(self, index: int) -> EncodedImage:
        """Returns the bytes of an image as they are in the shard."""
        return find_image(self._members(index), self._where(index))

    def class_indices(self) -> np.ndarray | None:
        """Returns the class of each sample (N,), from the index."""
        return None if self.labels.several_classes else self.index.classes

    def sample_weights(self) -> np.ndarray | None:
        """Returns the weight of each sample (N,) float64, from the index."""
        return self.index.weights

    def groups(self) -> np.ndarray | None:
        """Returns the number of the group of each sample (N,), from the index."""
        return self.index.groups

    def keypoint_annotations(self) -> KeypointAnnotations | None:
        """Returns all annotated objects of the data set that was packed."""
        return None if self.objects is None else read_objects(self.objects)

    def shared_files(self) -> list[str]:
        """Returns shards.json, which has the content hash of every shard."""
        return [str(self.folder / DESCRIPTION)]

    def order(self, seed: int, epoch: int) -> WindowOrder | None:
        """Returns the order of an epoch in windows, or None for a permutation of all samples."""
        if self.window is None:
            return None
        return WindowOrder(self.index.counts, self.window, self.streams, (seed, epoch), self._fetch_ahead)

    def _fetch_ahead(self, numbers: list[int]) -> None:
        if isinstance(self.storage, CopiedShards):
            self.storage.fetch_ahead([self.index.shards[number].name for number in numbers])


def _split_name(description: Description, split: str, splits: Splits | None, root: str) -> str:
    """Returns the name of a split in an index. Raises InputError if it has none of that name."""
    name = configured_name(split, splits) or split
    if name not in description["splits"]:
        raise InputError(f"'{root}' has no split '{name}'. Splits: {format_names(description['splits'])}.")
    return name


def _local_index(root: str, split: str, splits: Splits | None) -> tuple[Path, Description, str]:
    """Returns the folder of the index, its description and the name of the split in it."""
    path = Path(root) / DESCRIPTION
    if path.is_file():
        description = read_description(path.read_bytes(), str(path))
        return path.parent, description, _split_name(description, split, splits, root)
    folder = index_shards(root, split, splits)
    return folder, read_description((folder / DESCRIPTION).read_bytes(), str(folder / DESCRIPTION)), split


def _remote_index(store: Store, split: str, splits: Splits | None) -> tuple[Path, Description, str]:
    """Returns the local folder of the index of an object store, copied if it is new, its description and the name of the split."""
    try:
        content = store.read_whole(DESCRIPTION)
    except UnreadableFileError:
        folder = index_shards(store.url, split, splits)
        return folder, read_description((folder / DESCRIPTION).read_bytes(), str(folder / DESCRIPTION)), split
    description = read_description(content, f"{store.url}/{DESCRIPTION}")
    name = _split_name(description, split, splits, store.url)
    node = description["splits"][name]
    files = [*node["columns"].values(), *([node["objects"]] if node["objects"] else [])]
    key = hashlib.sha256(f"{store.url}\n{name}\n".encode() + content).hexdigest()[:16]
    target = cache_folder() / "shards" / key
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{key}.lock")):
            if not target.is_dir():
                part = target.with_name(f"{key}.part")
                shutil.rmtree(part, ignore_errors=True)
                (part / "index").mkdir(parents=True)
                for file in files:
                    store.copy(file, part / file)
                (part / DESCRIPTION).write_bytes(content)
                replace_folder(part, target)
    return target, description, name
