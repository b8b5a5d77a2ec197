"""Images and summaries for the loggers that take them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


def log_summary(loggers: Iterable[Logger], values: dict[str, float]) -> None:
    """Puts the result of a run into the summary of its W&B run; the curves end with the last epoch."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.summary.update({f"best/{name}": value for name, value in values.items()})


def log_image(logger: Logger, name: str, image: np.ndarray, step: int) -> None:
    """Logs an image (H, W, 3) uint8 to loggers that take images."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, image, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [image])
