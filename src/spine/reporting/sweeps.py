"""The summary of a sweep: one row for each job, on the terminal and in a file."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

WIDE = 1000  # columns of a file or pipe, in which no cell is shortened
FILE = "sweep.csv"
STATUSES = ("finished", "pruned", "failed", "stopped", "not started")


@dataclass
class Job:
    """One run of a sweep, as its folder describes it."""

    folder: Path
    overrides: dict[str, str] = field(default_factory=dict)  # key -> value, from the command line
    status: str = "not started"  # one of STATUSES
    monitor: str = ""  # the metric that selects the best checkpoint
    value: float = math.nan  # of the monitored metric
    values: dict[str, float] = field(default_factory=dict)  # all metrics and costs of a finished run
    maximize: bool = True
    seconds: float = math.nan
    reason: str = ""  # of a failure or a stop

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Reads the job in a folder."""
        job = cls(folder, _overrides(folder / ".hydra" / "overrides.yaml"))
        if (folder / "metrics.json").is_file():
            results = json.loads((folder / "metrics.json").read_text())
            value = results["metrics"].get(results["monitor"])
            job.status, job.monitor, job.seconds = "finished", results["monitor"], results["seconds"]
            job.value, job.maximize = math.nan if value is None else value, results.get("mode", "max") == "max"
            numbers = {**results["metrics"], **results.get("costs", {})}.items()
            job.values = {key: number for key, number in numbers if isinstance(number, int | float)}
        elif (folder / "pruned.json").is_file():
            report = json.loads((folder / "pruned.json").read_text())
            value = report["metrics"].get(report["monitor"])
            job.status, job.monitor, job.reason = "pruned", report["monitor"], f"after epoch {report['epoch']}"
            job.value, job.maximize = math.nan if value is None else value, report["mode"] == "max"
            job.values = {key: number for key, number in report["metrics"].items() if number is not None}
        elif (folder / "error.txt").is_file():
            lines = (folder / "error.txt").read_text().strip().splitlines()
            job.status, job.reason = "failed", lines[0] if lines else "no reason was written"
        elif (folder / "stopped.json").is_file():
            job.status, job.reason = "stopped", f"in epoch {json.loads((folder / 'stopped.json').read_text())['epoch']}"
        return job

    def watch(self, name: str, mode: str) -> None:
        """Makes another metric or cost, of which more is better (max) or less (min), the value of the job."""
        if self.status in ("finished", "pruned"):
            self.monitor, self.value, self.maximize = name, self.values.get(name, math.nan), mode == "max"

    @property
    def rank(self) -> tuple[bool, bool, str, float]:
        """A key for sorting: jobs with the best value of a metric first, then pruned jobs, jobs without a value last."""
        missing = math.isnan(self.value)
        return missing, self.status == "pruned", self.monitor, 0.0 if missing else (-self.value if self.maximize else self.value)


def read_jobs(folder: Path, watched: tuple[str, str] | None = None) -> list[Job]:
    """Returns the jobs in the folder of a sweep, the best first.

    `watched`: the name and the mode, max or min, of the metric or cost to compare, instead of the
    metric that selected the best checkpoint.
    """
    jobs = [Job.read(path) for path in sorted(folder.iterdir()) if (path / ".hydra").is_dir()]
    if watched is not None:
        for job in jobs:
            job.watch(*watched)
    return sorted(jobs, key=lambda job: job.rank)


def swept_keys(jobs: list[Job]) -> list[str]:
    """Returns the keys in which the jobs differ, in the order of the command line."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [key for key in keys if len({job.overrides.get(key) for job in jobs}) > 1]


def report_sweep(folder: Path, objectives: Mapping[str, str] | None = None) -> None:
    """Prints a table of the jobs in the folder of a sweep and writes it to sweep.csv.

    `objectives`: names and modes, max or min, of metrics and costs. The first one is compared
    instead of the metric that selected the best checkpoint, the others are further columns.
    """
    compared = list((objectives or {}).items())
    jobs = read_jobs(folder, compared[0] if compared else None)
    if not jobs:
        return
    keys, more = swept_keys(jobs), [name for name, _ in compared[1:]]
    write_csv(folder / FILE, jobs, keys, more)
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(_table(f"Sweep {folder}", jobs, keys, more))
    for job in jobs:
        if job.reason and job.status != "pruned":
            console.print(
                f"{job.folder.name} {job.status}: {job.reason}\n  log: {job.folder / 'train.log'}", highlight=False, markup=False
            )
    counts = {status: sum(job.status == status for job in jobs) for status in STATUSES}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    repeat = "" if counts["finished"] + counts["pruned"] == len(jobs) else " The same command runs the others again."
    console.print(
        f"{len(jobs)} {'run' if len(jobs) == 1 else 'runs'}: {summary}.{repeat} Table: {folder / FILE}",
        highlight=False,
        markup=False,
    )


def _table(title: str, jobs: list[Job], keys: list[str], more: list[str]) -> Table:
    """Returns a table with one row for each job. `more`: metrics and costs in columns of their own."""
    table = Table(title=title, title_justify="left")
    for column in (*keys, "metric", "value", *more, "seconds", "run"):
        table.add_column(column, justify="right" if column in ("value", "seconds", *more) else "left", overflow="fold")
    for job in jobs:
        cells = [job.overrides.get(key, "") for key in keys]
        pruned = f" (pruned {job.reason})" if job.status == "pruned" else ""
        cells.append(f"{job.monitor}{pruned}" if job.monitor else job.status)
        cells.append(f"{job.value:.4f}" if job.monitor else "")
        cells += [f"{job.values[name]:.6g}" if name in job.values else "" for name in more]
        table.add_row(*cells, "" if math.isnan(job.seconds) else f"{job.seconds:.0f}", job.folder.name)
    return table


def write_csv(path: Path, jobs: list[Job], keys: list[str], more: Sequence[str] = ()) -> None:
    """Writes one row for each job: swept keys, status, metric, value, `more` values, seconds, reason and folder."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*keys, "status", "metric", "value", *more, "seconds", "reason", "folder"])
        for job in jobs:
            measured = (job.value, *(job.values.get(name, math.nan) for name in more), job.seconds)
            numbers = ["" if math.isnan(number) else number for number in measured]
            swept = [job.overrides.get(key, "") for key in keys]
            writer.writerow([*swept, job.status, job.monitor, *numbers, job.reason, job.folder])
    part.replace(path)


def _overrides(path: Path) -> dict[str, str]:
    """The overrides that Hydra stored for a job: key -> value. Lists and dictionaries are written without optional spaces."""
    if not path.is_file():
        return {}
    pairs = (str(override).partition("=") for override in yaml.safe_load(path.read_text()) or [])
    return {key.lstrip("+~"): re.sub(r"(?<=[:,{\[])\s+", "", value) for key, _, value in pairs}
