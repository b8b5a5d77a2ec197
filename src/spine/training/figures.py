"""Callback that draws predictions during evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spine.reporting.figures import MAX_IMAGES
from spine.tasks.base import Batch, Task
from spine.training.loggers.media import log_image


class PredictionFigures(pl.Callback):
    """Draws predictions for samples of the evaluated split.

    The figures are written to a folder and to the loggers. They are drawn in every evaluation
    outside of training, and every `every_n_epochs` epochs in training.
    """

    def __init__(
        self, folder: str, mean: Sequence[float], std: Sequence[float], loggers: Sequence[Logger] = (), every_n_epochs: int = 0
    ):
        """`mean`, `std`: of the normalization, per channel.

        `every_n_epochs`: 0 draws no figures during training.
        """
        self.folder, self.loggers, self.every_n_epochs = Path(folder), loggers, every_n_epochs
        self.mean, self.std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.samples: list[tuple[Batch, Tensor]] = []  # inputs and outputs

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Converts normalized images (B, 3, H, W) to pixels (B, H, W, 3) uint8."""
        pixels = image.detach().float().cpu() * self.std + self.mean
        return (pixels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects samples from evenly spaced batches, about MAX_IMAGES in total."""
        if not self._due(trainer) or "spare" in batch:
            return
        assert isinstance(outputs, Tensor)
        batches = int(trainer.num_val_batches[0])
        num_selected = min(MAX_IMAGES, batches)
        if batch_idx in {i * batches // num_selected for i in range(num_selected)}:
            count = -(-MAX_IMAGES // num_selected)
            # copies on the CPU: a view would keep the whole batch in the memory of the accelerator
            inputs = {key: value[:count].detach().cpu().clone() for key, value in batch.items()}
            self.samples.append((inputs, outputs[:count].detach().cpu().clone()))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the figures before the metrics are reset."""
        if not self._due(trainer):
            return
        assert isinstance(pl_module, Task)
        figures = pl_module.draw_summary()  # on every process: it gathers the metrics
        if trainer.is_global_zero and self.samples:
            batch = {key: torch.cat([inputs[key] for inputs, _ in self.samples]) for key in self.samples[0][0]}
            outputs = torch.cat([output for _, output in self.samples])
            for name, figure in {**pl_module.draw(batch, outputs, self.to_pixels), **figures}.items():
                self._write(f"{pl_module.split}_{name}", figure, trainer.global_step)
        self.samples = []

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
    """Renders a figure to an image (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
