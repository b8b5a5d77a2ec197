"""Measures what each logger adds to a logged step: `python benchmarks/logger_cost.py`. Prints milliseconds for each row."""

import statistics
import tempfile
import time
from pathlib import Path

from spine.training.loggers.metrics_file import MetricsFile
from spine.training.loggers.run_logger import LoggedRun
from spine.training.loggers.tensorboard import tensorboard
from spine.training.loggers.wandb import wandb

ROWS, REPEATS = 500, 5
VALUES = {"train/loss_step": 0.5, "train/lr": 1e-3, "train/images_per_s": 900.0, "train/data_wait": 0.01, "train/grad_norm": 1.0}


def milliseconds(logger) -> float:
    """The median time of a row."""
    times = []
    for repeat in range(REPEATS):
        start = time.perf_counter()
        for row in range(ROWS):
            logger.log_metrics({**VALUES, "epoch": 0}, step=repeat * ROWS + row)
        times.append((time.perf_counter() - start) / ROWS * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        run = LoggedRun(Path(folder))
        for name, make in {
            "metrics.csv": lambda: MetricsFile(Path(folder) / "metrics.csv"),
            "TensorBoard": lambda: tensorboard(run),
            "W&B, offline": lambda: wandb(run),
        }.items():
            start = time.perf_counter()
            logger = make()
            started = time.perf_counter() - start
            print(f"{name:14} {milliseconds(logger):6.3f} ms for each row, {started:.1f} s to start")
            if hasattr(logger, "finish"):
                logger.finish(True)
