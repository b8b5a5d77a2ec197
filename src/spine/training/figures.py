"""Callback that draws predictions and the worst samples of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytorch_lightning as pl
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor

from spine.data.collation import collate
from spine.data.transforms.pipeline import to_pixels
from spine.interfaces import IGNORE_INDEX, DataSet, Sample
from spine.layers.image_sizes import stack_padded
from spine.reporting.figures import MAX_IMAGES
from spine.reporting.tables import classes_file, write_results, write_rows
from spine.tasks.base import Batch, Task
from spine.tasks.samples import SampleView
from spine.training.loggers.run_logger import run_loggers
from spine.training.ranked_samples import EvaluatedSample, RankedSamples, write_samples


class PredictionFigures(pl.Callback):
    """Draws predictions for samples of the evaluated split, and for those with the highest losses and, for some tasks, the lowest.

    The figures are written to a folder and to the loggers. They are drawn in every evaluation
    outside of training, and every `every_n_epochs` epochs in training.
    """

    def __init__(
        self,
        folder: str,
        mean: Sequence[float],
        std: Sequence[float],
        loggers: Sequence[Logger] = (),
        every_n_epochs: int = 0,
        channels: str = "rgb",
    ):
        """`mean`, `std`: of the normalization, for red, green and blue. `channels`: their order in the images.

        `every_n_epochs`: 0 draws no figures during training.
        """
        self.folder, self.loggers, self.every_n_epochs = Path(folder), run_loggers(loggers), every_n_epochs
        self.mean, self.std, self.channels = mean, std, channels
        self.samples: list[tuple[Batch, Tensor]] = []  # inputs and outputs
        self.worst, self.best = RankedSamples(MAX_IMAGES), RankedSamples(MAX_IMAGES, lowest=True)

    def to_pixels(self, image: Tensor) -> np.ndarray:
        """Converts normalized images (B, 3, H, W) to pixels (B, H, W, 3) uint8."""
        return to_pixels(image, self.mean, self.std, self.channels)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collects samples from evenly spaced batches, about MAX_IMAGES in total, and the worst and best ones of all batches."""
        if not self._due(trainer) or "spare" in batch:
            return
        assert isinstance(outputs, Tensor)
        self._rank(pl_module, outputs, batch)
        batches = int(trainer.num_val_batches[0])
        num_selected = min(MAX_IMAGES, batches)
        if batch_idx in {i * batches // num_selected for i in range(num_selected)}:
            count = -(-MAX_IMAGES // num_selected)
            # copies on the CPU: a view would keep the whole batch in the memory of the accelerator
            inputs = {key: value[:count].detach().cpu().clone() for key, value in batch.items()}
            self.samples.append((inputs, outputs[:count].detach().cpu().clone()))

    @torch.no_grad()
    def _rank(self, task: pl.LightningModule, output: Tensor, batch: Batch) -> None:
        if isinstance(task, Task) and "index" in batch and (losses := task.sample_losses(output, batch)) is not None:
            for ranked in (self.worst, self.best) if task.shows_best else (self.worst,):
                ranked.update(losses, output, batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draws the figures before the metrics are reset."""
        if not self._due(trainer):
            return
        assert isinstance(pl_module, Task)
        figures, confusion = pl_module.draw_summary(), pl_module.confusion_counts()  # on every process: they gather the metrics
        classes = pl_module.table_of_classes()
        worst, best = self.worst.gather(trainer.world_size), self.best.gather(trainer.world_size)
        results = pl_module.result_file()
        if trainer.is_global_zero:
            for name, figure in figures.items():
                self._write(f"{pl_module.split}_{name}", figure, trainer.global_step)
            if classes:
                write_rows(classes_file(self.folder.parent, pl_module.split), classes)
            if results is not None:
                write_results(self.folder.parent / f"{pl_module.split}_{results[0]}.json", results[1])
            if confusion is not None:
                for logger in self.loggers:
                    logger.log_confusion(f"{pl_module.split}_confusion_matrix", *confusion, trainer.global_step)
            if self.samples:
                self._draw_samples(pl_module, trainer.global_step)
            if worst:
                self._draw_ranked(pl_module, "worst", worst, trainer)
            if best:
                self._draw_ranked(pl_module, "best", best, trainer)
        self.samples = []

    def _draw_samples(self, task: Task, step: int) -> None:
        """Draws the collected samples."""
        singles = [
            ({key: value[i] for key, value in inputs.items()}, output[i])
            for inputs, output in self.samples
            for i in range(len(output))
        ]
        batch, outputs = _stack(singles)
        for name, figure in task.draw(batch, outputs, self.to_pixels).items():
            self._write(f"{task.split}_{name}", figure, step)
        views = self._views(task, batch, outputs)
        for logger in self.loggers:
            logger.log_samples(f"{task.split}_samples", views, step)

    def _draw_ranked(self, task: Task, kind: str, samples: Sequence[EvaluatedSample], trainer: pl.Trainer) -> None:
        """Draws the "worst" or the "best" samples, and writes their table."""
        batch, outputs = _stack([(sample.inputs, sample.output) for sample in samples])
        step, title = trainer.global_step, "highest losses" if kind == "worst" else "lowest losses"
        for name, figure in task.draw(batch, outputs, self.to_pixels).items():
            figure.suptitle(f"{title}: {'  '.join(f'{sample.loss:.3g}' for sample in samples)}", fontsize=9)
            self._write(f"{task.split}_{kind}_{name}", figure, step)
        data = task.evaluated_data()
        views = [
            replace(view, loss=sample.loss, index=sample.index, file=_file(data, sample.index))
            for view, sample in zip(self._views(task, batch, outputs), samples, strict=True)
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_samples(self.folder / f"{task.split}_{kind}_samples.csv", views)
        for logger in self.loggers:
            logger.log_samples(f"{task.split}_{kind}_samples", views, step)

    def _views(self, task: Task, batch: Batch, outputs: Tensor) -> list[SampleView]:
        views, pixels = task.view_samples(outputs, batch), list(self.to_pixels(batch["image"]))
        if "image_size" in batch:  # without the padding
            sizes = batch["image_size"].tolist()
            pixels = [image[:height, :width] for image, (height, width) in zip(pixels, sizes, strict=True)]
        return [replace(view, image=image) for view, image in zip(views, pixels, strict=True)]

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
            logger.log_figure(name, image, step)


def _stack(samples: Sequence[tuple[Batch, Tensor]]) -> tuple[Batch, Tensor]:
    """Returns one batch of single samples and their outputs, which may have different sizes."""
    batch = collate([cast(Sample, inputs) for inputs, _ in samples])
    return batch, stack_padded([output for _, output in samples], IGNORE_INDEX)


def render(figure: Figure) -> np.ndarray:
    """Renders a figure to an image (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _file(data: DataSet | None, index: int) -> str:
    """Returns the image file of a sample, or nothing if it has no file of its own or the data set is not one of spine."""
    files = data.files(index) if data is not None else []
    return files[0] if files else ""
