"""Predicts for images, folders, videos and cameras."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from spine import console
from spine.components import component_name
from spine.config.checks import check_devices
from spine.config.command_line import run_command
from spine.config.model_source import register_model
from spine.config.resolving import to_plain
from spine.config.schemas import PREDICTION
from spine.config.values import check_schema
from spine.errors import InputError, RunStopped, find_stop
from spine.option_types import Config

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from spine.prediction.boxes import BoxTable
    from spine.prediction.output_folder import Summary
    from spine.prediction.sources import Source

log = logging.getLogger(__name__)
SOME_UNREADABLE = 2  # exit code
MAX_LISTED = 8  # unreadable files on the screen


def main() -> None:
    """Runs the command with the arguments of the command line."""
    sys.argv[1:] = [_with_home(argument) for argument in sys.argv[1:]]
    run_command("predict", predict, register_model)


def _with_home(argument: str) -> str:
    """Replaces a leading `~` of `out`: Hydra makes the folder before the command is called."""
    return f"out={os.path.expanduser(argument[4:])}" if argument.startswith("out=~") else argument


def predict(cfg: DictConfig) -> None:
    """Predicts for a source, and writes tables, pictures and a contact sheet.

    Exits with 2 if some files cannot be read.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with console.log_to_file(folder / "predict.log"):
        try:
            summary = predict_config(to_plain(cfg), folder)
        except BaseException as error:
            if (stop := find_stop(error)) is None:
                raise
            message = (
                f"{stop.message} during the prediction. What was done is kept: give out={folder} skip_existing=true to go on."
            )
            raise RunStopped(stop.signal_number, message) from None
    if summary is not None and summary.unreadable:
        sys.exit(SOME_UNREADABLE)


def predict_config(config: Config, folder: Path) -> Summary | None:
    """Predicts for the source of a plain configuration of predict.yaml.

    Returns what was done; None on all processes but the first.
    """
    start = time.perf_counter()
    options = {key: config[key] for key in PREDICTION}
    check_schema(options, PREDICTION, "")
    check_devices(config["trainer"])
    from spine.prediction.sources import find_source  # imports torch

    source = find_source(options["source"], leave_out=folder)
    boxes = _read_boxes(options, source, component_name("task", config["task"]["_target_"]))
    from spine.prediction.loading import open_predictor
    from spine.prediction.output_folder import OutputFolder
    from spine.prediction.run import Processes, RunOptions, predict_source
    from spine.training.trainer import silence_libraries

    silence_libraries()
    fabric = _launch(config["trainer"])
    predictor = open_predictor(config, options["classes"], fabric.device)
    out = OutputFolder(folder, predictor.kind, rank=fabric.global_rank, top_k=options["top_k"], draw=options["draw"])
    run_options = RunOptions(
        batch_size=config["dataset"]["batch_size"],
        num_workers=config["dataset"]["num_workers"],
        skip_existing=options["skip_existing"],
        boxes=boxes,
        max_frames=options["max_frames"],
    )
    processes = Processes(fabric.global_rank, fabric.world_size, fabric.barrier)
    summary = predict_source(predictor, source, out, run_options, processes)
    if summary is not None:
        _report(summary, folder, time.perf_counter() - start)
    return summary


def _read_boxes(options: Config, source: Source, task: str) -> BoxTable | None:
    """Returns the boxes of the objects in the images of a source. Raises InputError if they do not belong to it."""
    from spine.prediction.boxes import read_boxes
    from spine.prediction.sources import Video

    if options["boxes"] is None:
        return None
    if task != "pose" or isinstance(source, Video):
        raise InputError("boxes are those of objects in image files, for task=pose. Leave it out.")
    boxes = read_boxes(options["boxes"], options["min_box_score"])
    boxes.check([file.name for file in source])
    return boxes


def _launch(trainer: Config) -> Fabric:
    """Starts the processes of trainer.devices, and returns what this one knows of the others."""
    from lightning_fabric import Fabric

    keys = ("accelerator", "devices", "strategy")
    fabric = Fabric(**{key: trainer[key] for key in keys}, num_nodes=trainer.get("num_nodes", 1))
    fabric.launch()
    return fabric


def _report(summary: Summary, folder: Path, seconds: float) -> None:
    """Prints what was done, and the files that cannot be read."""
    files = list(summary.unreadable.items())
    if files:
        listed = "".join(f"\n  {name}: {reason}" for name, reason in files[:MAX_LISTED])
        more = f"\n  and {len(files) - MAX_LISTED} more" if len(files) > MAX_LISTED else ""
        log.warning("%d files cannot be read (unreadable.txt lists all):%s%s", len(files), listed, more)
    speed = f", {summary.speed:.3g} images/s" if summary.speed else ""
    log.info("%d images in %.1f s%s. Predictions: %s", summary.predicted, seconds, speed, folder)
