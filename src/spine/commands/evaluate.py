"""Evaluates a checkpoint on a split."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from spine import report
from spine.config.building import build, build_trainer
from spine.config.checks import check
from spine.config.resolving import plain
from spine.config.resume import read_checkpoint
from spine.config.targets import strip_untrusted
from spine.errors import InputError

HELP = {"--help", "-h", "--hydra-help", "--version"}  # answered by Hydra, without a checkpoint


def measure(trainer: Any, task: Any, data: Any, split: str, checkpoint: str) -> dict[str, float]:
    """Evaluates a checkpoint on a split: metric values by name. Training and eval.py end in this same function."""
    import torch

    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict(state)
    task.split = split
    values = trainer.validate(task, dataloaders=data.loader(split), verbose=False)[0]
    return {key: float(value) for key, value in values.items()}


def checkpoint_config(path: str) -> dict[str, Any]:
    """The configuration that a checkpoint of ours carries. InputError where the file is none."""
    return strip_untrusted(read_checkpoint(path)["config"])


def register_checkpoint(arguments: list[str]) -> None:
    """Makes the configuration inside ckpt_path=... the base that eval.yaml is composed on, so that overrides are checked against it."""
    from hydra.core.config_store import ConfigStore

    paths = [argument.split("=", 1)[1] for argument in arguments if argument.startswith("ckpt_path=")]
    if paths:
        config = checkpoint_config(os.path.expanduser(paths[-1].strip("'\"")))
    elif HELP & set(arguments):
        config = {}
    else:
        raise InputError("Which checkpoint? Give ckpt_path=logs/.../checkpoints/best.ckpt.")
    ConfigStore.instance().store("checkpoint", config)


def evaluate(cfg: DictConfig) -> dict[str, float]:
    """Evaluates a checkpoint on a split; prints its metrics, writes metrics.json and pictures."""
    start = time.perf_counter()
    folder = Path(HydraConfig.get().runtime.output_dir)
    config = plain(cfg)
    checkpoint, split = config.pop("ckpt_path"), config.pop("split")
    config["backbone"]["weights"] = None  # everything comes from the checkpoint
    check(config)
    import pytorch_lightning as pl

    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    task, data = build(config, split)
    trainer = build_trainer(config, folder, task)
    values = measure(trainer, task, data, split, checkpoint)
    if trainer.is_global_zero:
        report.results(folder, task.monitor.replace("val/", f"{split}/"), values, time.perf_counter() - start, checkpoint)
    return values
