"""Tokens of images, and what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import panels
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row
from spine.tasks.base import Batch, Task, ToPixels
from spine.tokenizers.dvae import STRIDE


@dataclass(frozen=True, eq=False)
class TokenizedImage(Prediction):
    """The tokens of an image, and their reconstruction.

    tokens: (h, w) int64 of the positions down and across. reconstruction, original: (H, W, 3) uint8, at the size of the input.
    """

    tokens: np.ndarray
    reconstruction: np.ndarray
    original: np.ndarray
    pictures, suffix = "reconstructions", ".png"

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        pixels, original = to_pixels(outputs["image"])[0], to_pixels(inputs["image"])[0]
        tokens = outputs["tokens"][0].view(original.shape[0] // STRIDE, original.shape[1] // STRIDE).numpy()
        return cls(item, task.labels, tokens, pixels, original)

    @property
    def error(self) -> float:
        """The mean squared error of the pixels in 0..1."""
        return float((((self.reconstruction.astype(np.float64) - self.original) / 255) ** 2).mean())

    @property
    def caption(self) -> str:
        """The error of the reconstruction."""
        return f"mse {self.error:.4f}"

    def draw(self) -> np.ndarray:
        """Returns the original and the reconstruction side by side."""
        return panels((self.original, self.reconstruction), ("original", "reconstructed"))

    def record(self, top_k: int = 5) -> Config:
        """Returns the file, the error and the tokens."""
        return {"file": self.name, "mse": self.error, "tokens": self.tokens.ravel().tolist()}

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row."""
        return [{"file": record["file"], "mse": record["mse"]}]
