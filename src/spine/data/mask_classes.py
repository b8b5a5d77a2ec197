"""The classes of masks: maps what files store, values or colors, to class indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from spine.data import faults
from spine.data.image_files import format_names
from spine.data.masks import read_mask, read_mask_colors
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Palette

NUM_VALUES = 1 << 16  # that masks can store
IGNORED = "ignored"  # key of a color map for the colors of unlabeled pixels
Color = tuple[int, int, int]  # red, green, blue in 0..255
LabelMap = Mapping[int, int | str | None]  # stored value -> index or name of a class, None for ignored pixels
ColorMap = Mapping[str, Color | list[Color]]  # name of a class -> its color or colors


class MaskClasses:
    """The names and colors of the classes of masks, and how files store them. `read` opens a mask.

    Files store class indices, values that `label_map` maps to classes, or colors of `color_map`.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        ignore_index: int | Sequence[int] | None = None,
        reduce_zero_label: bool = False,
        label_map: LabelMap | None = None,
        color_map: ColorMap | Literal["palette"] | None = None,
        palette: Sequence[Color] | None = None,
    ):
        """`names`: of the classes. The other arguments: see `MaskFolder`.

        Raises InputError for a value, a class or a color out of range, or if options exclude each other.
        """
        self.names = tuple(names)
        self.palette = _palette(palette, color_map, self.names)
        self.values: ValueTable | None = None
        self.colors: tuple[np.ndarray, np.ndarray] | None = None
        if color_map is None:
            self.values = value_table(
                self.names, ignore_index=ignore_index, reduce_zero_label=reduce_zero_label, label_map=label_map
            )
            return
        if ignore_index is not None or reduce_zero_label or label_map is not None:
            raise InputError(
                f"dataset.color_map maps colors to classes; ignore_index, reduce_zero_label and label_map are for masks that store "
                f"numbers. Leave them out, and list the colors of unlabeled pixels in dataset.color_map.{IGNORED}."
            )
        if color_map == "palette":
            if not self.palette:
                raise InputError(
                    "dataset.color_map is 'palette', which reads the colors of dataset.palette, and that is not set."
                )
            color_map = dict(zip(self.names, self.palette, strict=True))
        self.colors = color_table(color_map, self.names)

    def read(self, path: str | Path) -> np.ndarray:
        """Returns the classes of a mask's pixels, (H, W) uint8, with IGNORE_INDEX for unlabeled ones.

        Raises InputError if the file is not a mask, with all values or colors that have no class.
        """
        if self.values is not None:
            return self.of_stored(path, read_mask(path))
        assert self.colors is not None
        stored = _codes(read_mask_colors(path))
        codes, known = self.colors
        position = np.minimum(np.searchsorted(codes, stored), len(codes) - 1)
        if (missing := codes[position] != stored).any():
            faults.report("unknown_colors", self._color_message(path, np.unique(stored[missing])), [path])
        return known[position]

    def of_stored(self, path: str | Path, stored: np.ndarray) -> np.ndarray:
        """Returns the classes (H, W) uint8 of stored values (H, W) of masks without colors. `path`: for messages.

        Raises InputError with all values that have no class.
        """
        assert self.values is not None
        classes, unknown = self.values.classes_of(stored)
        if len(unknown):
            faults.report("unknown_values", self._value_message(path, unknown), [path], np.unique(stored))
        return classes

    def _value_message(self, path: str | Path, unknown: np.ndarray) -> str:
        values = unknown.tolist()
        plural = "s" if len(values) > 1 else ""
        count = len(self.names)
        message = f"Mask '{path}' holds the value{plural} {format_names(values, 20)}, which none of the {count} classes has. "
        if 255 in values:
            message += (
                'If 255 is a class, such as foreground, map it: "dataset.label_map={0: 0, 255: 1}"; '
                "if it means 'unlabeled', set dataset.ignore_index=255. "
            )
        return (
            f"{message}List every class in dataset.classes, map stored values with dataset.label_map, or set dataset.ignore_index to "
            f"the value that means 'unlabeled'."
        )

    def _color_message(self, path: str | Path, unknown: np.ndarray) -> str:
        colors = [[code >> 16, code >> 8 & 255, code & 255] for code in unknown.tolist()]
        plural = "s" if len(colors) > 1 else ""
        return (
            f"Mask '{path}' holds the color{plural} {format_names(colors, 5)}, which none of the {len(self.names)} classes has. Add "
            f"every color to dataset.color_map, those of unlabeled pixels as {IGNORED}. Many colors come from a mask that was resized "
            f"with interpolation; use the original one."
        )


# ---- stored values ---------------------------------------------------------------------------------------------------


class ValueTable(NamedTuple):
    """The class of each value that a mask can store, (65536,)."""

    classes: np.ndarray  # uint8, IGNORE_INDEX for ignored values
    unknown: np.ndarray  # uint8, 1 for values that have no class

    def classes_of(self, stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the classes of stored values, uint8 in the same shape, and those of the values that have no class."""
        if stored.dtype == np.uint8:  # OpenCV needs a third of NumPy's time
            classes, unknown = (cv2.LUT(stored, table[:256]).reshape(stored.shape) for table in self)
        else:
            classes, unknown = (table[stored] for table in self)
        return classes, np.unique(stored[unknown > 0]) if unknown.any() else stored[:0].ravel()


def value_table(
    names: Sequence[str],
    *,
    ignore_index: int | Sequence[int] | None = None,
    reduce_zero_label: bool = False,
    label_map: LabelMap | None = None,
) -> ValueTable:
    """Returns the table of a label map.

    Values are ignored by `ignore_index`, by None in `label_map`, and 0 by `reduce_zero_label`. 255
    has no special meaning. Raises InputError for a value or class out of range, or if the options
    exclude each other.
    """
    ignored = [] if ignore_index is None else [ignore_index] if isinstance(ignore_index, int) else list(ignore_index)
    if label_map is not None and reduce_zero_label:
        raise InputError("dataset.label_map and dataset.reduce_zero_label exclude each other: map the value 0 to null instead.")
    if label_map is None:
        first = 1 if reduce_zero_label else 0
        label_map = {first + index: index for index in range(len(names))}
        ignored += [0] if reduce_zero_label else []
    given = {_stored_value(value, "label_map"): _class_index(value, index, names) for value, index in label_map.items()}
    given |= {_stored_value(value, "ignore_index"): IGNORE_INDEX for value in ignored}
    table = ValueTable(np.zeros(NUM_VALUES, np.uint8), np.ones(NUM_VALUES, np.uint8))
    table.classes[list(given)], table.unknown[list(given)] = list(given.values()), 0
    return table


def _class_index(value: int, given: int | str | None, names: Sequence[str]) -> int:
    """Returns the index of the class, given by index or name, to which `label_map` maps a stored value."""
    if given is None:
        return IGNORE_INDEX
    index = list(names).index(given) if isinstance(given, str) and given in names else given
    if isinstance(index, str) or not 0 <= index < len(names):
        raise InputError(
            f"dataset.label_map maps {value} to {given}; there are {len(names)} classes, 0 to {len(names) - 1} "
            f"({format_names(names, 4)}), and null for ignored pixels."
        )
    return index


def _stored_value(value: int | str, key: str) -> int:
    """Returns a stored value as a number; JSON turns the keys of a map into strings.

    `key` of the option, for messages.
    """
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number < NUM_VALUES:
        raise InputError(f"dataset.{key} has the stored value {value}; masks store integers from 0 to 65535.")
    return number


# ---- colors ----------------------------------------------------------------------------------------------------------


def color_table(color_map: ColorMap, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the codes of the colors (N,), ascending, and the class of each (N,) uint8.

    Raises InputError for a name that is no class, a class without a color, a color out of range, or
    one that two classes have.
    """
    if missing := [name for name in names if not color_map.get(name)]:
        raise InputError(f"dataset.color_map has no color for the class {format_names(missing)}.")
    classes: dict[int, int] = {}
    for name, given in color_map.items():
        if name not in names and name != IGNORED:
            raise InputError(
                f"dataset.color_map has the key '{name}', which is no class. Classes: {format_names(names)}, and {IGNORED} for "
                f"unlabeled pixels."
            )
        index = list(names).index(name) if name in names else IGNORE_INDEX
        for color in _colors(given):
            code = int(_codes(np.array(_checked(color, "color_map"))))
            if classes.setdefault(code, index) != index:
                raise InputError(f"dataset.color_map gives the color {list(color)} to two classes; '{name}' is the second one.")
    codes = np.array(sorted(classes), np.int32)
    return codes, np.array([classes[code] for code in codes.tolist()], np.uint8)


def _palette(palette: Sequence[Color] | None, color_map: ColorMap | Literal["palette"] | None, names: Sequence[str]) -> Palette:
    """Returns the color of each class for figures, by default the first one in the color map. Empty if there are none."""
    if palette is None:
        given = {} if color_map is None or color_map == "palette" else color_map
        return tuple(_checked(_colors(given[name])[0], "color_map") for name in names if given.get(name))
    return check_palette(palette, names)


def check_palette(palette: Sequence[Color] | None, names: Sequence[str]) -> Palette:
    """Returns the color of each class, empty if none are given. Raises InputError if it has another number of colors, or wrong ones."""
    if palette is not None and len(palette) != len(names):
        raise InputError(
            f"dataset.palette has {len(palette)} colors for {len(names)} classes; it has one for each, in their order."
        )
    return tuple(_checked(color, "palette") for color in palette or ())


def _colors(given: Color | list[Color]) -> list[Color]:
    """Returns the colors of a class, which are given as one color or as a list."""
    return [given] if given and isinstance(given[0], int) else list(given)


def _checked(color: Sequence[int], key: str) -> Color:
    if len(color) != 3 or not all(0 <= value <= 255 for value in color):
        raise InputError(f"dataset.{key} has the color {list(color)}; a color is three numbers [red, green, blue], 0 to 255.")
    return int(color[0]), int(color[1]), int(color[2])


def _codes(colors: np.ndarray) -> np.ndarray:
    """Returns colors (..., 3) as one number each, red * 65536 + green * 256 + blue."""
    red, green, blue = np.moveaxis(colors.astype(np.int32), -1, 0)
    return red << 16 | green << 8 | blue
