"""Logs images and summaries to the loggers that support them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


def log_summary(loggers: Iterable[Logger], values: Mapping[str, float]) -> None:
    """Writes the final results to the summary of a W&B run. Its curves end with the last epoch."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({f"best/{name}": value for name, value in values.items()})


def log_image(logger: Logger, name: str, image: np.ndarray, step: int) -> None:
    """Logs an image (H, W, 3) uint8 to TensorBoard and W&B. Other loggers are ignored."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [image])
