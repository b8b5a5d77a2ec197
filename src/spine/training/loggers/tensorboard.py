"""TensorBoard logger."""

from __future__ import annotations

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard(folder: str) -> TensorBoardLogger:
    """Creates a logger that writes event files to <folder>/tensorboard."""
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
