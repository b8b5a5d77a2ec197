"""What watches a run: pictures, and a line an epoch where no bar can be drawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.nn import Module


class Pictures(pl.Callback):
    """Draws the first evaluated batch: into `folder` and the loggers, at every evaluation and every `every_n_epochs` of training."""

    def __init__(self, folder: str, mean: Sequence[float], std: Sequence[float], every_n_epochs: int = 0):
        """`every_n_epochs` 0 draws nothing while training goes on; mean and std are those of the transforms."""
        self.folder, self.every_n_epochs = Path(folder), every_n_epochs
        self.mean, self.std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.first: tuple[dict[str, Tensor], Tensor] | None = None

    def show(self, image: Tensor) -> np.ndarray:
        """Normalised images (B, 3, H, W) -> (B, H, W, 3) uint8."""
        pixels = image.detach().float().cpu() * self.std + self.mean
        return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps the first batch."""
        if batch_idx == 0 and self._due(trainer):
            self.first = (batch, outputs)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draws it, and the summary of the evaluation, before the metrics start anew."""
        if self.first is None:
            return
        summary = pl_module.draw_summary()  # on every process: it gathers
        if trainer.is_global_zero:
            for name, figure in {**pl_module.draw(*self.first, self.show), **summary}.items():
                self._keep(trainer, f"{pl_module.split}_{name}", figure)
        self.first = None

    def _due(self, trainer: pl.Trainer) -> bool:
        if trainer.state.fn != "fit":
            return True
        every = self.every_n_epochs
        return not trainer.sanity_checking and every > 0 and (trainer.current_epoch + 1) % every == 0

    def _keep(self, trainer: pl.Trainer, name: str, figure: Figure) -> None:
        picture = render(figure)
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png")
        for logger in trainer.loggers:
            log_picture(logger, name, picture, trainer.global_step)


def render(figure: Figure) -> np.ndarray:
    """A figure as (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def log_picture(logger: Logger, name: str, picture: np.ndarray, step: int) -> None:
    """Hands a picture (H, W, 3) to the loggers that take pictures."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [picture])


class EpochLines(pl.Callback):
    """Prints one line an epoch: loss, the metric that is watched, seconds. For logs and pipes, where a bar says nothing."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Module) -> None:
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Prints the line."""
        if not trainer.is_global_zero:
            return
        shown = {key: trainer.callback_metrics.get(key) for key in ("train/loss", "val/loss", pl_module.monitor)}
        values = "  ".join(f"{key} {float(value):.4f}" for key, value in shown.items() if value is not None)
        seconds = time.perf_counter() - self.start
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {values}  {seconds:.1f} s", flush=True)
