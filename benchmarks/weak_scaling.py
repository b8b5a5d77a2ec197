"""Weak scaling: the batch of a process stays the same, and processes are added.

    python benchmarks/weak_scaling.py --rounds 3       # measures 1 and 2 processes of one thread on the CPU
    python benchmarks/weak_scaling.py --project        # projects data parallelism to 8, 64 and 512 GPUs

The measurement alternates between one and two processes and takes medians. The projection uses the
exact number of gradient bytes of each backbone and published speeds; see `project`. Both print
Markdown tables.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch

from spine.models.assembly import NetworkConfig
from spine.models.create import create_model
from spine.profiling import count_multiply_adds

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("vit", "mobilenet_v2")  # their smallest variants, 64 x 64 pixels
COMMON = (
    "task=cls", "dataset.num_workers=0", "dataset.batch_size=32", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.log_every_n_steps=5", "trainer.limit_val_batches=0",
)  # fmt: skip
STEPS = 25
PROJECTED = (
    ("shufflenet_v1", "x1_0_g3"), ("shufflenet_v2", "x1_0"), ("mobilenet_v2", "w100"), ("mobilenet_v3", "large_100"),
    ("xception", "standard"), ("segnext", "base"), ("resnest", "resnest50"), ("swin", "tiny"), ("convnext", "tiny"), ("hrnet", "w32"),
    ("beit", "base_patch16"), ("mae", "base_patch16"), ("vit", "base_patch16"), ("vgg16", "plain"),
    ("swin", "large"), ("vit", "large_patch16"), ("convnext", "xlarge"), ("vit", "huge_patch14"),
)  # fmt: skip
IMAGE_SIZE, BATCH = 224, 64  # of a GPU


class Machine(NamedTuple):
    """Published speeds of nodes like DGX H100, and two assumptions."""

    gpus: int = 8  # of a node
    nvlink: float = 450e9  # bytes/s of a GPU in one direction: NVLink 4, 900 GB/s in both
    network: float = 50e9  # bytes/s of an adapter in one direction: 400 Gbit/s InfiniBand
    adapters: int = 8  # of a node
    latency: float = 5e-6  # seconds of one message; an assumption
    peak: float = 989e12  # operations/s of an H100 SXM in bfloat16, dense
    used: float = 0.4  # fraction of the peak that a training step reaches; an assumption


class Projection(NamedTuple):
    """Seconds of one step."""

    compute: float
    communication: float

    @property
    def without_overlap(self) -> float:
        """Efficiency if the gradients are reduced after the backward pass."""
        return self.compute / (self.compute + self.communication)

    @property
    def with_overlap(self) -> float:
        """Efficiency if the reduction runs during the backward pass, two thirds of the computation."""
        return self.compute / (self.compute + max(0.0, self.communication - self.compute * 2 / 3))


def all_reduce_seconds(size: float, gpus: int, machine: Machine) -> float:
    """Returns the time of a ring all-reduce of `size` bytes.

    Each GPU sends 2 (N - 1) / N * size bytes in 2 (N - 1) messages. The slowest link counts: NVLink
    within a node; between nodes the adapters, each of which carries a ring with its part of the bytes.
    """
    bandwidth = machine.nvlink
    if gpus > machine.gpus:
        bandwidth = min(bandwidth, machine.adapters * machine.network)
    return 2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - 1) * machine.latency


def project(gradient_bytes: float, multiply_adds: float, gpus: int, machine: Machine) -> Projection:
    """Projects a step. A training step computes three forward passes of two operations per multiply-add."""
    compute = 3 * 2 * multiply_adds * BATCH / (machine.peak * machine.used)
    return Projection(compute, all_reduce_seconds(gradient_bytes, gpus, machine))


def measure_gradients(backbone: str, variant: str, classes: int = 1000, size: int = IMAGE_SIZE) -> tuple[int, float]:
    """Returns the bytes of the float32 gradients of a classifier, and its multiply-adds for one image."""
    with torch.device("meta"):
        network = create_model(backbone, variant=variant, num_outputs=classes, image_size=size)
    assert isinstance(network.config, NetworkConfig)
    gradient_bytes = sum(parameter.numel() * 4 for parameter in network.parameters() if parameter.requires_grad)
    return gradient_bytes, count_multiply_adds(network.config)


def print_projection(machine: Machine) -> None:
    print("| backbone | gradients, bytes | step, ms | 8 GPUs | 64 GPUs | 512 GPUs |")
    print("|---|---|---|---|---|---|")
    for backbone, variant in PROJECTED:
        size, multiply_adds = measure_gradients(backbone, variant)
        cells = []
        for gpus in (8, 64, 512):
            step = project(size, multiply_adds, gpus, machine)
            cells.append(f"{1e3 * step.communication:.1f} ms: {step.without_overlap:.0%} to {step.with_overlap:.0%}")
        print(f"| {backbone} {variant} | {size:,} | {1e3 * step.compute:.1f} | {' | '.join(cells)} |", flush=True)


def images_per_second(backbone: str, processes: int) -> float:
    """Trains and returns the median speed of all processes together, without the first logged steps."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [
                sys.executable, str(ROOT / "train.py"), f"backbone={backbone}", *COMMON,
                f"dataset.length={{train: {32 * STEPS * processes}, val: 4, test: 4}}", f"trainer.devices={processes}",
                f"trainer.strategy={'ddp' if processes > 1 else 'auto'}", f"hydra.run.dir={folder}/run",
            ],
            cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as file:
            speeds = [float(row["train/images_per_s"]) for row in csv.DictReader(file) if row.get("train/images_per_s")]
    return statistics.median(speeds[1:])


def print_measurement(rounds: int) -> None:
    print("| backbone | gradients, bytes | 1 process, images/s | 2 processes, images/s | efficiency |")
    print("|---|---|---|---|---|")
    for backbone in MEASURED:
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(rounds):
            for processes, found in speeds.items():
                found.append(images_per_second(backbone, processes))
        pairs = sorted(two / one / 2 for one, two in zip(speeds[1], speeds[2], strict=True))
        size, _ = measure_gradients(backbone, "micro", classes=5, size=64)
        one, two = (statistics.median(found) for found in speeds.values())
        spread = f"{statistics.median(pairs):.0%} ({pairs[0]:.0%} to {pairs[-1]:.0%})"
        print(f"| {backbone} micro | {size:,} | {one:.0f} | {two:.0f} | {spread} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--project", action="store_true")
    arguments = parser.parse_args()
    if arguments.project:
        for adapters in (8, 1):
            print(f"Nodes of 8 GPUs with {adapters} x 400 Gbit/s:\n")
            print_projection(Machine(adapters=adapters))
            print()
    else:
        print_measurement(arguments.rounds)


if __name__ == "__main__":
    main()
