"""Kills runs at random moments, starts them again by the same command, and compares what comes out with a run left alone.

    python benchmarks/kill_resume.py --kills 12

Every kill is SIGKILL, SIGTERM or SIGINT at a random moment after training has begun; the same command is then typed again
until the run is finished. Weights, optimizer, schedule and random state in last.ckpt, every value of metrics.csv but the
timings, and the results in metrics.json must be bit-identical to those of the uninterrupted run. Prints a Markdown table;
exits with 1 where anything differs.
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
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
TASKS = {  # with everything random that the task has
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
    """Types the command of a run."""
    command = [
        sys.executable, str(ROOT / "train.py"), f"task={task}", *TASKS[task], *COMMON, f"dataset.num_workers={workers}",
        f"hydra.run.dir={folder}",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for_training(run: subprocess.Popen[str], folder: Path, starts: int) -> None:
    """Returns once the process has begun to train, which adds a start to the folder's record, or has ended."""
    record = folder / "starts.json"
    while run.poll() is None:
        if record.is_file() and len(json.loads(record.read_text())["starts"]) > starts:
            return
        time.sleep(0.05)


def outcome(folder: Path) -> dict[str, Any]:
    """What must be identical."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]
    results = json.loads((folder / "metrics.json").read_text())["metrics"]
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "random_states")
    return {**{key: state[key] for key in kept}, "metrics": rows, "results": results}


def difference(one: Any, two: Any, path: str = "") -> str | None:
    """Where two outcomes differ first; None where they are bit-identical."""
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return f"{path}: other keys"
        return next((d for key in one if (d := difference(one[key], two[key], f"{path}.{key}"))), None)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            return f"{path}: {len(one)} and {len(two)} entries"
        return next((d for i, pair in enumerate(zip(one, two, strict=True)) if (d := difference(*pair, f"{path}[{i}]"))), None)
    equal = torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    return None if equal else f"{path}: {one} and {two}"[:200]


def killed_run(task: str, workers: int, folder: Path, kills: list[tuple[signal.Signals, float]]) -> list[str]:
    """Runs to the end, with the kills (signal, seconds after training has begun) on the way; returns what happened."""
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
        if "Results after" in text:  # it came while the finished process was ending
            events.append("finished before")
            break
        events.append(f"{number.name} at {delay:.1f} s")
        if run.returncode != expected:
            raise RuntimeError(f"{number.name} ended in {run.returncode}, not in {expected}:\n{text}")
    while True:
        run = start(task, workers, folder)
        text, _ = run.communicate(timeout=600)
        if run.returncode != 0:
            raise RuntimeError(f"the restarted run failed:\n{text}")
        if "Results after" in text:
            return events


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12, help="how often a run is killed, over all tasks and workers")
    parser.add_argument("--per-run", type=int, default=2, help="how often one run is killed")
    parser.add_argument("--tasks", nargs="+", default=["cls", "seg", "mae"], choices=list(TASKS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    cells = [(task, workers) for task in options.tasks for workers in options.workers]
    print("| task | workers | kills | identical |\n|---|---|---|---|")
    failed, done = 0, 0
    references: dict[str, tuple[dict[str, Any], float]] = {}
    with tempfile.TemporaryDirectory() as name:
        while done < options.kills:
            task, workers = cells[(done // options.per_run) % len(cells)]
            if task not in references:  # the same for any number of workers
                folder = Path(name) / f"{task}_alone"
                run = start(task, 0, folder)
                wait_for_training(run, folder, 0)
                begin = time.monotonic()
                text, _ = run.communicate()
                if run.returncode != 0:
                    raise RuntimeError(text)
                references[task] = outcome(folder), time.monotonic() - begin
            reference, seconds = references[task]
            signals = [
                draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)) for _ in range(options.per_run)
            ]
            kills = [(number, draw.uniform(0, 0.7 * seconds)) for number in signals]
            folder = Path(name) / f"{task}_{workers}_{done}"
            events = killed_run(task, workers, folder, kills)
            where = difference(reference, outcome(folder))
            failed += where is not None
            done += options.per_run
            print(f"| {task} | {workers} | {', '.join(events)} | {'yes' if where is None else where} |", flush=True)
    print(f"\n{failed} runs differ.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
