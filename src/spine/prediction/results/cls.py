"""Predicted classes of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import enlarge, with_lines
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row
from spine.tasks.base import Batch, Task, ToPixels

DRAWN = 5  # classes in a picture


class ClassProbability(NamedTuple):
    """A class with its probability in 0..1. `index`: of the output of the network."""

    name: str
    probability: float
    index: int  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Classification(Prediction):
    """The probabilities of the classes, (classes,) float32.

    `threshold`: if images may have several classes, the probability above which an image has a class; otherwise None.
    """

    probabilities: np.ndarray
    threshold: float | None = None

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        threshold = float(task.options()["threshold"]) if task.labels.several_classes else None
        return cls(item, task.labels, outputs["probabilities"][0].numpy(), threshold)

    @property
    def label(self) -> str:
        """The name of the most probable class."""
        return self.top(1)[0].name

    def top(self, count: int = 5) -> list[ClassProbability]:
        """Returns the most probable classes, the most probable one first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [ClassProbability(self.labels.classes[i], float(self.probabilities[i]), int(i)) for i in order]

    @property
    def classes(self) -> list[ClassProbability]:
        """The predicted classes, the most probable one first: one, or with a threshold all above it."""
        if self.threshold is None:
            return self.top(1)
        return [each for each in self.top(len(self.probabilities)) if each.probability > self.threshold]

    @property
    def caption(self) -> str:
        """The most probable class with its probability, or all classes above the threshold."""
        if self.threshold is not None:
            return ", ".join(f"{each.name} {each.probability:.0%}" for each in self.classes[:DRAWN]) or "none"
        best = self.top(1)[0]
        return f"{best.name} {best.probability:.1%}"

    def draw(self) -> np.ndarray:
        """Returns the image with the most probable classes below it."""
        lines = [f"{each.probability:6.1%}  {each.name}" for each in self.top(DRAWN)]
        return with_lines(enlarge(self.image, 224), lines)

    def thumbnail(self) -> np.ndarray:
        """Returns the image."""
        return self.image

    def record(self, top_k: int = 5) -> Config:
        """Returns the file and its `top_k` most probable classes, or all classes above the threshold."""
        chosen = self.top(top_k) if self.threshold is None else self.classes
        found = [{"class": each.name, "index": each.index, "probability": each.probability} for each in chosen]
        return {"file": self.name, "classes": found}

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row for each class."""
        return [
            {"file": record["file"], "rank": rank, "class": each["class"], "probability": each["probability"]}
            for rank, each in enumerate(record["classes"], start=1)
        ]
