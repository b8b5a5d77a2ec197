"""Reconstructions of masked images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import hide_patches, masked_pixels, panels
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row
from spine.tasks.base import Batch, Task, ToPixels


@dataclass(frozen=True, eq=False)
class Reconstruction(Prediction):
    """An image, as the network saw it, whose masked patches are predictions.

    reconstruction, original: (H, W, 3) uint8, at the size of the network's input. patch_mask: (h, w) bool of the patches down and
    across, True = masked. The mask depends on the seed of the run and on the place of the image in the source.
    """

    reconstruction: np.ndarray
    original: np.ndarray
    patch_mask: np.ndarray
    pictures, suffix = "reconstructions", ".png"

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        mask = outputs["patch_mask"][0].view(*task.model.grid).numpy()  # type: ignore[misc]
        return cls(item, task.labels, to_pixels(outputs["image"])[0], to_pixels(inputs["image"])[0], mask)

    @property
    def masked(self) -> np.ndarray:
        """What the network saw of the image, (H, W, 3) uint8: masked patches are gray."""
        return hide_patches(self.original, self.patch_mask)

    @property
    def error(self) -> float:
        """The mean squared error of the masked pixels in 0..1."""
        difference = (self.reconstruction.astype(np.float64) - self.original) / 255
        masked = difference[masked_pixels(self.patch_mask, self.original)]
        return float((masked**2).mean()) if len(masked) else 0.0

    @property
    def caption(self) -> str:
        """The error of the masked pixels."""
        return f"mse {self.error:.4f} of masked pixels"

    def draw(self) -> np.ndarray:
        """Returns the masked image, the reconstruction and the original side by side."""
        return panels((self.masked, self.reconstruction, self.original), ("masked", "reconstructed", "original"))

    def record(self, top_k: int = 5) -> Config:
        """Returns the file, its number of masked patches and their error."""
        return {"file": self.name, "masked_patches": int(self.patch_mask.sum()), "mse": self.error}

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row."""
        return [{key: record[key] for key in ("file", "masked_patches", "mse")}]
