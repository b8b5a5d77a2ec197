"""Image classification."""

from __future__ import annotations

from typing import Any, ClassVar

import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from spine import pictures
from spine.tasks.base import Batch, Show, Task

MOST_IN_CONFUSION = 1000  # classes; the matrix of ImageNet-22k would take 3.6 GiB on the device, and no figure could show it


class Classification(Task):
    """Cross entropy with label smoothing; top-1, top-5 where there are more than 5 classes, and up to 1000 classes the confusion matrix."""

    name = "cls"
    monitor: ClassVar[str] = "val/top1"

    def __init__(self, *, smoothing: float = 0.1, **common: Any):
        super().__init__(**common)
        self.smoothing = smoothing
        count = len(self.labels.classes)
        scores: dict[str, Any] = {"top1": MulticlassAccuracy(count, average="micro", validate_args=False)}
        if count > 5:
            scores["top5"] = MulticlassAccuracy(count, top_k=5, average="micro", validate_args=False)
        self.scores = MetricCollection(scores, compute_groups=False)
        small = count <= MOST_IN_CONFUSION
        self.confusion = MulticlassConfusionMatrix(count, validate_args=False) if small else None

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, classes)."""
        logits = self.model(batch["image"]).float()
        smoothing = self.smoothing if self.training else 0.0
        return F.cross_entropy(logits, batch["label"], label_smoothing=smoothing), logits

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Takes one evaluated batch into accuracy and, where there is one, the confusion matrix."""
        self.scores.update(output, batch["label"])
        if self.confusion is not None:
            self.confusion.update(output, batch["label"])

    def compute_metrics(self) -> dict[str, float]:
        """top1 and top5 in 0..1."""
        values = {name: float(value) for name, value in self.scores.compute().items()}
        self.scores.reset()
        if self.confusion is not None:
            self.confusion.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, show: Show) -> dict[str, Figure]:
        """Images with true and predicted class."""
        truth, answer = batch["label"].tolist(), output.argmax(1).tolist()
        return {"predictions": pictures.classification(show(batch["image"]), truth, answer, self.labels.classes)}

    def draw_summary(self) -> dict[str, Figure]:
        """The confusion matrix of the split, up to 1000 classes."""
        if self.confusion is None:
            return {}
        return {"confusion": pictures.confusion(self.confusion.compute().cpu().numpy(), self.labels.classes)}
