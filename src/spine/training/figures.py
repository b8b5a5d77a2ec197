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
from pytorch_lightning.loggers import Logger
from torch import Tensor

from spine.reporting.figures import MAX_IMAGES
from spine.training.loggers.media import log_image


class PredictionFigures(pl.Callback):
    """Draws predictions for samples from the whole evaluated split, into `folder` and the loggers.

    Draws at every evaluation, and during training every `every_n_epochs`.
    """

    def __init__(
        self, folder: str, mean: Sequence[float], std: Sequence[float], loggers: Sequence[Logger] = (), every_n_epochs: int = 0
    ):
        """`mean`, `std`: of the transforms. `every_n_epochs` 0 draws nothing during training."""
        self.folder, self.loggers, self.every_n_epochs = Path(folder), loggers, every_n_epochs
        self.mean, self.std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.kept: list[tuple[dict[str, Tensor], Tensor]] = []

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Normalized images (B, 3, H, W) -> (B, H, W, 3) uint8."""
        pixels = image.detach().float().cpu() * self.std + self.mean
        return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keeps a few samples of this batch, so that the figure has MAX_IMAGES samples from evenly spaced batches."""
        if not self._due(trainer):
            return
        batches = int(trainer.num_val_batches[0])
        spaced = min(MAX_IMAGES, batches)
        if batch_idx in {i * batches // spaced for i in range(spaced)}:
            each = -(-MAX_IMAGES // spaced)
            # copies on the CPU: a view would keep the whole batch in the accelerator's memory
            samples = {key: value[:each].detach().cpu().clone() for key, value in batch.items()}
            self.kept.append((samples, outputs[:each].detach().cpu().clone()))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Draws the figures before the metrics are reset."""
        if not self._due(trainer):
            return
        summary = pl_module.draw_summary()  # on every process: it gathers
        if trainer.is_global_zero and self.kept:
            batch = {key: torch.cat([kept[key] for kept, _ in self.kept]) for key in self.kept[0][0]}
            outputs = torch.cat([kept for _, kept in self.kept])
            for name, figure in {**pl_module.draw(batch, outputs, self.to_pixels), **summary}.items():
                self._write(f"{pl_module.split}_{name}", figure, trainer.global_step)
        self.kept = []

    def _due(self, trainer: pl.Trainer) -> bool:
        if trainer.state.fn != "fit":
            return True
        every = self.every_n_epochs
        return not trainer.sanity_checking and every > 0 and (trainer.current_epoch + 1) % every == 0

    def _write(self, name: str, figure: Figure, step: int) -> None:
        image = render(figure)
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png")
        for logger in self.loggers:
            log_image(logger, name, image, step)


def render(figure: Figure) -> np.ndarray:
    """A figure as (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
