"""dataset.on_error=skip: other samples take the place of those whose files cannot be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from spine.data.sampler import Draw
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import Sample

log = logging.getLogger(__name__)
KEY = 0x5C1B  # distinguishes these random numbers from others of the same sample
UNREADABLE = "unreadable.txt"  # in the run folder: the split, the path and the reason, divided by tabs


class UnreadableFiles:
    """The unreadable files of a split, each once: in a file that all processes and workers share, or in memory without a folder."""

    def __init__(self, split: str):
        self.split = split
        self.folder: Path | None = None
        self.own: set[str] = set()  # those that this process has found

    def add(self, path: str, reason: str) -> int:
        """Adds a file, if it is new. Returns the number of files that all processes have found."""
        import fcntl  # POSIX only

        self.own.add(path)
        if self.folder is None:
            return len(self.own)
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / UNREADABLE).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until the file is closed
            file.seek(0)
            known = {line.split("\t")[1] for line in file if line.startswith(f"{self.split}\t")}
            path = _one_line(path)
            if path not in known:
                file.write(f"{self.split}\t{path}\t{_one_line(reason)}\n")
            return len(known | {path})


class Skipping:
    """Makes the samples of a split. A sample with an unreadable file is replaced by another one.

    In training, the other sample is drawn with the generator of (seed, epoch, index, copy): it is the same for
    any number of workers and processes. It has augmentation of its own, also if the same
    sample is drawn in the epoch anyway. In an evaluation, the other sample is spare: it is left out of its batch,
    so that no metric counts it.
    """

    def __init__(self, split: str, training: bool, length: int, seed: int, max_share: float):
        """`length`: number of samples. `max_share`: of unreadable files among the samples, above which `sample` raises an error."""
        self.training, self.length, self.seed, self.max_share = training, length, seed, max_share
        self.files = UnreadableFiles(split)

    def sample(self, draw: Draw, make: Callable[[Draw], Sample]) -> Sample:
        """Returns `make(draw)`, or the sample that takes its place. Raises InputError if too many files are unreadable."""
        rng, wanted = np.random.default_rng((self.seed, *draw[:3], KEY)), draw
        while True:
            try:
                sample = make(wanted)
            except UnreadableFileError as error:
                self._count(error)
                index = int(rng.integers(self.length))
                wanted = Draw(draw.epoch, index, copy=((draw.copy + 1) << 32) + draw.index)  # unlike any other draw of it
                continue
            if wanted is not draw and (draw.spare or not self.training):
                sample["spare"] = torch.tensor(True)
            return sample

    def _count(self, error: UnreadableFileError) -> None:
        path = error.path or str(error)
        if path in self.files.own:
            return
        count = self.files.add(path, str(error))
        if count > self.max_share * self.length:
            where = f" '{self.files.folder / UNREADABLE}' lists them." if self.files.folder is not None else f" One is '{path}'."
            raise InputError(
                f"{count} files of the {self.length} samples of split '{self.files.split}' cannot be read, more than the share "
                f"dataset.max_error_share={self.max_share:g}.{where} Repair or remove them, or raise dataset.max_error_share."
            )


def report_unreadable(folder: Path) -> None:
    """Logs a warning with the number of unreadable files that a run has skipped, if there are any."""
    path = folder / UNREADABLE
    if path.is_file() and (lines := path.read_text().splitlines()):
        splits = [line.split("\t")[0] for line in lines]
        numbers = ", ".join(f"{splits.count(split)} of split '{split}'" for split in sorted(set(splits)))
        log.warning(
            "%d unreadable files were skipped (%s). In training, other samples took their place; evaluations leave them out: %s",
            len(lines), numbers, os.fspath(path),
        )  # fmt: skip


def _one_line(text: str) -> str:
    return " ".join(text.split())
