"""Examines a data set: reads every file, and reports what is wrong with it.

    python doctor.py dataset=image_folder dataset.root=photos

Prints a table, and writes doctor.html with pictures of each finding and doctor.json into its run folder. The exit code is 1 if there
are errors, and 0 if there are notes only.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from spine import console
from spine.command_lines import refuse_sweeps
from spine.config.command_line import run_command
from spine.config.resolving import to_plain
from spine.errors import InputError
from spine.training.run_folder import RunFolder

if TYPE_CHECKING:
    from spine.data.checks.doctor import Report
    from spine.option_types import Config
    from spine.reporting.doctor.content import Diagnosis


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("doctor", doctor, partial(refuse_sweeps, "doctor.py examines one data set"))


def doctor(cfg: DictConfig) -> None:
    """Examines the data set of a configuration. Exits with 1 if it has errors."""
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    name = str(HydraConfig.get().runtime.choices["dataset"])
    with open_dict(cfg):
        workers = _workers(cfg.pop("num_workers"))
    with console.log_to_file(folder.path / "doctor.log"):
        diagnosis = examine_data_set(to_plain(cfg), name, folder, workers)
    if diagnosis["errors"]:
        sys.exit(1)


def _workers(value: object) -> int:
    """Returns the number of processes. Raises InputError if it is no whole number from 0."""
    if value is None:
        return os.cpu_count() or 1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InputError(
            f"num_workers is {value}; it is the number of processes that read files, 0 or more, or null for all cores."
        )
    return value


def examine_data_set(config: Config, name: str, folder: RunFolder, workers: int) -> Diagnosis:
    """Examines the data set of a plain configuration, prints the findings and writes them to a folder. `name`: of the data set."""
    from spine.data.building import build_data  # imports torch
    from spine.data.checks.doctor import Doctor
    from spine.data.checks.pictures import draw
    from spine.data.checks.scan import silent_decoders
    from spine.reporting.doctor.content import print_diagnosis
    from spine.reporting.doctor.page import write_diagnosis

    start = time.perf_counter()
    if isinstance(config.get("backbone"), dict):
        config["backbone"]["weights"] = None  # a data set is examined without a network
    examination = Doctor(build_data(config).split)
    with _progress(examination.open()) as advance:
        examination.read(workers, advance)
    report = examination.judge()
    diagnosis = _diagnosis(report, name, config["dataset"].get("root"), time.perf_counter() - start)
    loads = {split.name: split.data.load for split in examination.splits}
    with silent_decoders():
        pictures = [draw(finding, loads.get(finding.split)) for finding in report.findings]
    folder.write_json(folder.path / "doctor.json", diagnosis)
    write_diagnosis(folder.path / "doctor.html", diagnosis, pictures)
    print_diagnosis(diagnosis)
    print(folder.path / "doctor.html")
    return diagnosis


def _diagnosis(report: Report, name: str, root: str | None, seconds: float) -> Diagnosis:
    from spine.data.checks.kinds import KINDS
    from spine.reporting.provenance import provenance

    return {
        "dataset": name,
        "root": root,
        "made_by": provenance(),
        "seconds": round(seconds, 1),
        "errors": report.errors,
        "notes": len(report.findings) - report.errors,
        "findings": [
            {
                "severity": found.severity, "kind": found.kind, "title": KINDS[found.kind].title, "split": found.split,
                "count": found.count, "seen": found.seen, "why": KINDS[found.kind].why,
                "todo": found.todo or KINDS[found.kind].todo, "files": found.files,
            }
            for found in report.findings
        ],
        "splits": report.splits,
        "messages": report.messages,
    }  # fmt: skip


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    from spine.prediction.progress import PredictionProgress

    with PredictionProgress(total) as progress:
        yield progress.advance
