"""Records of batches whose loss was not finite or a spike, so that they can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NotRequired, TypedDict

from spine.errors import InputError

BAD_BATCH = "bad_batch.json"  # the batch that stopped the run
SKIPPED = "skipped.jsonl"  # batches of skipped steps, one a line
SPIKES = "spikes.jsonl"  # batches with a loss far above its recent level, one a line


class BatchRecord(TypedDict):
    """A batch of the training split on one process."""

    reason: str
    epoch: int  # from 1; that of its random augmentation
    step: int  # of the optimizer, from 1
    rank: int  # of the process
    loss: float | None  # None if it is not finite
    level: list[float] | None  # of a spike: mean and deviation of the loss before it
    seed: int
    indices: list[int]  # of the samples in the training split, in the order of the batch
    copies: NotRequired[list[int]]  # numbers of their draws in the epoch; older records have none, and all are 0
    position: NotRequired[int]  # of the batch in its epoch, among those of all processes
    files: list[list[str]]  # of each sample; empty lists if the data set is rendered
    command: str  # of the run
    replay: str  # Python that makes the batch again


def write_record(path: Path, record: BatchRecord) -> None:
    """Writes one record to a JSON file."""
    path.write_text(json.dumps(record, indent=2) + "\n")


def append_rows(path: Path, records: Iterable[BatchRecord]) -> None:
    """Appends records to a file, one a line."""
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def keep_rows(path: Path, count: int) -> int:
    """Keeps the first lines of a file and drops the others. Returns how many there are now."""
    if not path.is_file():
        return 0
    lines = path.read_text().splitlines(keepends=True)[:count]
    part = path.with_name(f".{path.name}.part")
    part.write_text("".join(lines))
    part.replace(path)
    return len(lines)


def read_record(source: Path, number: int = -1) -> tuple[Path, BatchRecord]:
    """Returns the run folder and a record: of bad_batch.json in a run folder, or of a file of records.

    `number`: which line of a .jsonl file, from 0; -1 is the last. Raises InputError if there is none.
    """
    path = source / BAD_BATCH if source.is_dir() else source
    try:
        text = path.read_text()
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        return path.parent, json.loads(lines[number])
    except OSError:
        raise InputError(f"There is no '{path}'. Give a run folder with {BAD_BATCH}, or its {SKIPPED} or {SPIKES}.") from None
    except IndexError:
        raise InputError(f"'{path}' has {len(lines)} lines, and no line {number}.") from None
    except ValueError as error:
        raise InputError(f"'{path}' is not a record of a batch ({error}).") from None
