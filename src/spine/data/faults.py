"""Faults of a data set that are found while it is opened and read.

A fault ends a training with an InputError. `spine doctor` collects faults instead, so that it reports all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from spine.errors import InputError


@dataclass(frozen=True)
class Fault:
    """One fault. `kind` is a key of `spine.data.checks.kinds.KINDS`."""

    kind: str
    message: str  # what was seen
    files: tuple[str, ...] = ()  # image first, then its mask
    values: tuple[int, ...] = ()  # stored values, of masks; peak, of 16-bit images
    points: tuple[tuple[float, float], ...] = ()  # keypoints, in pixels of the image
    box: tuple[float, ...] = ()  # x, y, width, height, of the object
    index: int = -1  # of the sample


_collected: ContextVar[list[Fault] | None] = ContextVar("collected", default=None)


_skips: ContextVar[bool] = ContextVar("skips", default=False)


@contextmanager
def skipping(skips: bool) -> Iterator[None]:
    """In this context, with dataset.on_error=skip (`skips`), `leaves_missing_files` is true unless faults are collected."""
    token = _skips.set(skips)
    try:
        yield
    finally:
        _skips.reset(token)


def leaves_missing_files() -> bool:
    """Whether samples with a missing file are opened too. They raise UnreadableFileError when they are read, and are then skipped."""
    return _skips.get() and not is_collecting()


@contextmanager
def collected() -> Iterator[list[Fault]]:
    """In this context `report` appends to the list that it returns, and does not raise."""
    faults: list[Fault] = []
    token = _collected.set(faults)
    try:
        yield faults
    finally:
        _collected.reset(token)


def is_collecting() -> bool:
    """Whether faults are collected: then all that can be found are worth the time."""
    return _collected.get() is not None


def count() -> int:
    """Returns the number of faults that were collected so far."""
    return len(_collected.get() or ())


def report(kind: str, message: str, files: Iterable[object] = (), values: Iterable[int] = ()) -> None:
    """Raises InputError with the message. In the context of `collected`, collects the fault instead, and the caller goes on."""
    faults = _collected.get()
    if faults is None:
        raise InputError(message)
    faults.append(Fault(kind, message, tuple(map(str, files)), tuple(map(int, values))))
