"""Trains and evaluates with one, two and three processes, and compares the digits.

    python benchmarks/processes.py --tasks cls seg mae --runs 1 2 3 2-fsdp

Every run has the same dataset.global_batch_size, which is not a multiple of three. The checkpoint of
the first run is evaluated with each number of processes on 31 validation samples: all metrics must
have the same digits. The training losses of the epochs are compared with those of the first run.
Prints a Markdown table, and exits with 1 if an evaluation differs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
TASKS = {  # networks without batch norm and without random operations
    "cls": ("backbone=vit",),
    "seg": ("backbone=convnext", "head=parsenet"),
    "mae": ("backbone=mae",),
}
COMMON = (
    "dataset.length={train: 64, val: 31, test: 4}", "dataset.global_batch_size=16", "dataset.batch_size=4", "dataset.num_workers=0",
    "trainer.max_epochs=3", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1",
)  # fmt: skip


def run(script: str, folder: Path, *arguments: str) -> dict[str, float]:
    """Runs a command and returns the metrics that it wrote."""
    command = [sys.executable, str(ROOT / script), *arguments, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=900)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    metrics: dict[str, float] = json.loads((folder / "metrics.json").read_text())["metrics"]
    return metrics


def devices(name: str) -> tuple[str, ...]:
    """Options of a command for a number of processes, such as 2 or 2-fsdp."""
    processes, _, strategy = name.partition("-")
    return (f"trainer.devices={processes}", f"trainer.strategy={strategy or ('ddp' if processes != '1' else 'auto')}")


def train_losses(folder: Path) -> list[float]:
    """Returns the mean training loss of each epoch."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def compare(task: str, names: list[str], folder: Path) -> tuple[list[str], bool]:
    """Returns a table row for each run, and whether all evaluations are equal."""
    rows: list[str] = []
    expected: dict[str, float] = {}
    losses: list[float] = []
    equal = True
    for name in names:
        trained, evaluated = folder / f"{task}_{name}", folder / f"{task}_{name}_eval"
        run("train.py", trained, f"task={task}", *TASKS[task], *COMMON, *devices(name))
        checkpoint = folder / f"{task}_{names[0]}" / "checkpoints" / "last.ckpt"
        metrics = run("eval.py", evaluated, f"ckpt_path={checkpoint}", "trainer.accelerator=cpu", *devices(name))
        own = train_losses(trained)
        expected, losses = expected or metrics, losses or own
        differences = [abs(value - metrics[key]) / max(abs(value), 1e-12) for key, value in expected.items()]
        same = max(differences) == 0
        equal = equal and (same or name.endswith("-fsdp"))  # its convolutions have another memory format
        off = max(abs(a / b - 1) for a, b in zip(own, losses, strict=True))
        digits = "all digits equal" if same else f"largest relative difference {max(differences):.1e}"
        rows.append(f"| {task} | {name} | {metrics['val/loss']:.17g} | {digits} | {own[-1]:.9g} | {off:.1e} |")
    return rows, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--runs", nargs="+", default=["1", "2", "3", "2-fsdp"])
    arguments = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread a process\n"
    )
    print(
        "| task | processes | val/loss of one checkpoint | all metrics of it | train/loss, last epoch | largest relative difference |"
    )
    print("|---|---|---|---|---|---|")
    all_equal = True
    with tempfile.TemporaryDirectory() as folder:
        for task in arguments.tasks:
            rows, equal = compare(task, arguments.runs, Path(folder))
            all_equal = all_equal and equal
            print("\n".join(rows), flush=True)
    sys.exit(0 if all_equal else 1)


if __name__ == "__main__":
    main()
