"""Finds run folders and reads what they say about their runs. A damaged folder is listed, whatever is wrong in it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import yaml

from spine.reporting.history import Points, read_history
from spine.reporting.sweeps import Job

RUN_FILES = ("metrics.json", "config.json", "metrics.csv", "error.txt", "stopped.json")  # one of them, or .hydra, marks a run
NOT_SEARCHED = {"checkpoints", "figures", "wandb", "tensorboard"}  # folders in a run folder
PART_FOLDERS = (".tasks.", ".formats.", ".backbones.", ".heads.")  # in the names of modules: one module or package for each part


class Changes(TypedDict):
    """The content of changes.json: in what the configuration of a run differs from the defaults."""

    choices: dict[str, str]  # group of the configuration -> the chosen option
    values: dict[str, tuple[str | None, str | None]]  # key -> default and value as text; None: there is no such key


@dataclass
class RunRecord:
    """One run, as the files in its folder describe it."""

    folder: Path
    status: str = "not started"  # finished, running, interrupted, stopped, pruned, failed, damaged, not started
    reason: str = ""  # why the run is not finished
    metrics: dict[str, float] = field(default_factory=dict)  # of the best checkpoint
    monitor: str = ""  # the metric that selects the best checkpoint
    maximize: bool = True
    split: str = ""  # of an evaluation; empty for a training
    config: dict[str, str] = field(default_factory=dict)  # dotted key -> value
    overrides: dict[str, str] = field(default_factory=dict)  # of the command line
    task: str = ""
    dataset: str = ""
    history: Mapping[str, Points] = field(default_factory=dict)
    costs: Mapping[str, float | str | None] = field(default_factory=dict)  # as RunCosts of metrics.json
    epochs: int | None = None
    max_epochs: int | None = None
    seconds: float = math.nan  # of the last start
    starts: int = 0
    started: str = ""  # time of the first start
    commit: str = ""  # of the code, at the last start

    def best_so_far(self, metric: str, maximize: bool) -> float:
        """Returns the value of a metric: the result, or the best one in the history of an unfinished run, or NaN."""
        if metric in self.metrics:
            return self.metrics[metric]
        values = [value for _, value in self.history.get(metric, ()) if math.isfinite(value)]
        return (max if maximize else min)(values, default=math.nan)


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """Returns the run folders in and below `folders`, each once."""
    return list(dict.fromkeys(run for folder in folders for run in _walk(folder)))


def _walk(folder: Path) -> Iterator[Path]:
    for path, children, files in os.walk(folder.resolve()):
        if ".hydra" in children or not {*RUN_FILES}.isdisjoint(files):
            yield Path(path)
        children[:] = sorted(child for child in children if not child.startswith(".") and child not in NOT_SEARCHED)


def read_run(folder: Path, running: bool | None = None) -> RunRecord:
    """Returns the record of a run folder.

    `running`: whether the process of the run still works. None: the lock of the folder says it; only other processes
    may look at it, because a process that opens and closes the file of its own lock loses the lock.
    """
    record = RunRecord(folder)
    readers = {
        "config.json": _read_config,
        "metrics.csv": _read_metrics_file,
        "starts.json": _read_starts,
        "metrics.json": _read_results,
    }
    problems = {}
    for name, read in readers.items():
        try:
            read(record)
        except Exception as error:  # a damaged folder is listed, whatever is wrong in it
            problems[name] = f"{name} cannot be read ({type(error).__name__}: {error})"
    if not problems.keys().isdisjoint({"config.json", "metrics.json"}):  # without the others, the results are still valid
        record.status = "damaged"
    if _is_locked(folder) if running is None else running:
        record.status, record.reason = "running", f"{record.epochs or 0} of {record.max_epochs or '?'} epochs are done"
    elif problems:
        record.reason = "; ".join(problems.values())
    return record


def _read_config(record: RunRecord) -> None:
    """Reads the configuration: config.json, or the one of Hydra if the run failed before it was complete."""
    path, hydra = record.folder / "config.json", record.folder / ".hydra" / "config.yaml"
    if path.is_file():
        config = json.loads(path.read_text())
        record.config = dict(flatten(config))
    elif hydra.is_file():
        config = yaml.safe_load(hydra.read_text())
    else:
        return
    task, dataset = config.get("task") or {}, config.get("dataset") or {}
    record.task, record.dataset = part_name(task.get("_target_", "")), part_name(dataset.get("_target_", ""))
    if dataset.get("root"):
        record.dataset += f" ({dataset['root']})"
    limit = (config.get("trainer") or {}).get("max_epochs")
    record.max_epochs = limit if isinstance(limit, int) and limit > 0 else None


def _read_metrics_file(record: RunRecord) -> None:
    record.history = read_history(record.folder / "metrics.csv")
    if losses := record.history.get("train/loss"):
        record.epochs = int(losses[-1][0])


def _read_starts(record: RunRecord) -> None:
    path = record.folder / "starts.json"
    if path.is_file():
        starts = json.loads(path.read_text())["starts"]
        record.starts, record.started = len(starts), str(starts[0]["time"])
        record.commit = str(starts[-1].get("commit") or "")[:7]
        record.monitor, record.maximize = str(starts[-1].get("monitor", "")), starts[-1].get("mode") != "min"


def _read_results(record: RunRecord) -> None:
    """Reads the status, and the results of a finished run."""
    job = Job.read(record.folder)
    record.overrides, record.status, record.reason = job.overrides, job.status, job.reason
    if job.status == "not started" and record.starts:
        record.status, record.reason = "interrupted", f"it ended without a message after {record.epochs or 0} epochs"
    if job.status != "finished":
        return
    results = json.loads((record.folder / "metrics.json").read_text())
    record.metrics = {name: math.nan if value is None else float(value) for name, value in results["metrics"].items()}
    record.monitor, record.maximize, record.seconds = str(job.monitor), job.maximize, float(job.seconds)
    costs, epochs = results.get("costs") or {}, results.get("epochs", record.epochs)
    record.costs = {key: value for key, value in costs.items() if isinstance(value, int | float | str)}
    record.epochs = None if epochs is None else int(epochs)
    if "split" in results:
        record.split, record.max_epochs = str(results["split"]), None  # the configuration of an evaluation says 1


def part_name(target: str) -> str:
    """Returns the name of a part: "vit" for spine.backbones.vit.vit, "adamw" for spine.training.optimizers.adamw."""
    for folder in PART_FOLDERS:
        if folder in target:
            return target.partition(folder)[2].partition(".")[0]
    return target.rpartition(".")[2]


def flatten(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields the dotted key and the value of every leaf of a configuration, the value as text."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flatten(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and any(isinstance(item, dict) for item in node):
        for i, item in enumerate(node):
            yield from flatten(item, f"{path}[{i}]")
    else:
        yield path, node if isinstance(node, str) else json.dumps(node)


def _is_locked(folder: Path) -> bool:
    """Returns whether the process of a run holds the lock of its folder."""
    import fcntl  # POSIX only

    try:
        with (folder / ".lock").open() as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no lock file, or the file system has no locks
        return False
    return False
