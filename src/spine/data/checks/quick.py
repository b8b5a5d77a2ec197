"""The checks of `spine doctor` on a few files, before a training. They warn only."""

from __future__ import annotations

import time
from collections.abc import Mapping

from spine.console import process_rank
from spine.data.checks.doctor import Split, by_kind
from spine.data.checks.kinds import KINDS
from spine.data.checks.scan import Examiner
from spine.data.image_files import evenly_spaced, log_warning
from spine.interfaces import DataSet

FILES = 100  # of a split, at most
SECONDS = 1.0  # for a split, at most


def warn_of_faults(splits: Mapping[str, DataSet], files: int = FILES, seconds: float = SECONDS) -> None:
    """Reads a few samples of open splits, and logs a warning for each kind of error among them. Only the first process reads."""
    for name, data in splits.items() if process_rank() == 0 else ():
        if data.reads_files:
            _warn_of_split(name, data, files, seconds)


def _warn_of_split(name: str, data: DataSet, files: int, seconds: float) -> None:
    examiner, start, faults, count = Examiner(data), time.monotonic(), [], 0
    for index in evenly_spaced(len(data), files):
        faults += examiner([[index]]).faults
        count += 1
        if time.monotonic() - start > seconds:
            break
    for finding in by_kind(name, faults, Split(name, data, [])):
        if finding.severity == "error":
            log_warning(
                f"{KINDS[finding.kind].title} in split '{name}', found among {count} of {len(data)} samples: {finding.seen} "
                f"python doctor.py with the same dataset.* keys reads all of them."
            )
