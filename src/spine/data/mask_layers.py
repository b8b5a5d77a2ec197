"""Masks of classes that may overlap: one layer for each class, of which each pixel is 0 or 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from spine.data import faults
from spine.data.image_files import format_names
from spine.data.mask_classes import Color, ValueTable, check_palette, value_table
from spine.data.masks import read_mask, read_mask_channels
from spine.errors import InputError

STATES = ("absent", "present")  # 0 and 1 of a layer
DEFAULT_MAP = {0: 0, 1: 1, 255: 1}  # stored value -> state
Layout = Literal["files", "channels"]


class MaskLayers:
    """The names and colors of classes that may overlap, and how files store them. `read` opens the masks of an image.

    There is a file for each class ("files"), or a channel of one file ("channels"). Files store 0 where a class is absent, and 1
    or 255 where it is present.
    """

    def __init__(
        self,
        names: Sequence[str],
        layout: Layout,
        *,
        ignore_index: int | Sequence[int] | None = None,
        label_map: Mapping[int, int | str | None] | None = None,
        palette: Sequence[Color] | None = None,
    ):
        """`names`: of the classes. `label_map`: stored value -> 0 or 1, or None for ignored pixels. The other arguments: see
        `MaskFolder`. Raises InputError for a value or a color out of range.
        """
        self.names, self.layout = tuple(names), layout
        self.palette = check_palette(palette, self.names)
        self.values: ValueTable = value_table(STATES, ignore_index=ignore_index, label_map=label_map or DEFAULT_MAP)

    def read(self, *paths: str | Path) -> np.ndarray:
        """Returns the layers of an image, (H, W, classes) uint8: 0, 1, and IGNORE_INDEX for unlabeled pixels.

        `paths`: one file, or one for each class; a class with an empty path does not occur. Raises InputError for a file that is
        not a mask, for values that are neither 0 nor 1, and if the files have different sizes.
        """
        if self.layout == "channels":
            return self._states(paths[0], read_mask_channels(paths[0], len(self.names)))
        layers = {path: self._states(path, read_mask(path)) for path in paths if path}
        first, size = next((path, layer.shape) for path, layer in layers.items())
        if other := next((path for path, layer in layers.items() if layer.shape != size), None):
            raise InputError(
                f"Mask '{first}' is {size[0]}x{size[1]} (height x width), and that of another class of the image, '{other}', is "
                f"{layers[other].shape[0]}x{layers[other].shape[1]}; they must have the same size."
            )
        absent = np.zeros(size, np.uint8)
        return np.stack([layers[path] if path else absent for path in paths], axis=-1)

    def _states(self, path: str | Path, stored: np.ndarray) -> np.ndarray:
        states, unknown = self.values.classes_of(stored)
        if len(unknown):
            plural = "s" if len(unknown) > 1 else ""
            faults.report(
                "unknown_values",
                f"Mask '{path}' holds the value{plural} {format_names(unknown.tolist(), 20)}; masks of classes that may overlap hold 0 "
                f"where a class is absent, and 1 or 255 where it is present. Map other values with dataset.label_map, such as "
                f"\"dataset.label_map={{0: 0, 128: 1}}\", or set dataset.ignore_index to the value that means 'unlabeled'.",
                [path],
                np.unique(stored),
            )
        return states
