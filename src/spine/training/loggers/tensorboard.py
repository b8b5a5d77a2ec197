"""TensorBoard."""

from __future__ import annotations

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard(folder: str) -> TensorBoardLogger:
    """TensorBoard's event files, in <folder>/tensorboard."""
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)
