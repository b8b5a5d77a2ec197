"""Fetches published weights once, checks them, and keeps them."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from spine.errors import InputError, nearest

CHUNK = 1 << 20
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Published(NamedTuple):
    """A file that a publisher offers, and how its numbers were measured."""

    address: str
    licence: str
    metric: str  # as the publisher reports it; none of them was measured here
    sha256: str = ""  # its beginning, where one is published
    image_size: int = 224
    crop_pct: float = 0.875
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    layout: str | None = None  # where the file cannot tell


def hashed(address: str, licence: str, metric: str, **facts: Any) -> Published:
    """A file whose name ends in the beginning of its SHA-256, as those of torchvision, timm and OpenMMLab do."""
    return Published(address, licence, metric, Path(address).stem.rpartition("-")[2], **facts)


def published(name: str, table: Mapping[str, Mapping[str, Published]], variant: str) -> Published:
    """A row of a backbone's weight table; InputError with the names that there are for this variant."""
    rows = table.get(variant, {})
    if name not in rows:
        others = sorted(other for other, their_rows in table.items() if name in their_rows)
        elsewhere = f" '{name}' is published for {', '.join(others)}." if others else ""
        raise InputError(
            f"There is no weights file '{name}', and no published weights of that name for variant '{variant}'."
            f"{nearest(name, list(rows))}{elsewhere} Names: {', '.join(rows) or 'none'}; or give the path of a file."
        )
    return rows[name]


def cache_folder() -> Path:
    """Where fetched files are kept: SPINE_CACHE, else ~/.cache/spine."""
    return Path(os.environ.get("SPINE_CACHE") or Path.home() / ".cache" / "spine")


def fetch(address: str, sha256: str | None = None) -> Path:
    """The file of an address, from the cache or fetched into it; what an earlier try left is gone on with.

    `sha256` may be the beginning of the hash. InputError where the file cannot be reached or is not the published one.
    """
    folder = cache_folder()
    path = urlparse(address).path.strip("/")
    owner, _, revision = path.partition("/resolve/")  # of a hub, where all files have one name
    target = folder / "--".join([*(owner.split("/") if revision else ()), Path(path).name])
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    try:
        _continue(address, part)
    except (urllib.error.URLError, OSError, TimeoutError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(
            f"{address} could not be fetched ({reason}). What has arrived is kept and gone on with next time; without a network put the "
            f"file at {target}, or give the path of a file as weights."
        ) from error
    if sha256:
        found = _hash(part)
        if not found.startswith(sha256):
            part.unlink()
            raise InputError(
                f"What came from {address} is not the published file, and is deleted: its SHA-256 begins with {found[: len(sha256)]}, "
                f"published is {sha256}."
            )
    part.rename(target)
    return target


def _continue(address: str, part: Path) -> None:
    """Fetches what is still missing of a file, with a progress bar."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "spine", **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing is missing
            return
        raise
    with answer:
        if answer.status != 206:  # the server starts from the beginning
            have = 0
        length = answer.headers.get("Content-Length")
        whole = have + int(length) if length else None
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with part.open("ab" if have else "wb") as file, Progress(*columns) as progress:
            task = progress.add_task(part.stem, total=whole, completed=have)
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                progress.advance(task, len(chunk))
    if whole is not None and part.stat().st_size < whole:
        raise OSError(f"the connection ended after {part.stat().st_size} of {whole} bytes")


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
