"""Image classification."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from spine.errors import InputError
from spine.option_types import Config
from spine.reporting.figures import confusion
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.cls import plots
from spine.tasks.cls.losses import TrainingLoss
from spine.tasks.cls.metrics import Calibration, ClassCounts, expected_calibration_error
from spine.tasks.cls.several_classes import UNKNOWN, Results, SeveralClassesScores, binary_cross_entropy
from spine.tasks.samples import SampleView, loss_of_each

MAX_CLASSES_IN_CONFUSION = 1000  # the matrix of ImageNet-22k would take 3.6 GiB on the device, and no figure could show it


class Classification(Task):
    """Cross entropy with label smoothing, or binary cross entropy. Metrics: top-1; top-5 with more than 5 classes.

    Up to 1000 classes there is a confusion matrix.
    An evaluation outside of training also measures each class, and the calibration up to 1000 classes.

    Evaluation has the plain cross entropy, so that the losses of all recipes can be compared. A loss of one's own is called with logits
    (B, classes) and labels (B,), or with the shares of mixed labels (B, classes).

    If images may have several classes (`Labels.several_classes`), each class has a sigmoid, and the loss is binary cross entropy. Labels
    are (B, classes) float32 of 0 and 1, and 255 where unknown, which is left out. Metrics: mAP, which selects the best checkpoint, F1 and
    the share of images whose classes are all right.
    """

    name = "cls"
    monitor: ClassVar[str] = "val/top1"

    def __init__(
        self,
        *,
        smoothing: float = 0.1,
        bce_loss: bool = False,
        bce_sum: bool = False,
        bce_target_thresh: float | None = None,
        class_weights: Sequence[float] | Literal["balanced"] | None = None,
        threshold: float = 0.5,
        **common: Unpack[TaskArguments],
    ):
        """`smoothing`: of the labels in training. `bce_loss`: binary cross entropy of each class in training, averaged over the classes,
        or summed with `bce_sum`; `bce_target_thresh`: targets above it become 1, all others 0.

        `class_weights`: factor of the training loss of each class; "balanced" for factors in inverse proportion to the number of training
        samples of a class. Losses are averaged over images. `threshold`: with several classes per image, the probability above which an
        image is predicted to have a class.
        """
        super().__init__(**common)
        self.loss_options: Config = {
            "smoothing": smoothing, "bce_loss": bce_loss, "bce_sum": bce_sum, "bce_target_thresh": bce_target_thresh,
            "class_weights": class_weights, "threshold": threshold,
        }  # fmt: skip
        self.several, self.threshold = self.labels.several_classes, threshold
        self.criterion = TrainingLoss(
            self.labels.classes, smoothing, bce_loss, bce_sum, bce_target_thresh, class_weights, self.several
        )
        count = len(self.labels.classes)
        self.several_scores: SeveralClassesScores | None = None
        if self.several:
            self.monitor = "val/mAP"  # type: ignore[misc]
            self.several_scores = SeveralClassesScores(count, threshold)
        scores: dict[str, Metric | MetricCollection] = {"top1": MulticlassAccuracy(count, average="micro", validate_args=False)}
        if count > 5 and not self.several:
            scores["top5"] = MulticlassAccuracy(count, top_k=5, average="micro", validate_args=False)
        self.scores = MetricCollection({} if self.several else scores, compute_groups=False)
        small = count <= MAX_CLASSES_IN_CONFUSION and not self.several
        self.confusion = MulticlassConfusionMatrix(count, validate_args=False) if small else None
        self.counts, self.calibration = ClassCounts(count), Calibration() if small else None
        self.measures_all = False  # also classes and calibration

    def need_one_class(self, protocol: str) -> None:
        """Raises InputError if images may have several classes, for protocols that choose one."""
        if self.several:
            raise InputError(
                f"protocol={protocol} needs images of one class each, and these may have several. Use protocol=finetune."
            )

    def options(self) -> Config:
        """Those of the training loss."""
        return dict(self.loss_options)

    def on_fit_start(self) -> None:
        """Counts the training samples of each class, for balanced class weights."""
        if self.criterion.unbalanced:
            self.criterion.balance(self.trainer.datamodule.split("train").class_indices())  # type: ignore[attr-defined]

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, classes). Training has a loss of its own."""
        logits = self.model(batch["image"]).float()
        return self._loss(logits, batch), logits

    def _loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if self.loss is not None:
            return self.loss(logits, batch.get("target", batch["label"]))
        if self.training:
            return self.criterion(logits, batch.get("target", batch["label"]))
        return (binary_cross_entropy if self.several else F.cross_entropy)(logits, batch["label"])

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each sample."""
        return loss_of_each(self._loss, output, batch)

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """The names of the predicted class, with its probability, and of the ground truth. With several classes per image, those of all."""
        names = self.labels.classes
        if self.several:
            return [
                SampleView(
                    prediction=", ".join(f"{names[i]} ({scores[i]:.0%})" for i in np.flatnonzero(scores > self.threshold)),
                    truth=", ".join(names[i] for i in np.flatnonzero(truth == 1)),
                )
                for scores, truth in zip(output.sigmoid().cpu().numpy(), batch["label"].cpu().numpy(), strict=True)
            ]
        confidence, predicted = output.softmax(1).max(1)
        return [
            SampleView(prediction=f"{names[found]} ({score:.0%})", truth=names[true])
            for found, score, true in zip(predicted.tolist(), confidence.tolist(), batch["label"].tolist(), strict=True)
        ]

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`label` (B,): the index of the predicted class; `probabilities` (B, classes).

        With several classes per image, `label` is (B, classes) bool: whether the probability of a class is above the threshold.
        """
        if self.several:
            probabilities = self.model(batch["image"]).float().sigmoid()
            return {"label": probabilities > self.threshold, "probabilities": probabilities}
        probabilities = self.model(batch["image"]).float().softmax(1)
        return {"label": probabilities.argmax(1), "probabilities": probabilities}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Updates the accuracy and the confusion matrix with one evaluated batch."""
        if self.several_scores is not None:
            self.several_scores.update(output, batch["label"])
            return
        self.scores.update(output, batch["label"])
        if self.confusion is not None:
            self.confusion.update(output, batch["label"])
        if self.measures_all:
            self.counts.update(output, batch["label"])
            if self.calibration is not None:
                index = batch.get("index", torch.arange(len(output), device=output.device))
                self.calibration.update(output, batch["label"], index)

    def on_validation_epoch_start(self) -> None:
        """Measures classes and calibration too, outside of training."""
        super().on_validation_epoch_start()
        self.measures_all = self.trainer.state.fn != "fit"

    def compute_metrics(self) -> dict[str, float]:
        """top1 and top5 in 0..1; outside of training `ece`, `ece_scaled` after temperature scaling, and `temperature`.

        With several classes per image `mAP`, `F1_macro`, `F1_micro` and `exact_match`, see `Results.metrics`.
        """
        if self.several_scores is not None:
            found = self.several_scores.compute().metrics()
            self.several_scores.reset()
            return found
        values = {name: float(value) for name, value in self.scores.compute().items()}
        if self.measures_all and self.calibration is not None:
            reliability = self.calibration.compute()
            values["ece"] = expected_calibration_error(reliability.unscaled)
            values["ece_scaled"] = expected_calibration_error(reliability.scaled)
            values["temperature"] = float(reliability.temperature)
        for metric in (self.scores, self.confusion, self.counts, self.calibration):
            if metric is not None:
                metric.reset()
        return values

    def table_of_classes(self) -> list[dict[str, object]]:
        """Images, accuracy and precision of each class, outside of training; AP, F1, precision and recall if images have several."""
        if not self.measures_all:
            return []
        if self.several_scores is not None:
            return self._rows_of_several(self.several_scores.compute())
        images, predictions, hits = self.counts.compute().tolist()
        return [
            {"class": name, "images": n, "accuracy": right / n if n else None, "precision": right / said if said else None}
            for name, n, said, right in zip(self.labels.classes, images, predictions, hits, strict=True)
        ]

    def _rows_of_several(self, results: Results) -> list[dict[str, object]]:
        numbers = (
            results.images, results.average_precision, results.f1, results.hits / results.predicted, results.hits / results.images,
        )  # fmt: skip
        rows = zip(self.labels.classes, *(values.tolist() for values in numbers), strict=True)
        names = ("AP", "F1", "precision", "recall")
        return [
            {"class": name, "images": int(images)}
            | {key: None if math.isnan(value) else value for key, value in zip(names, values, strict=True)}
            for name, images, *values in rows
        ]

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Images with ground truth and predicted class, or classes."""
        if self.several:
            views, images = self.view_samples(output, batch), to_pixels(batch["image"])
            right = ((output.sigmoid() > self.threshold) == (batch["label"] == 1)) | (batch["label"] == UNKNOWN)
            return {"predictions": plots.several_classes(images, views, right.all(1).tolist())}
        truth, prediction = batch["label"].tolist(), output.argmax(1).tolist()
        return {"predictions": plots.classification(to_pixels(batch["image"]), truth, prediction, self.labels.classes)}

    def confusion_counts(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """The confusion matrix of the split, up to 1000 classes."""
        if self.confusion is None:
            return None
        return self.confusion.compute().cpu().numpy(), self.labels.classes

    def draw_summary(self) -> dict[str, Figure]:
        """The confusion matrix of the split, up to 1000 classes, and outside of training the reliability diagram."""
        counts = self.confusion_counts()
        figures = {} if counts is None else {"confusion": confusion(*counts)}
        if self.measures_all and self.calibration is not None:
            figures["calibration"] = plots.reliability(self.calibration.compute())
        return figures
