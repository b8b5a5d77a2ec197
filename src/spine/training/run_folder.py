"""The folder of one run: who may write into it, what an earlier start left there, and where its results stand."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spine.console import process_rank
from spine.errors import InputError

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "albumentations", "numpy", "opencv-python-headless")
SECONDS_TO_WAIT = 1.0  # for the lock: a process that was told to end may still hold it


class RunFolder:
    """Paths in the folder of a run, and what they say about its state."""

    def __init__(self, path: Path):
        self.path = path
        self.last = path / "checkpoints" / "last.ckpt"
        self.best = path / "checkpoints" / "best.ckpt"
        self.results = path / "metrics.json"
        self.stopped = path / "stopped.json"
        self.error = path / "error.txt"

    def read_results(self) -> dict[str, Any] | None:
        """What metrics.json holds; None where the run is not finished."""
        try:
            return json.loads(self.results.read_text())
        except (OSError, ValueError):
            return None

    def set_aside(self) -> Path | None:
        """Moves the content beside, to the first free `<folder>_before_<n>`; returns that folder, None where nothing was moved.

        What this start has written already (Hydra's configuration) stays.
        """
        moved = [child for child in self.path.iterdir() if child.name not in (".hydra", ".lock")]
        if not moved:
            return None
        number = 1
        while (beside := self.path.with_name(f"{self.path.name}_before_{number}")).exists():
            number += 1
        beside.mkdir()
        for child in moved:
            child.rename(beside / child.name)
        return beside

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes out of the folder; the processes of one run enter together with the first.

        The lock belongs to the process and not to the file: it ends with the process, however that ends. Raises InputError
        where another process holds it.
        """
        if process_rank() > 0:
            yield
            return
        import fcntl  # POSIX only

        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("a+") as file:
            end = time.monotonic() + SECONDS_TO_WAIT
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
                        f"Another process ({file.read().strip() or 'unknown'}) is at work in '{self.path}'. Wait for it or stop "
                        f"it; a run that differs in any key has a folder of its own."
                    ) from None
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {platform.node()}")
            file.flush()
            yield

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Writes a JSON file; an earlier one is replaced only once the new one is whole."""
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(path)

    def write_provenance(self) -> None:
        """Adds a record of this start to starts.json: time, command, git commit, host and versions."""
        path = self.path / "starts.json"
        try:
            starts = json.loads(path.read_text())["starts"]
        except (OSError, ValueError, KeyError):
            starts = []
        self.write_json(path, {"starts": [*starts, provenance()]})


def command(arguments: Iterable[str]) -> str:
    """A command line of this script with `arguments`, as it can be typed into a shell."""
    return shlex.join(["python", sys.argv[0], *arguments])


def without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    """Metric values for JSON, which knows neither NaN nor infinity: these become null."""
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def provenance() -> dict[str, Any]:
    """What made a run: time, command, git commit of the code, host, versions."""
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command(sys.argv[1:]),
        "commit": commit,
        "uncommitted_changes": None if changed is None else bool(changed),
        "host": platform.node(),
        "versions": versions,
    }


def _git(*arguments: str) -> str | None:
    """What git says of the code that runs; None where it is no checkout."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
