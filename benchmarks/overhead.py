"""Measures what spine's training loop costs in addition to the computation.

    python benchmarks/overhead.py [--rounds 7] [--steps 150] [key=value ...]

Trains the same small network on the same batches in two ways, in turn: with train.py's loop (Lightning with all callbacks of
spine, metrics.csv, checkpoints) and with a plain PyTorch loop that has the same precision, gradient clipping, optimizer and
schedule. The difference is the cost of the loop in a step. It does not depend on the network, so that its share is given for
steps of 20 ms and 100 ms. The time between epochs is from the last step of an epoch to the first step of the next one, without
a validation, with last.ckpt written and without it. Further arguments are keys of train.py.

Start-up is measured with whole processes: a mistake on the command line, and the time to the first step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from spine.config import resolving
from spine.config.building import Run, build_run, build_trainer
from spine.config.checks import prepare
from spine.config.conf_folder import conf_folder
from spine.training.trainer import silence_libraries

ROOT = Path(__file__).resolve().parents[1]
EPOCHS, BATCH = 3, 2
SMALL = (
    "task=cls", "backbone=mobilenet_v2", "image_size=[64,64]", f"dataset.batch_size={BATCH}", "dataset.num_workers=0",
    "trainer.accelerator=cpu", f"trainer.max_epochs={EPOCHS}", "trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0",
)  # fmt: skip


class Clock(pl.Callback):
    """Records when steps begin and end."""

    def __init__(self) -> None:
        self.begins: list[float] = []
        self.ends: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        """Called before a step."""
        self.begins.append(time.perf_counter())

    def on_train_batch_end(self, *args: object) -> None:
        """Called after a step."""
        self.ends.append(time.perf_counter())


def build(arguments: list[str], steps: int) -> Run:
    """Builds the run of a command line."""
    length = f"dataset.length={{train: {steps * BATCH}, val: 4, test: 4}}"
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = resolving.to_plain(compose("train", [*SMALL, length, *arguments]))
    pl.seed_everything(config["seed"], verbose=False)
    return build_run(prepare(config))


def spine_loop(run: Run, steps: int) -> tuple[float, float]:
    """Returns the seconds of a step, and the seconds between two epochs."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(run.config, Path(folder), run.task)
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        trainer.fit(run.task, run.data)
    epochs = [(clock.begins[i * steps + 1], clock.ends[(i + 1) * steps - 2]) for i in range(EPOCHS)]
    gaps = [clock.begins[i * steps] - clock.ends[i * steps - 1] for i in range(1, EPOCHS)]
    return statistics.median((end - begin) / (steps - 2) for begin, end in epochs), statistics.median(gaps)


def plain_loop(run: Run, steps: int) -> float:
    """Returns the seconds of a step of a plain PyTorch loop."""
    model, trainer = run.task.model.train(), run.config["trainer"]
    optimizer = run.task.make_optimizer(run.task.model)
    schedule = run.task.make_schedule(optimizer, EPOCHS * steps, steps)
    mixed = trainer["precision"] == "bf16-mixed"
    seconds = []
    for _ in range(EPOCHS):
        batches = iter(run.data.loader("train", training=True))
        next(batches)
        start = time.perf_counter()
        for _ in range(steps - 2):
            batch = next(batches)
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss, _ = run.task.evaluate_batch(batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), trainer["gradient_clip_val"])
            optimizer.step()
            schedule.step()
        seconds.append((time.perf_counter() - start) / (steps - 2))
    return statistics.median(seconds)


def whole_process(arguments: list[str], until: str) -> float:
    """Returns the seconds from the start of train.py until a text is in its output."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if until in line:
                    seconds = time.perf_counter() - start
                    process.kill()
                    return seconds
    raise RuntimeError(f"'{until}' is not in the output of {command}")


def arguments() -> tuple[argparse.Namespace, list[str]]:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=150, help="in an epoch")
    return parser.parse_known_args()


def main() -> None:
    """Prints the tables."""
    options, keys = arguments()
    silence_libraries()
    ours, plain, gaps = [], [], []
    for _ in range(options.rounds):
        plain.append(plain_loop(build(keys, options.steps), options.steps))
        step, gap = spine_loop(build(keys, options.steps), options.steps)
        ours.append(step)
        gaps.append(gap)
    costs = sorted(one - two for one, two in zip(ours, plain, strict=True))
    cost = statistics.median(costs)
    print("| measured | median | lowest to highest |\n|---|---|---|")
    for name, values in (("step of train.py, ms", ours), ("step of a plain loop, ms", plain), ("between two epochs, ms", gaps)):
        print(f"| {name} | {statistics.median(values) * 1e3:.2f} | {min(values) * 1e3:.2f} to {max(values) * 1e3:.2f} |")
    print(f"| loop (difference of the two in a round), ms | {cost * 1e3:.2f} | {costs[0] * 1e3:.2f} to {costs[-1] * 1e3:.2f} |")
    for step in (20, 100):
        print(f"| share of the loop in a step of {step} ms | {cost * 1e3 / (step + cost * 1e3):.1%} | |")
    mistake = [whole_process(["backbone=convnex"], "Unknown backbone") for _ in range(options.rounds)]
    length = "dataset.length={train: 8, val: 4, test: 4}"
    first = [whole_process([*SMALL, length, "trainer.max_epochs=1"], "epoch 1/1") for _ in range(options.rounds)]
    for name, values in (("start to a mistake, s", mistake), ("start to the end of four steps, s", first)):
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")


if __name__ == "__main__":
    main()
