"""Evaluates a checkpoint on a split."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from spine import console
from spine.checkpoints.run_checkpoint import has_averaged_weights, read_checkpoint
from spine.config.checks import prepare
from spine.config.command_line import run_command
from spine.config.resolving import to_plain
from spine.config.stored import checkpoint_config, saved_labels, trained_size, use_saved_classes
from spine.errors import InputError, RunStopped, find_stop
from spine.option_types import Config
from spine.reporting.tables import print_results
from spine.training.run_folder import RunFolder, without_nan

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

HELP = {"--help", "-h", "--hydra-help", "--version", "-sc", "--shell-completion"}  # Hydra handles these; they need no checkpoint


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("eval", evaluate, register_checkpoint)


def register_checkpoint(arguments: list[str]) -> None:
    """Registers the configuration of ckpt_path=... with Hydra, as the base of eval.yaml.

    Overrides are checked against it.
    """
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
    """Evaluates a checkpoint on a split.

    Prints the metrics, and writes metrics.json and figures.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    with console.log_to_file(folder.path / "eval.log"):
        try:
            return evaluate_config(to_plain(cfg), folder)
        except BaseException as error:
            if (stop := find_stop(error)) is None:
                raise
            raise RunStopped(stop.signal_number, f"{stop.message} during the evaluation; no result was written.") from None


def evaluate_config(config: Config, folder: RunFolder) -> dict[str, float]:
    """Evaluates the checkpoint of a plain configuration of eval.yaml in `folder`.

    Returns metric values by name.
    """
    start = time.perf_counter()
    checkpoint, split = config.pop("ckpt_path"), config.pop("split")
    if "backbone" in config:
        config["backbone"]["weights"] = None  # all weights are in the checkpoint
    labels, averaged = saved_labels(checkpoint), has_averaged_weights(read_checkpoint(checkpoint))
    if averaged:
        log.info("The evaluated weights are the moving average (EMA) of '%s'.", checkpoint)
    if labels is not None:
        use_saved_classes(config, labels)
    config = prepare(config)
    network_size = trained_size(checkpoint, config)
    import pytorch_lightning as pl

    from spine.config.building import build_run, build_trainer  # imports Lightning, which takes seconds
    from spine.data.skipping import report_unreadable
    from spine.evaluation.evaluate import evaluate_checkpoint
    from spine.training.loggers.run_logger import finished_at_end, log_results
    from spine.training.run_report import write_quietly
    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    run = build_run(config, split, labels, network_size)
    trainer = build_trainer(run.config, folder.path, run.task, checkpoint=checkpoint)
    with finished_at_end(trainer.loggers):
        values = evaluate_checkpoint(trainer, run.task, run.data, split, checkpoint)
        log_results(trainer.loggers, run.config, values)
    if trainer.is_global_zero:
        report_unreadable(folder.path)
        monitor, seconds = run.task.monitor.replace("val/", f"{split}/"), time.perf_counter() - start
        content = {
            "metrics": without_nan(values),
            "monitor": monitor,
            "mode": run.task.mode,
            "seconds": seconds,
            "checkpoint": checkpoint,
            "weights": "average" if averaged else "trained",
            "split": split,
            "evaluation": run.task.describe_evaluation(),
        }
        folder.write_json(folder.results, content)
        folder.write_json(folder.path / "config.json", run.config)
        print_results(folder.path, monitor, values, seconds, run.task.describe_evaluation())
        write_quietly(folder.path)
    return values
