"""Semantic segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from spine.interfaces import IGNORE_INDEX, TrainingOutputs
from spine.layers.conv import resize_map
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.samples import PREDICTION, TRUTH, SampleView, loss_of_each
from spine.tasks.seg import plots
from spine.tasks.seg.masks import describe_mask
from spine.tasks.seg.metrics import segmentation_scores


class Segmentation(Task):
    """Cross entropy over labeled pixels, with logits resized to the mask. Metrics: mIoU, mAcc, aAcc, and the IoU of each class.

    A loss of one's own is called with logits (B, classes, H, W) and masks (B, H, W), in which 255 means ignored.
    """

    name = "seg"
    monitor: ClassVar[str] = "val/mIoU"

    def __init__(self, **common: Unpack[TaskArguments]):
        super().__init__(**common)
        count = len(self.labels.mask_classes)
        self.confusion = MulticlassConfusionMatrix(count, ignore_index=IGNORE_INDEX, validate_args=False)

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, classes, H, W); in training, the losses of auxiliary outputs are added, with their weights."""
        output, auxiliary = TrainingOutputs.of(self.model(batch["image"]))
        size = batch["mask"].shape[-2:]
        logits = resize_map(output.float(), size)
        loss = self._loss(logits, batch)
        for extra, weight in auxiliary:
            loss = loss + weight * self._loss(resize_map(extra.float(), size), batch)
        return loss, logits

    def _loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        mask = batch["mask"]
        if self.loss is not None:
            return self.loss(logits, mask)
        loss = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="sum")
        return loss / (mask != IGNORE_INDEX).sum().clamp(min=1)  # a batch without labels counts 0, not NaN

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each sample."""
        return loss_of_each(self._loss, output, batch)

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """Both masks, and the shares of their largest classes."""
        names = self.labels.mask_classes
        masks = zip(output.argmax(1).cpu().numpy(), batch["mask"].cpu().numpy(), strict=True)
        return [
            SampleView(
                prediction=describe_mask(found, names),
                truth=describe_mask(true, names),
                masks={PREDICTION: found, TRUTH: true},
                mask_classes=names,
            )
            for found, true in masks
        ]

    def loss_weight(self, batch: Batch) -> float | Tensor:
        """The number of images, each counted by the fraction of its pixels that are labeled."""
        labeled = batch["mask"] != IGNORE_INDEX
        return super().loss_weight(batch) * (labeled.sum() / labeled.numel())

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`mask` (B, H, W): the index of the predicted class of each pixel of the image."""
        image = batch["image"]
        return {"mask": resize_map(self.model(image).float(), tuple(image.shape[-2:])).argmax(1)}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Updates the confusion matrix with one evaluated batch."""
        self.confusion.update(output.argmax(1), batch["mask"])

    def compute_metrics(self) -> dict[str, float]:
        """mIoU, mAcc, aAcc and the IoU of each class, in 0..1."""
        values = segmentation_scores(self.confusion.compute(), self.labels.mask_classes)
        self.confusion.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Images, ground truth masks and predicted masks."""
        truth, prediction = batch["mask"].cpu().numpy(), output.argmax(1).cpu().numpy()
        return {"predictions": plots.segmentation(to_pixels(batch["image"]), truth, prediction, self.labels.mask_classes)}
