"""What a run costs: size of the network, speed of its training, and memory."""

from __future__ import annotations

import csv
import logging
import resource
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch

from spine.profiling import count_multiply_adds, images_per_second
from spine.tasks.base import Task
from spine.training.run_folder import RunCosts

log = logging.getLogger(__name__)


def run_costs(task: Task, metrics_file: Path, device: torch.device) -> RunCosts:
    """Returns the costs of a task that was trained on `device`. `metrics_file`: the metrics.csv of its run."""
    speeds, waits = _logged(metrics_file, "train/images_per_s"), _logged(metrics_file, "train/data_wait")
    on_gpu, threads = device.type == "cuda", torch.get_num_threads()
    return {
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "multiply_adds": multiply_adds(task),
        "images_per_s": statistics.median(speeds) if speeds else None,
        "data_wait": statistics.fmean(waits) if waits else None,
        "peak_memory_mb": (torch.cuda.max_memory_allocated(device) if on_gpu else _peak_resident_bytes()) / 2**20,
        "device": torch.cuda.get_device_name(device) if on_gpu else f"CPU, {threads} thread{'s' * (threads > 1)}",
    }


def multiply_adds(task: Task) -> float | None:
    """Returns the multiply-adds of the forward pass of one training image.

    Returns None for a network that cannot be counted: one that was not built by spine, or that
    computes sizes from the values of its tensors.
    """
    network = getattr(task.model, "config", None)
    if network is None:
        return None
    extras = [draw(np.random.default_rng(0))[None] for draw in task.sample_extras().values()]
    try:
        return count_multiply_adds(network, extras)
    except (RuntimeError, NotImplementedError) as error:  # operations without an implementation for meta tensors
        log.warning("The multiply-adds were not counted: %s", error)
        return None


def latency_ms(trainer: pl.Trainer, task: Task, image_size: Sequence[int]) -> float:
    """Returns the milliseconds that the network of a trained task takes for one image, without loading it.

    The median of 30 passes at `image_size`, (height, width), on the device and with the precision of `trainer`.
    """
    device = trainer.strategy.root_device
    image = torch.zeros(1, 3, *image_size, device=device).to(memory_format=torch.channels_last)
    with trainer.precision_plugin.forward_context():
        return 1000 / images_per_second(task.model.to(device), image, train=False, rounds=30)


def _logged(path: Path, name: str) -> list[float]:
    """Returns the values of one column of metrics.csv."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
