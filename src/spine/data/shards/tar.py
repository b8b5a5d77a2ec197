"""Members of tar archives in WebDataset's convention: `<key>.<suffix>`, the members of a sample in a row."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator

import numpy as np

from spine.errors import UnreadableFileError

BLOCK = 512  # bytes; headers and contents of members begin at multiples of it
END = bytes(2 * BLOCK)  # of an archive
PLAIN = (b"0", b"\0")  # types of members that are files, without a header of extensions


def pack_members(key: str, members: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns the record of a sample: headers and contents of its members. Equal contents give equal bytes."""
    parts = []
    for suffix, content in members:
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(content)
        parts += [info.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % BLOCK)]
    return b"".join(parts)


def split_name(name: str) -> tuple[str, str] | None:
    """Returns the key and the suffix of a member, as WebDataset divides its name: at the first point after the folder.

    None for a member that belongs to no sample.
    """
    folder, slash, file = name.rpartition("/")
    key, point, suffix = file.partition(".")
    return (f"{folder}{slash}{key}", suffix.lower()) if key and point and suffix else None


def unpack_members(record: np.ndarray, where: str) -> dict[str, np.ndarray]:
    """Returns the contents (N,) uint8 of the members of a record by their suffix. They are views of `record`, (N,) uint8.

    A record may begin with members of no sample, such as folders. `where`: for messages. Raises UnreadableFileError if it is no record.
    """
    found: dict[str, np.ndarray] = {}
    key = None
    for name, start, size in _members(record, where):
        if (parts := split_name(name)) is None:
            continue
        if parts[0] != key:  # what came before is not of this sample
            found, key = {}, parts[0]
        found[parts[1]] = record[start : start + size]
    return found


def _members(record: np.ndarray, where: str) -> Iterator[tuple[str, int, int]]:
    """Yields the name, the start and the size of each member."""
    start, plain = 0, []
    while start < len(record):
        header = record[start : start + BLOCK].tobytes()
        if header[156:157] not in PLAIN or header[257:262] != b"ustar":
            yield from _extended_members(record, where)
            return
        name, size = header[:100].rstrip(b"\0").decode(errors="replace"), header[124:136].rstrip(b"\0 ")
        if header[345:346] != b"\0" or not size.isdigit():
            yield from _extended_members(record, where)
            return
        length = int(size, 8)
        plain.append((name, start + BLOCK, length))
        start += BLOCK + length + -length % BLOCK
    if start != len(record):
        raise UnreadableFileError(broken_record(where), where, "changed_shard")
    yield from plain


def _extended_members(record: np.ndarray, where: str) -> list[tuple[str, int, int]]:
    """Members of an archive with long names, folders or other extensions."""
    try:
        with tarfile.open(fileobj=io.BytesIO(record.tobytes()), mode="r:") as archive:
            return [(member.name, member.offset_data, member.size) for member in archive if member.isfile()]
    except tarfile.TarError as error:
        raise UnreadableFileError(broken_record(where), where, "changed_shard") from error


def broken_record(where: str) -> str:
    """Message for bytes that are not those of a sample."""
    return (
        f"{where} is not where the index says: the shard is broken, or has changed since it was indexed. "
        f"Copy or pack the shards again."
    )
