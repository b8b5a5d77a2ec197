"""Predicted classes of pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import overlay
from spine.prediction.items import Item
from spine.prediction.prediction import Color, Prediction, Row
from spine.reporting.figures import palette
from spine.tasks.base import Batch, Task, ToPixels
from spine.tasks.seg.masks import describe_mask, resize_mask

SHARE_DECIMALS = 6  # in predictions.csv


@dataclass(frozen=True, eq=False)
class Segmentation(Prediction):
    """The class of each pixel.

    mask: (H, W) uint8 indices into `labels.mask_classes`, at the size of the image; (classes, H, W) of 0 and 1 if classes may
    overlap. If the transforms of evaluations crop images, it is the mask of the crop. shown: the image or the crop, (H, W, 3) uint8;
    None for the image.
    """

    mask: np.ndarray
    shown: np.ndarray | None = None
    pictures = "overlays"

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        key = "original_size" if "original_size" in inputs else "image_size"
        height, width = inputs[key][0].tolist()
        mask = outputs["mask"][0, ..., :height, :width].contiguous().numpy()
        shown = None if key == "original_size" else to_pixels(inputs["image"][:1, :, :height, :width])[0]
        return cls(item, task.labels, mask, shown)

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels that show each class."""
        names, area = self.labels.mask_classes, self.mask.shape[-2] * self.mask.shape[-1]
        if self.mask.ndim == 3:
            pixels = (self.mask == 1).sum((1, 2))
        else:
            pixels = np.bincount(self.mask.ravel(), minlength=len(names))
        return {name: float(count) / area for name, count in zip(names, pixels.tolist(), strict=False)}

    @property
    def caption(self) -> str:
        """The three largest classes."""
        return describe_mask(self.mask, self.labels.mask_classes)

    @property
    def colors(self) -> np.ndarray:
        """The colors (256, 3) uint8 of the values of masks."""
        names, is_single = self.labels.mask_classes, self.mask.ndim == 2
        return (palette(len(names), self.labels.palette, background=is_single) * 255).round().astype(np.uint8)

    def draw(self) -> np.ndarray:
        """Returns the image under the colors of its classes."""
        image = self.image if self.shown is None else self.shown
        mask = self.mask if image.shape[:2] == self.mask.shape[-2:] else resize_mask(self.mask, image.shape[:2])
        return overlay(image, mask, self.colors)

    def legend(self) -> list[tuple[str, Color]]:
        """Returns the classes that occur."""
        colors = self.colors.tolist()
        return [(name, tuple(colors[i])) for i, (name, share) in enumerate(self.shares.items()) if share > 0]

    def record(self, top_k: int = 5) -> Config:
        """Returns the file, the size of its mask and the share of each class."""
        height, width = self.mask.shape[-2:]
        return {"file": self.name, "height": height, "width": width, "shares": self.shares}

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row: the share of each class is a column."""
        shares = {name: round(share, SHARE_DECIMALS) for name, share in record["shares"].items()}
        return [{"file": record["file"], "height": record["height"], "width": record["width"], **shares}]

    def write(self, folder: Path, stem: str, draw: bool = True) -> dict[str, str]:
        """Writes the mask as a PNG of class indices with a palette, and with `draw` the overlay.

        If classes may overlap, there is one mask of 0 and 255 for each class.
        """
        written = super().write(folder, stem, draw)
        if self.mask.ndim == 2:
            self._write_mask(self.mask, folder / f"masks/{stem}.png", self.colors)
            return {"mask": f"masks/{stem}.png", **written}
        for name, layer in zip(self.labels.mask_classes, self.mask, strict=True):
            self._write_mask(layer * 255, folder / f"masks/{stem}/{name.replace('/', '_')}.png")
        return {"mask": f"masks/{stem}", **written}

    @staticmethod
    def _write_mask(mask: np.ndarray, path: Path, colors: np.ndarray | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(mask)
        if colors is not None:
            image.putpalette(colors.tobytes())  # the mode becomes P: the stored values stay class indices
        image.save(path)
