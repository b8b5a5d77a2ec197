"""Memory of a list data set of 10 million paths with 2 workers.

    python benchmarks/list_memory.py [--rows 10000000] [--workers 2] [--format csv]

Writes a list with the columns path and label into a temporary folder, opens it through the DataModule and draws batches of
images from its workers. Prints the memory of all processes together (the sum of their proportional set sizes, Linux only), and
how much of it a list of 1000 rows needs as well.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from spine.data.data_module import DataModule
from spine.data.formats.image_list import ImageList

BATCHES = 20


def write_list(path: Path, rows: int) -> None:
    """Writes paths as those of ImageNet."""
    with path.open("w") as file:
        file.write("path,label,split\n")
        for start in range(0, rows, 100_000):
            numbers = range(start, min(start + 100_000, rows))
            file.write("".join(f"train/n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG,class_{i % 1000:03d},train\n" for i in numbers))


def proportional_set_size(process: int) -> int:
    """Returns bytes: a page that n processes share counts as one n-th in each."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("The system does not report proportional set sizes.")


class Listed(ImageList):
    """Images of one color instead of files: the paths are read from the list, and nothing is opened."""

    def load(self, index: int):  # type: ignore[no-untyped-def]
        assert self.path(index).suffix == ".JPEG"
        return {"image": np.zeros((64, 64, 3), np.uint8), **self.load_annotations(index)}

    def encoded_image(self, index: int):  # type: ignore[no-untyped-def]
        return None

    def check(self, needs: frozenset[str]) -> None:
        pass


def measure(file: Path, workers: int) -> None:
    """Opens a list in this process and prints a line of numbers."""
    cv2.setNumThreads(0)
    data = DataModule(partial(Listed, root=str(file.parent), file=file.name), needs={"image", "label"}, num_workers=workers)
    start = time.perf_counter()
    count = len(data.split("train"))
    opened = time.perf_counter() - start
    batches = iter(data.loader("train", training=True))
    for _ in range(BATCHES):
        next(batches)
    processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid is not None)]
    peak = next(int(line.split()[1]) * 1024 for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(json.dumps([count, opened, sum(map(proportional_set_size, processes)), peak, len(processes)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument("--measure", type=Path, help="only opens this list; the benchmark starts itself with it")
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure, options.workers)
        return
    needed = []
    with tempfile.TemporaryDirectory() as folder:
        for rows in (1000, options.rows):
            path = Path(folder, f"{rows}.csv")
            write_list(path, rows)
            if options.format == "parquet":
                import pyarrow.csv
                import pyarrow.parquet

                pyarrow.parquet.write_table(pyarrow.csv.read_csv(path), path.with_suffix(".parquet"))
                path = path.with_suffix(".parquet")
            command = [sys.executable, __file__, "--measure", str(path), "--workers", str(options.workers)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            count, seconds, memory, peak, processes = json.loads(done.stdout.splitlines()[-1])
            needed.append(memory)
            print(
                f"{count} rows ({options.format}, {path.stat().st_size / 2**20:.0f} MiB): opened in {seconds:.1f} s; {processes} processes "
                f"have {memory / 2**20:.0f} MiB together; the largest memory of the main process was {peak / 2**20:.0f} MiB"
            )
    print(f"{options.rows} rows cost {(needed[1] - needed[0]) / 2**20:.0f} MiB more than 1000")


if __name__ == "__main__":
    main()
