"""Draws samples of what is evaluated."""

from __future__ import annotations

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

from spine.pictures import SHOWN


class Pictures(pl.Callback):
    """Draws samples from all over an evaluated split, into `folder` and the loggers: at every evaluation, and while training if asked."""

    def __init__(
        self, folder: str, mean: Sequence[float], std: Sequence[float], loggers: Sequence[Logger] = (), every_n_epochs: int = 0
    ):
        """`every_n_epochs` 0 draws nothing while training goes on; mean and std are those of the transforms."""
        self.folder, self.loggers, self.every_n_epochs = Path(folder), loggers, every_n_epochs
        self.mean, self.std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.kept: list[tuple[dict[str, Tensor], Tensor]] = []

    def show(self, image: Tensor) -> np.ndarray:
        """Normalised images (B, 3, H, W) -> (B, H, W, 3) uint8."""
        pixels = image.detach().float().cpu() * self.std + self.mean
        return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps a few samples of this batch, so that the picture holds SHOWN from evenly spaced batches."""
        if not self._due(trainer):
            return
        batches = int(trainer.num_val_batches[0])
        spaced = min(SHOWN, batches)
        if batch_idx in {i * batches // spaced for i in range(spaced)}:
            each = -(-SHOWN // spaced)
            # copies on the CPU: a view would keep the whole batch in the accelerator's memory
            samples = {key: value[:each].detach().cpu().clone() for key, value in batch.items()}
            self.kept.append((samples, outputs[:each].detach().cpu().clone()))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draws them, and the summary of the evaluation, before the metrics start anew."""
        if not self._due(trainer):
            return
        summary = pl_module.draw_summary()  # on every process: it gathers
        if trainer.is_global_zero and self.kept:
            batch = {key: torch.cat([kept[key] for kept, _ in self.kept]) for key in self.kept[0][0]}
            outputs = torch.cat([kept for _, kept in self.kept])
            for name, figure in {**pl_module.draw(batch, outputs, self.show), **summary}.items():
                self._keep(f"{pl_module.split}_{name}", figure, trainer.global_step)
        self.kept = []

    def _due(self, trainer: pl.Trainer) -> bool:
        if trainer.state.fn != "fit":
            return True
        every = self.every_n_epochs
        return not trainer.sanity_checking and every > 0 and (trainer.current_epoch + 1) % every == 0

    def _keep(self, name: str, figure: Figure, step: int) -> None:
        picture = render(figure)
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png")
        for logger in self.loggers:
            log_picture(logger, name, picture, step)


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
