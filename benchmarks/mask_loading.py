"""Compares how fast two versions of spine read pairs of images and masks.

    python benchmarks/mask_loading.py <folder of CamVid> <src of the other version> [--rounds 7] [--samples 100]

`src` is the folder src of another checkout, such as a git worktree of main. Each version runs in a process of its own. They take
turns: in every round each reads the same samples with MaskFolder.load, and reports its CPU time. Prints samples per second of CPU
time, and the median of the ratios of all rounds; above 1 this version is faster.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "src"
WORKER = """
import sys, time
import cv2
from spine.data.formats.mask_folder import MaskFolder
cv2.setNumThreads(1)
data = MaskFolder("train", root=sys.argv[1], pairs="{split}.txt", ignore_index=11)
for line in sys.stdin:
    count = int(line)
    start = time.process_time()
    for index in range(count):
        data.load(index % len(data))
    print(time.process_time() - start, flush=True)
"""


def started(source: Path, root: str) -> subprocess.Popen[str]:
    """Starts a process that reads samples with the version in `source`."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, root], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def seconds(process: subprocess.Popen[str], count: int) -> float:
    """Returns the CPU time in which a process reads `count` samples."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Measures both versions in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=100)
    given = parser.parse_args()
    own, other = (started(source, given.root) for source in (HERE, given.other))
    for process in (own, other):
        seconds(process, 10)
    ratios = []
    for number in range(given.rounds):
        order = (own, other) if number % 2 else (other, own)
        times = {process.pid: seconds(process, given.samples) for process in order}
        rates = [given.samples / times[process.pid] for process in (own, other)]
        ratios.append(rates[0] / rates[1])
        print(f"round {number + 1}: this version {rates[0]:.0f}, the other {rates[1]:.0f} samples/s, ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")
    for process in (own, other):
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
