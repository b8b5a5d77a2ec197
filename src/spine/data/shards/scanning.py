"""Indexes tar shards that spine did not write: finds the samples in the headers of the archives."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from spine.data import faults
from spine.data.image_files import format_names, log_warning
from spine.data.shards.index import DESCRIPTION, Shard, write_description, write_split
from spine.data.shards.records import CLASS, MASK, is_image, read_class
from spine.data.shards.storage import Store, is_url, replace_folder
from spine.data.shards.tar import BLOCK, split_name
from spine.data.splits import Splits, configured_name
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import Labels
from spine.user_cache import cache_folder, locked

NO_CLASS, FAULTY = -1, -2
PATTERNS = ("{split}/*.tar", "{split}*.tar", "*[-_]{split}[-_]*.tar")  # of the shards of a split


@dataclass
class Samples:
    """What the headers of one shard tell about its samples."""

    ends: list[int] = field(default_factory=list)  # in blocks
    classes: list[int] = field(default_factory=list)  # NO_CLASS of a sample that has none, FAULTY of one that was reported
    masked: list[bool] = field(default_factory=list)  # whether a sample has a mask
    without_image: list[str] = field(default_factory=list)  # keys

    def begin(self) -> None:
        """Adds a sample without members."""
        self.ends.append(0)
        self.classes.append(NO_CLASS)
        self.masked.append(False)

    def drop_last(self) -> None:
        """Removes the last sample, if there is one."""
        for values in (self.ends, self.classes, self.masked):
            del values[-1:]


def index_shards(root: str, split: str, splits: Splits | None) -> Path:
    """Returns the folder with the index of a split of shards without one. Scans the shards if they are new or have changed.

    Raises InputError if there are no shards, or if one is broken. The doctor gets an index without the broken samples, in another
    folder, so that a training reports them too.
    """
    sizes = find_shards(root, split, splits)
    key = hashlib.sha256(json.dumps([root if is_url(root) else os.path.abspath(root), split, sizes]).encode()).hexdigest()[:16]
    target = cache_folder() / "shards" / key
    if not (target / DESCRIPTION).is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target.with_name(f"{key}.lock")):
            if not target.is_dir():
                part = target.with_name(f"{key}.part")
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                before = faults.count()
                _scan_split(root, split, sizes, part)
                if faults.count() > before:
                    target = target.with_name(f"{key}.faulty")
                    shutil.rmtree(target, ignore_errors=True)
                replace_folder(part, target)
    return target


def find_shards(root: str, split: str, splits: Splits | None) -> dict[str, list[int]]:
    """Returns the names of the shards of a split, and of each its size and the time of its last change (0 in stores), sorted.

    Raises InputError if there are none.
    """
    configured = configured_name(split, splits)
    given = (configured,) if configured and configured.endswith(".tar") else PATTERNS
    patterns = [pattern.replace("{split}", configured or split) for pattern in given]
    for pattern in patterns:
        if is_url(root):
            found = {name: [size, 0] for name, size in Store(root).sizes(pattern).items()}
        else:
            paths = sorted(Path(root).glob(pattern))
            found = {path.relative_to(root).as_posix(): [path.stat().st_size, path.stat().st_mtime_ns] for path in paths}
        if found:
            return found
    others = Store(root).sizes("*") if is_url(root) else sorted(os.listdir(root))
    hint = f" It has {format_names(others)}." if others else " It is empty."
    raise InputError(
        f"'{root}' has no shards of split '{split}' ({' or '.join(patterns)}), and no {DESCRIPTION} of `spine pack`.{hint} "
        f"Set dataset.splits.{split}=<pattern of its shards>."
    )


def _scan_split(root: str, split: str, sizes: Mapping[str, Sequence[int]], folder: Path) -> None:
    """Scans the shards of a split and writes their index to a folder."""
    log_warning(
        f"Indexing {len(sizes)} shards of split '{split}' in '{root}'; the index is kept in '{cache_folder() / 'shards'}'."
    )
    parts: dict[str, Samples] = {}
    for name in sizes:
        parts[name] = found = scan_shard(root, name)
        if found.without_image:
            log_warning(
                f"{len(found.without_image)} samples of shard '{name}' have no image: {format_names(found.without_image)}. "
                f"They cause an error when they are read."
            )
    places = [(name, number) for name, part in parts.items() for number in range(len(part.ends))]
    ends = np.array([end for part in parts.values() for end in part.ends], np.uint32)
    classes = np.array([number for part in parts.values() for number in part.classes], np.int32)
    masked = np.array([has_mask for part in parts.values() for has_mask in part.masked], bool)
    count, kept = len(ends), np.ones(len(ends), bool)
    labeled = bool((classes != NO_CLASS).any())
    if labeled:
        kept = classes >= 0
        without = np.flatnonzero(classes == NO_CLASS)
        _report_lack("missing_label", [places[i] for i in without], count, split, root, "class (member <key>.cls)")
    with_masks = bool(masked.all())
    if faults.is_collecting() and masked.any():  # otherwise, masks that not all samples have are left out
        with_masks, kept = True, kept & masked
        without = np.flatnonzero(~masked)
        _report_lack("image_without_mask", [places[i] for i in without], count, split, root, "mask (member <key>.mask.png)")
    if not kept.any():
        raise InputError(f"The shards of split '{split}' in '{root}' have no samples: members named <key>.<suffix>.")
    provides = ["image", *(["label"] if labeled else []), *(["mask"] if with_masks else [])]
    columns = {"ends": ends[kept], "classes": classes[kept] if labeled else None}
    node = {"provides": provides, "columns": write_split(folder, split, columns), "objects": None}
    labels = Labels(classes=tuple(map(str, range(int(classes[kept].max()) + 1))) if labeled else ())
    starts = np.cumsum([0, *(len(part.ends) for part in parts.values())])
    shards = [
        Shard(name, int(kept[starts[number] : starts[number + 1]].sum()), sizes[name][0]) for number, name in enumerate(parts)
    ]
    write_description(folder, labels, {split: {**node, "shards": [asdict(shard) for shard in shards]}})


def _report_lack(kind: str, without: Sequence[tuple[str, int]], count: int, split: str, root: str, what: str) -> None:
    """Reports the samples that lack what others have. `without`: of each the shard and its number in it; `count`: of all samples."""
    if without:
        faults.report(
            kind,
            f"{len(without)} of the {count} samples of split '{split}' in '{root}' have no {what}, and the others have one. "
            f"Give all samples one, or none.",
            [f"{root}/{name}, sample {number}" for name, number in without],
        )


@contextmanager
def _opened(root: str, name: str) -> Iterator[IO[bytes]]:
    if is_url(root):
        with Store(root).files.open(f"{root.rstrip('/')}/{name}", "rb") as file:
            yield file
    else:
        with open(os.path.join(root, name), "rb") as file:
            yield file


def _class_or_fault(content: bytes, where: str) -> int:
    """Returns the number of a class. Raises InputError if it is none; for the doctor, it is then FAULTY."""
    try:
        return read_class(np.frombuffer(content, np.uint8), where)
    except UnreadableFileError as error:
        faults.report(error.kind, str(error), [where])
        return FAULTY


def scan_shard(root: str, name: str) -> Samples:
    """Returns the samples of a shard. Members of a sample are in a row. Raises InputError if the archive is broken; the doctor gets
    the samples before the broken place.
    """
    found, current, suffixes, path = Samples(), None, set[str](), f"{root}/{name}"

    def finish() -> None:
        if current is not None:
            if not any(map(is_image, suffixes)):
                found.without_image.append(current)
            found.masked[-1] = MASK in suffixes

    try:
        with _opened(root, name) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                parts = split_name(member.name) if member.isfile() else None
                if parts is None:
                    continue
                end = member.offset_data // BLOCK + -(-member.size // BLOCK)
                if parts[0] != current:
                    finish()
                    current, suffixes = parts[0], set()
                    found.begin()
                found.ends[-1] = end
                suffixes.add(parts[1])
                if parts[1] == CLASS:
                    content = archive.extractfile(member)
                    assert content is not None
                    found.classes[-1] = _class_or_fault(content.read(), f"'{path}', sample '{current}'")
            finish()
            file.seek(archive.offset)
            complete = file.read(BLOCK) == bytes(BLOCK)  # the mark at the end of an archive
    except (tarfile.TarError, EOFError) as error:
        message = f"Shard '{path}' is not a readable tar archive ({error}). Compressed shards (.tar.gz) must be unpacked."
        if not faults.is_collecting():
            raise InputError(message) from error
        faults.report("truncated" if found.ends else "unreadable", message, [path])
        found.drop_last()  # which may be incomplete
        return found
    if not complete:
        faults.report(
            "truncated",
            f"Shard '{path}' is truncated: it ends after its sample '{current}' without the mark of an end. Copy it again.",
            [path],
        )
    return found
