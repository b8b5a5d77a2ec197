"""Measures what saving within epochs (callbacks.checkpoint_every_minutes) costs.

    python benchmarks/saving_cost.py [--rounds 3] [--minutes 15]

Trains each network for some steps without saving and with a checkpoint after every few steps, in turn. The extra time of the
runs with checkpoints, divided by their number, is the cost of one checkpoint in a run, with everything that belongs to it:
collecting the states, writing, flushing to disk, and what it does to caches. The seconds within the save itself are measured
too. The share is that of a run that saves every `--minutes` minutes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir

from spine.config import resolving
from spine.config.building import build_run, build_trainer
from spine.config.checks import prepare
from spine.config.conf_folder import conf_folder
from spine.training.checkpoints import LastCheckpoint
from spine.training.trainer import silence_libraries

BATCH = 2
COMMON = (
    "task=cls", "image_size=[64,64]", f"dataset.batch_size={BATCH}", "dataset.num_workers=0", "trainer.accelerator=cpu",
    "trainer.max_epochs=1", "trainer.limit_val_batches=0", "trainer.num_sanity_val_steps=0",
    "callbacks.checkpoint_every_minutes=null",
)  # fmt: skip
CASES = {  # options, steps of a run, steps between checkpoints
    "vit micro": (("backbone=vit",), 200, 20),
    "vit base_patch16": (("backbone=vit", "backbone.variant=base_patch16"), 20, 5),
}


class Times(pl.Callback):
    """Records when training begins and ends, without the checkpoint at the end of the epoch."""

    def __init__(self) -> None:
        self.begin = self.end = 0.0

    def on_train_start(self, *args: object) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        self.end = time.perf_counter()


def measure(arguments: tuple[str, ...], steps: int, every: int | None) -> tuple[float, list[float], int, float]:
    """Trains once. Returns the seconds of the run, the seconds of each save, the bytes of a checkpoint, and parameters in millions."""
    saves: list[float] = []
    original = LastCheckpoint.save

    def save(self: LastCheckpoint, trainer: pl.Trainer) -> None:
        start = time.perf_counter()
        original(self, trainer)
        saves.append(time.perf_counter() - start)

    length = (
        f"dataset.length={{train: {steps * BATCH + BATCH}, val: 4, test: 4}}"  # one step more: the epoch ends with a checkpoint
    )
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = resolving.to_plain(
            compose("train", [*COMMON, length, f"callbacks.checkpoint_every_steps={every or 'null'}", *arguments])
        )
    pl.seed_everything(config["seed"], verbose=False)
    run, times = build_run(prepare(config)), Times()
    LastCheckpoint.save = save  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = build_trainer(run.config, Path(folder), run.task)
            trainer.callbacks.append(times)  # type: ignore[attr-defined]
            trainer.fit(run.task, run.data)
            size = (Path(folder) / "checkpoints" / "last.ckpt").stat().st_size
    finally:
        LastCheckpoint.save = original  # type: ignore[method-assign]
    parameters = sum(parameter.numel() for parameter in run.task.parameters()) / 1e6
    return times.end - times.begin, saves[:-1], size, parameters


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=15.0, help="callbacks.checkpoint_every_minutes of the projected run")
    options = parser.parse_args()
    silence_libraries()
    print(
        f"| network | parameters | checkpoint | one save | extra time of a run, per save | share at {options.minutes:g} minutes |"
    )
    print("|---|---|---|---|---|---|")
    for name, (arguments, steps, every) in CASES.items():
        extra, saves = [], []
        for _ in range(options.rounds):
            without = measure(arguments, steps, None)[0]
            seconds, each, size, parameters = measure(arguments, steps, every)
            saves += each
            extra.append((seconds - without) / len(each))
        cost, save = statistics.median(extra), statistics.median(saves)
        spread = f"{min(extra):.3f} to {max(extra):.3f}"
        print(
            f"| {name} | {parameters:.1f} M | {size / 2**20:.0f} MiB | {save:.3f} s | {cost:.3f} s ({spread}) | "
            f"{max(cost, save) / (60 * options.minutes):.3%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
