"""Trains one run."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from spine import report
from spine.commands.evaluate import measure
from spine.config import messages
from spine.config.building import build, build_trainer
from spine.config.checks import check
from spine.config.resolving import plain
from spine.config.targets import named
from spine.errors import InputError


def train(cfg: DictConfig) -> float | None:
    """Trains one run; returns the value of optimized_metric, for sweepers. In its folder: metrics, curves, pictures, checkpoints."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    for leftover in ("error.txt", "metrics.json"):
        (folder / leftover).unlink(missing_ok=True)
    try:
        return run(plain(cfg), folder)
    except Exception as error:
        (folder / "error.txt").write_text((messages.sentence(error) or f"{type(error).__name__}: {error}") + "\n")
        raise


def run(config: dict[str, Any], folder: Path) -> float | None:
    """Trains one run of a plain configuration in `folder`; returns the value of optimized_metric, if one is named."""
    start = time.perf_counter()
    check(config)  # before Lightning, which takes seconds to import
    import pytorch_lightning as pl

    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    task, data = build(config)
    if config["ckpt_path"]:
        report.keep_history(folder)
    trainer = build_trainer(config, folder, task)
    if trainer.is_global_zero:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if task.weights is not None:
            print(task.weights)
            (folder / "weights.txt").write_text(task.weights.full())
        _announce(config, task, data, folder)
    trainer.fit(task, data, ckpt_path=config["ckpt_path"], weights_only=True if config["ckpt_path"] else None)
    if trainer.interrupted:
        raise KeyboardInterrupt
    best = trainer.checkpoint_callback.best_model_path if trainer.checkpoint_callback else ""
    if best:
        trainer.loggers = []  # the curves end with training; what follows is the result
        values = measure(trainer, task, data, "val", best)
    else:  # fast_dev_run writes no checkpoint
        values = {
            key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key and not key.startswith("lr-")
        }
    if trainer.is_global_zero:
        report.draw_curves(folder)
        report.results(folder, task.monitor, values, time.perf_counter() - start, checkpoint=best)
    metric = config["optimized_metric"]
    if metric is not None and metric not in values:
        raise InputError(f"optimized_metric '{metric}' was not measured. Choices: {', '.join(sorted(values))}.")
    return values[metric] if metric else None


def _announce(config: dict[str, Any], task: Any, data: Any, folder: Path) -> None:
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    backbone, size = config["backbone"], config["image_size"]
    print(
        f"{named(backbone)} {backbone.get('variant')} + {named(config['head'])}, "
        f"{parameters / 1e6:.2f} M parameters, task {task.name}, {size[0]}x{size[1]} pixels, "
        f"{len(data.split('train'))} training samples, precision {config['trainer']['precision']}\n{folder}",
        flush=True,
    )
