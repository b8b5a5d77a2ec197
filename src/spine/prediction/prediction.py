"""The base of what is predicted for one image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from PIL import Image
from torch import Tensor

from spine.interfaces import Labels
from spine.option_types import Config
from spine.prediction.items import Item
from spine.tasks.base import Batch, Task, ToPixels

Row = dict[str, object]  # of a table, by column
Color = tuple[int, int, int]  # red, green, blue in 0..255
JPEG_QUALITY = 92


@dataclass(frozen=True, eq=False)
class Prediction(ABC):
    """What a model predicts for one image. Each task has a subclass in `spine.prediction.results`.

    item: the image. labels: names of what is predicted.
    pictures: the folder of drawn predictions; None: no picture of its own is written. suffix: of the picture's file.
    """

    item: Item
    labels: Labels
    pictures: ClassVar[str | None] = None
    suffix: ClassVar[str] = ".jpg"

    @classmethod
    @abstractmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item.

        `inputs`, `outputs`: the samples of the item and what `task.predict_batch` returned for them, on the CPU. `to_pixels` turns
        normalized images into pixels.
        """

    @property
    def name(self) -> str:
        """The name of the image, relative to its source."""
        return self.item.name

    @property
    def image(self) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB."""
        return self.item.image

    @property
    @abstractmethod
    def caption(self) -> str:
        """The prediction in a few words."""

    @abstractmethod
    def draw(self) -> np.ndarray:
        """Returns a picture of the prediction (H, W, 3) uint8 RGB."""

    def thumbnail(self) -> np.ndarray:
        """Returns the picture for the contact sheet (H, W, 3) uint8 RGB, which shows the caption below it."""
        return self.draw()

    def legend(self) -> list[tuple[str, Color]]:
        """Returns the names and colors of the classes that the picture shows."""
        return []

    @abstractmethod
    def record(self, top_k: int = 5) -> Config:
        """Returns the prediction as plain values, for predictions.json. `top_k`: number of classes, of classification."""

    @classmethod
    @abstractmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns the rows of a record in predictions.csv."""

    @classmethod
    def result_files(cls, records: list[Config]) -> dict[str, object]:
        """Returns further files of all predictions, by name, with their content in JSON."""
        return {}

    def write(self, folder: Path, stem: str, draw: bool = True) -> dict[str, str]:
        """Writes the files of the prediction. Returns their paths relative to `folder`, for the record.

        `stem`: the name of the image without its suffix, perhaps with folders. `draw`: whether pictures are written.
        """
        if self.pictures is None or not draw:
            return {}
        path = f"{self.pictures}/{stem}{self.suffix}"
        write_image(self.draw(), folder / path)
        return {"picture": path}


def write_image(image: np.ndarray, path: Path) -> None:
    """Writes an image (H, W, 3) uint8 RGB. The suffix of the path determines the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=JPEG_QUALITY)
