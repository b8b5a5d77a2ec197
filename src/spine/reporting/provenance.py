"""Provenance of a run: what is needed to repeat it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NotRequired, TypedDict

from spine.command_lines import shell_command
from spine.reporting.working_tree import PACKAGE, git, is_checkout

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "hydra-core", "albumentations", "numpy", "opencv-python-headless")


class Provenance(TypedDict):
    """The state of code and machine."""

    time: str  # ISO 8601 with the time zone
    command: str
    commit: str | None  # of the code; None if it does not run from its git repository
    uncommitted_changes: bool | None
    host: str
    versions: dict[str, str]  # of Python and of PACKAGES, as far as they are installed


class RunFacts(TypedDict):
    """The inputs of a run and its devices."""

    seeds: dict[str, int]  # by key of the configuration
    data: dict[str, str]  # fingerprint of each split that is used
    weights: str | None  # path of the file of pretrained weights
    weights_sha256: str | None
    tokenizer_sha256: str | None  # of the weights of the tokenizer's encoder
    processes: int
    device: str  # name of the CPU or GPU
    monitor: NotRequired[str]  # the metric that selects the best checkpoint; older files lack it
    mode: NotRequired[str]  # max or min: whether more of it is better


class Start(Provenance, RunFacts):
    """One start of a run, as starts.json stores it."""

    diff: str | None  # file with the uncommitted changes, in the run folder
    diff_sha256: str | None


COMPARED = {  # what may differ between two starts, with the keys of Start that show it
    "commit": ("commit",),
    "uncommitted changes": ("diff_sha256",),
    "versions": ("versions",),
    "data": ("data",),
    "seeds": ("seeds",),
    "weights": ("weights_sha256",),
    "tokenizer": ("tokenizer_sha256",),
    "machine": ("device", "processes"),
}
INPUTS = ("data", "weights", "tokenizer")  # of them, those that a resumed run should share with its earlier starts


def provenance() -> Provenance:
    """Returns time, command, git commit of the code, host and package versions of this process."""
    commit = changes = None
    if is_checkout():
        commit, changes = git(PACKAGE, "rev-parse", "HEAD"), git(PACKAGE, "status", "--porcelain", "--untracked-files=no")
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shell_command(sys.argv[1:]),
        "commit": commit.strip() if commit is not None else None,
        "uncommitted_changes": None if changes is None else bool(changes.strip()),
        "host": platform.node(),
        "versions": versions,
    }


def differences(
    before: Mapping[str, object], now: Mapping[str, object], names: Iterable[str] = tuple(COMPARED)
) -> dict[str, str]:
    """Returns what differs between two starts: what (a key of COMPARED) -> both values, as text.

    What one of them does not have, because an older version of spine wrote it, is not compared.
    """
    found = {}
    for name in names:
        changes = [
            text for key in COMPARED[name] if key in before and key in now for text in _changes(key, before[key], now[key])
        ]
        if changes:
            found[name] = ", ".join(changes)
    return found


def _changes(key: str, before: object, now: object) -> list[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = [each for each in (*before, *(k for k in now if k not in before)) if before.get(each) != now.get(each)]
        return [f"{each} {_short(before.get(each))} → {_short(now.get(each))}" for each in keys]
    return [] if before == now else [f"{key.removesuffix('_sha256')} {_short(before)} → {_short(now)}"]


def _short(value: object) -> str:
    is_hash = isinstance(value, str) and len(value) in (40, 64) and " " not in value
    return str(value)[:8] if is_hash else "none" if value is None else str(value)


def cpu_name() -> str:
    """Returns the name of the processor, and the number of its cores that this process sees."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0] if lines else name
    return f"{name}, {os.cpu_count()} cores"
