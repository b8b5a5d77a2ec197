"""The folder of one run: its files, its lock, and the backup of an earlier run."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired, TextIO, TypedDict

from spine.console import process_rank
from spine.errors import InputError
from spine.reporting.provenance import RunFacts, Start, provenance
from spine.reporting.working_tree import uncommitted_changes

log = logging.getLogger(__name__)

LOCK_TIMEOUT = 1.0  # seconds; a process that was just stopped may still hold the lock


class RunCosts(TypedDict):
    """What the network and its training cost. None: not measured."""

    parameters: int
    multiply_adds: float | None  # of the forward pass of one image
    images_per_s: float | None  # of training, all processes together: the median of metrics.csv
    data_wait: float | None  # mean fraction of time in which training waited for batches
    peak_memory_mb: float  # of the first process: allocated on its GPU; without one, its resident memory since it began
    device: str
    latency_ms: NotRequired[float]  # of the evaluation of one image; measured if it is an objective of a sweep


class TrainingResults(TypedDict):
    """The content of metrics.json after training. It is the last file that a run writes, except for its report."""

    metrics: dict[str, float | None]  # of the best checkpoint on the validation split
    monitor: str  # the metric that selects the best checkpoint
    mode: str  # max or min: whether more of it is better
    seconds: float
    checkpoint: str  # path of the evaluated checkpoint
    weights: str  # what was evaluated: "trained", or "average" with callbacks.ema
    evaluation: str  # how, if the task has several ways: at which resolution, and in which crops
    lr: float  # before the schedule, for steps of `step_samples`, of parameters with lr_scale 1
    step_samples: int  # of an optimizer step, on all processes together
    stopped_early: bool  # whether callbacks.early_stopping ended the run
    epochs: int
    max_epochs: int | None  # the limit that the run had
    steps: int
    max_steps: NotRequired[int]  # the limit that the run had, or -1; older files lack it
    stopped_by_max_time: str | dict[str, int] | None  # trainer.max_time if it ended the run
    costs: RunCosts


class StopReport(TypedDict):
    """The content of stopped.json, written when a signal ends a run."""

    signal: str  # name, such as SIGTERM
    epoch: int  # counted from 1
    steps: int
    metrics: dict[str, float | None]
    command: str  # resumes the run


class PruneReport(TypedDict):
    """The content of pruned.json, written when a sweep with Optuna ends a run that is not promising."""

    epoch: int  # after which it ended, counted from 1
    metrics: dict[str, float | None]
    monitor: str
    mode: str


class RunFolder:
    """Paths of the files in a run folder."""

    def __init__(self, path: Path):
        self.path = path
        self.last = path / "checkpoints" / "last.ckpt"
        self.previous = path / "checkpoints" / "previous.ckpt"  # the one before the last
        self.results = path / "metrics.json"
        self.stopped = path / "stopped.json"
        self.error = path / "error.txt"
        self.pruned = path / "pruned.json"

    def read_results(self) -> TrainingResults | None:
        """Returns the content of metrics.json, or None if the run is not finished."""
        try:
            return json.loads(self.results.read_text())
        except (OSError, ValueError):
            return None

    def back_up(self) -> Path | None:
        """Moves the files of an earlier run to the first free folder `<folder>_before_<n>`.

        It is next to this one. Returns that folder, or None if there was nothing to move. The files
        of the current start stay: the lock and Hydra's configuration.
        """
        children = [child for child in self.path.iterdir() if child.name not in (".hydra", ".lock")]
        if not children:
            return None
        number = 1
        while (backup := self.path.with_name(f"{self.path.name}_before_{number}")).exists():
            number += 1
        backup.mkdir()
        for child in children:
            child.rename(backup / child.name)
        return backup

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other runs. Only the first process of a run takes the lock.

        The lock belongs to the process: the operating system releases it when the process ends for
        any reason. Raises InputError if another process holds it.
        """
        if process_rank() > 0:
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            self._acquire(file)
            yield

    def _acquire(self, file: TextIO) -> None:
        """Locks the open lock file and writes the identity of this process into it."""
        import fcntl  # POSIX only

        end = time.monotonic() + LOCK_TIMEOUT
        while True:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < end:
                    time.sleep(0.2)
                    continue
                file.seek(0)
                raise InputError(
                    f"Another process ({file.read().strip() or 'unknown'}) is using '{self.path}'. Wait for it or stop it. "
                    f"A run with any other key has a separate folder."
                ) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()

    def write_json(self, path: Path, content: Mapping[str, object]) -> None:
        """Writes a JSON file. An existing one is replaced only when the new one is complete."""
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(path)

    def write_error(self, reason: str) -> None:
        """Writes the reason of a failure to error.txt."""
        try:
            self.error.write_text(reason + "\n")
        except OSError:  # a full disk must not hide the error itself
            log.warning("'%s' could not be written.", self.error)

    def wait_until_free(self, timeout: float) -> None:
        """Waits until no process uses the folder, at most `timeout` seconds."""
        import fcntl  # POSIX only

        end = time.monotonic() + timeout
        with (self.path / ".lock").open("a") as file:
            while time.monotonic() < end:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                except OSError:
                    time.sleep(0.1)

    def starts(self) -> list[Start]:
        """Returns the starts in starts.json. Older versions of spine wrote fewer keys."""
        try:
            return json.loads((self.path / "starts.json").read_text())["starts"]
        except (OSError, ValueError, KeyError):
            return []

    def record_start(self, facts: RunFacts, plugins: Iterable[Path] = ()) -> Start:
        """Adds this start to starts.json, and writes uncommitted changes of the code to starts/<number>.diff.

        `plugins`: the folders of plug-ins. Returns the start.
        """
        starts, changes, diff = self.starts(), uncommitted_changes(plugins), None
        if changes:
            diff = self.path / "starts" / f"{len(starts) + 1}.diff"
            diff.parent.mkdir(exist_ok=True)
            diff.write_text(changes)
        start: Start = {
            **provenance(),
            **facts,
            "diff": str(diff.relative_to(self.path)) if diff is not None else None,
            "diff_sha256": hashlib.sha256(changes.encode()).hexdigest() if changes else None,
        }
        self.write_json(self.path / "starts.json", {"starts": [*starts, start]})
        return start


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """Replaces NaN and infinity by None, because JSON has neither."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}
