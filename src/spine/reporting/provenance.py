"""Provenance of a run: what is needed to repeat it."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "albumentations", "numpy", "opencv-python-headless")


class Provenance(TypedDict):
    """One start of a run, as starts.json stores it."""

    time: str  # ISO 8601 with the time zone
    command: str
    commit: str | None  # of the code; None if it is not in a git repository
    uncommitted_changes: bool | None
    host: str
    versions: dict[str, str]  # of Python and of PACKAGES, as far as they are installed


def provenance() -> Provenance:
    """Returns time, command, git commit of the code, host and package versions of this process."""
    commit, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shell_command(sys.argv[1:]),
        "commit": commit,
        "uncommitted_changes": None if changes is None else bool(changes),
        "host": platform.node(),
        "versions": versions,
    }


def shell_command(arguments: Iterable[str]) -> str:
    """Returns the command line of this script with `arguments`, quoted for a shell."""
    return shlex.join(["python", sys.argv[0], *arguments])


def _git(*arguments: str) -> str | None:
    """Returns the output of git for the repository of this file, or None if git fails."""
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
