"""Kills and resumes runs, and compares the results with an uninterrupted run.

    python benchmarks/kill_resume.py --kills 12

Each kill is SIGKILL, SIGTERM or SIGINT at a random moment after training has begun. The same
command is then repeated until the run is finished. Weights, states of optimizer and schedule, and
random states in last.ckpt, all values of metrics.csv except for the timings, and the metrics in
metrics.json must be bit-identical to those of the uninterrupted run. Prints a Markdown table, and
exits with 1 if any value differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
TASKS = {  # options for all random operations of the task
    "cls": ("backbone=vit", "backbone.drop_path_rate=0.1", "backbone.dropout=0.1"),
    "seg": ("backbone=convnext", "backbone.drop_path_rate=0.1", "head=hamburger"),
    "mae": ("backbone=mae",),
    "pose": ("backbone=mobilenet_v2",),
}
COMMON = (
    "dataset.length={train: 96, val: 16, test: 4}", "dataset.batch_size=4", "trainer.max_epochs=4",
    "trainer.accelerator=cpu", "trainer.log_every_n_steps=5",
)  # fmt: skip
TIMINGS = ("train/images_per_s", "train/data_wait")


def start(task: str, workers: int, folder: Path) -> subprocess.Popen[str]:
    """Starts the command of a run."""
    command = [
        sys.executable, str(ROOT / "train.py"), f"task={task}", *TASKS[task], *COMMON, f"dataset.num_workers={workers}",
        f"hydra.run.dir={folder}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_training(run: subprocess.Popen[str], folder: Path, starts: int) -> None:
    """Waits until the process has begun training or has ended.

    `starts`: number of earlier starts in starts.json.
    """
    record = folder / "starts.json"
    while run.poll() is None:
        if record.is_file() and len(json.loads(record.read_text())["starts"]) > starts:
            return
        time.sleep(0.05)


def results(folder: Path) -> dict[str, object]:
    """Returns everything that must be identical."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    keys = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "random_states")
    return {**{key: state[key] for key in keys}, "metrics": rows, "results": metrics}


def difference(one: object, two: object, path: str = "") -> str | None:
    """Describes the first difference between two results.

    Returns None if they are bit-identical.
    """
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return f"{path}: other keys"
        return next((d for key in one if (d := difference(one[key], two[key], f"{path}.{key}"))), None)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            return f"{path}: {len(one)} and {len(two)} entries"
        return next((d for i, pair in enumerate(zip(one, two, strict=True)) if (d := difference(*pair, f"{path}[{i}]"))), None)
    equal = torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
    return None if equal else f"{path}: {one} and {two}"[:200]


def killed_run(task: str, workers: int, folder: Path, kills: list[tuple[signal.Signals, float]]) -> list[str]:
    """Trains a run to the end and kills it on the way. Returns a description of each kill.

    `kills`: signal and seconds after training has begun.
    """
    events = []
    for starts, (number, delay) in enumerate(kills):
        run = start(task, workers, folder)
        wait_for_training(run, folder, starts)
        time.sleep(delay)
        if run.poll() is not None:
            events.append("finished before")
            break
        run.send_signal(number)
        text, _ = run.communicate(timeout=300)
        expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
        if "Results after" in text:  # the process had finished and was exiting
            events.append("finished before")
            break
        events.append(f"{number.name} at {delay:.1f} s")
        if run.returncode != expected:
            raise RuntimeError(f"{number.name} ended with exit code {run.returncode} instead of {expected}:\n{text}")
    while True:
        run = start(task, workers, folder)
        text, _ = run.communicate(timeout=600)
        if run.returncode != 0:
            raise RuntimeError(f"the restarted run failed:\n{text}")
        if "Results after" in text:
            return events


def uninterrupted_run(task: str, folder: Path) -> tuple[dict[str, object], float]:
    """Trains a run without interruption.

    Returns its results and the seconds from the beginning of training.
    """
    run = start(task, 0, folder)
    wait_for_training(run, folder, 0)
    begin = time.monotonic()
    text, _ = run.communicate()
    if run.returncode != 0:
        raise RuntimeError(text)
    return results(folder), time.monotonic() - begin


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="total number of kills, over all tasks and numbers of workers")
    parser.add_argument("--per-run", type=int, default=2, help="number of kills in one run")
    parser.add_argument("--tasks", nargs="+", default=["cls", "seg", "mae"], choices=list(TASKS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> int:
    """Prints the table and returns the exit code."""
    options = arguments()
    rng = random.Random(options.seed)
    cells = [(task, workers) for task in options.tasks for workers in options.workers]
    print("| task | workers | kills | identical |\n|---|---|---|---|")
    failed, done = 0, 0
    references: dict[str, tuple[dict[str, object], float]] = {}
    with tempfile.TemporaryDirectory() as name:
        while done < options.kills:
            task, workers = cells[(done // options.per_run) % len(cells)]
            if task not in references:  # the same for any number of workers
                references[task] = uninterrupted_run(task, Path(name) / f"{task}_alone")
            reference, seconds = references[task]
            signals = [
                rng.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)) for _ in range(options.per_run)
            ]
            kills = [(number, rng.uniform(0, 0.7 * seconds)) for number in signals]
            folder = Path(name) / f"{task}_{workers}_{done}"
            events = killed_run(task, workers, folder, kills)
            where = difference(reference, results(folder))
            failed += where is not None
            done += options.per_run
            print(f"| {task} | {workers} | {', '.join(events)} | {'yes' if where is None else where} |", flush=True)
    print(f"\n{failed} runs differ.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
