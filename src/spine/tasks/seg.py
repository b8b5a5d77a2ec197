"""Semantic segmentation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from spine import pictures
from spine.blocks.conv import resize_map
from spine.interfaces import IGNORE_INDEX
from spine.metrics import segmentation_scores
from spine.tasks.base import Batch, Show, Task


class Segmentation(Task):
    """Cross entropy over labelled pixels, logits resized to the mask; mIoU, mAcc, aAcc, and the IoU of each class."""

    name = "seg"
    monitor: ClassVar[str] = "val/mIoU"

    def __init__(self, **common: Any):
        super().__init__(**common)
        count = len(self.labels.mask_classes)
        self.confusion = MulticlassConfusionMatrix(count, ignore_index=IGNORE_INDEX, validate_args=False)

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, classes, H, W)."""
        mask = batch["mask"]
        logits = resize_map(self.model(batch["image"]).float(), tuple(mask.shape[-2:]))
        loss = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX, reduction="sum")
        return loss / (mask != IGNORE_INDEX).sum().clamp(min=1), logits  # a batch without a label counts nothing, and is no NaN

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Takes one evaluated batch into the confusion matrix."""
        self.confusion.update(output.argmax(1), batch["mask"])

    def compute_metrics(self) -> dict[str, float]:
        """mIoU, mAcc, aAcc and the IoU of each class, in 0..1."""
        values = segmentation_scores(self.confusion.compute(), self.labels.mask_classes)
        self.confusion.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, show: Show) -> dict[str, Figure]:
        """Images, true masks and predicted masks."""
        truth, answer = batch["mask"].cpu().numpy(), output.argmax(1).cpu().numpy()
        return {"predictions": pictures.segmentation(show(batch["image"]), truth, answer, self.labels.mask_classes)}
