"""Trains for a long time and measures whether memory and the number of open files stay constant.

    python benchmarks/soak.py [--minutes 60] [key=value ...]

Starts train.py with short epochs, so that validation, figures, checkpoints and logging happen many times, and reads the memory
of its processes (proportional set size, in which pages that several processes share count once in total) from /proc. Prints a
Markdown table with one row for each twelfth of the time, and the slope of a straight line through the second half of the
measurements. Linux only.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
INTERVAL = 5.0  # seconds between two measurements
RUN = (
    "task=seg", "backbone=mobilenet_v2", "image_size=[64,64]", "dataset.length={train: 160, val: 32, test: 4}", "dataset.batch_size=8",
    "dataset.num_workers=2", "trainer.accelerator=cpu", "trainer.max_epochs=100000", "trainer.log_every_n_steps=10",
    "callbacks.figure_every_n_epochs=5", "callbacks.checkpoint_every_minutes=1", "logger=all",
)  # fmt: skip


class Measurement(NamedTuple):
    """The state of all processes of the run."""

    minutes: float
    processes: int
    memory: float  # MB, proportional set size
    files: int  # open files of the main process
    epoch: int


def processes(root: int) -> list[int]:
    """Returns the process ids of a process and its descendants."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def measure(pid: int, minutes: float, folder: Path) -> Measurement:
    """Reads /proc and the log of the run. Processes that end meanwhile do not count."""
    memory, count = 0, 0
    for each in processes(pid):
        try:
            memory += int(re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)[0])
            count += 1
        except (OSError, IndexError):
            continue
    epochs = re.findall(r"epoch (\d+)/", (folder / "output.txt").read_text())
    return Measurement(minutes, count, memory / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(epochs[-1]) if epochs else 0)


def slope(points: list[Measurement]) -> float:
    """Returns the slope of memory over time in MB per hour, from a least-squares line."""
    times = [point.minutes / 60 for point in points]
    return statistics.linear_regression(times, [point.memory for point in points]).slope


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    options, keys = parser.parse_known_args()
    points: list[Measurement] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, str(ROOT / "train.py"), *RUN, *keys]
        with (folder / "output.txt").open("w") as output:
            run = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
            start = time.monotonic()
            while (minutes := (time.monotonic() - start) / 60) < options.minutes and run.poll() is None:
                points.append(measure(run.pid, minutes, folder))
                time.sleep(INTERVAL)
            ended = run.poll()
            run.terminate()
            run.wait(timeout=120)
        if ended is not None:
            print((folder / "output.txt").read_text()[-2000:])
            return 1
    trained = [point for point in points if point.epoch > 0]
    print("| minutes | epochs | processes | memory, MB (median) | open files |\n|---|---|---|---|---|")
    size = max(1, len(trained) // 12)
    for part in (trained[i : i + size] for i in range(0, len(trained) - size + 1, size)):
        last = part[-1]
        memory = statistics.median(point.memory for point in part)
        print(f"| {last.minutes:.0f} | {last.epoch} | {last.processes} | {memory:.0f} | {last.files} |")
    print(f"\nSlope of the second half: {slope(trained[len(trained) // 2 :]):+.1f} MB per hour.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
