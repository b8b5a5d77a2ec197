"""Boxes of objects in images, from a JSON file: for keypoints, which are predicted in boxes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spine.data.coco_json import JsonObject, read_json
from spine.data.image_files import Size, format_names
from spine.errors import InputError

FORMATS = (
    "annotations in COCO's format, a list of detections with image_id or file_name, bbox and score, or a dictionary from file "
    "names to lists of [x, y, width, height, score]"
)


class FileBoxes(NamedTuple):
    """The boxes of one image.

    boxes: (n, 4) float32: x, y, width, height. scores: (n,) float32. image_id: that of the file of boxes, if it has one.
    size: (height, width) of the image that the boxes are for, if it is known.
    """

    boxes: np.ndarray
    scores: np.ndarray
    image_id: int | None = None
    size: Size | None = None


class BoxTable:
    """The boxes of all images, by their names."""

    def __init__(self, boxes: Mapping[str, FileBoxes], path: str):
        self.boxes, self.path = boxes, path
        self.by_base_name = {os.path.basename(name): found for name, found in boxes.items()}

    def of_file(self, name: str) -> FileBoxes:
        """Returns the boxes of an image, by its path in the source, else by its file name, else by the number in it.

        COCO names images by their numbers: 000000000785.jpg is image 785. An image that is not in the table has no boxes.
        """
        base = os.path.basename(name)
        stem = os.path.splitext(base)[0]
        number = f"#{int(stem)}" if stem.isdigit() else ""
        empty = FileBoxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))
        return self.boxes.get(name) or self.by_base_name.get(base) or self.boxes.get(number) or empty

    def check(self, names: Sequence[str]) -> None:
        """Raises InputError if no image has a box."""
        if not any(len(self.of_file(name).boxes) for name in names):
            known = format_names((name.lstrip("#") for name in self.boxes), 4)
            raise InputError(
                f"No image has a box in '{self.path}': it is for {known}, and the images are {format_names(names, 4)}."
            )


def read_boxes(path: str | Path, min_score: float = 0.0) -> BoxTable:
    """Reads a file of boxes: FORMATS. Boxes with a score below `min_score`, or without an area, are left out.

    Raises InputError if the file is missing, or of another format.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no file of boxes '{path}'. It is a JSON file: {FORMATS}.")
    content = read_json(Path(path))
    sizes: dict[str, tuple[int | None, Size | None]] = {}
    rows: list[tuple[str, Sequence[float], float]] = []
    if isinstance(content, dict) and isinstance(content.get("annotations"), list) and isinstance(content.get("images"), list):
        images = {_field(each, "id", path): each for each in content["images"]}
        sizes = {str(_field(each, "file_name", path)): (int(each["id"]), _size(each)) for each in images.values()}
        rows = [row for each in content["annotations"] if (row := _annotated(each, images, path)) is not None]
    elif isinstance(content, list):
        rows = [(_image_of(each, path), _field(each, "bbox", path), each.get("score", 1.0)) for each in content]
    elif isinstance(content, dict):
        rows = [(name, box[:4], (*box, 1.0)[4]) for name, boxes in content.items() for box in _lists(boxes, path)]
    else:
        raise InputError(f"'{path}' is no file of boxes; it holds {FORMATS}.")
    return BoxTable(_grouped(rows, sizes, min_score, path), str(path))


def _grouped(
    rows: Sequence[tuple[str, Sequence[float], float]],
    sizes: Mapping[str, tuple[int | None, Size | None]],
    min_score: float,
    path: str | Path,
) -> dict[str, FileBoxes]:
    """Groups boxes by their images."""
    groups: dict[str, list[list[float]]] = {name: [] for name in sizes}
    for name, box, score in rows:
        try:
            numbers = [*map(float, box), float(score)]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) != 5 or not np.isfinite(numbers).all():
            raise InputError(f"A box of '{name.lstrip('#')}' in '{path}' is {box}; it should be x, y, width, height.")
        own = groups.setdefault(name, [])
        if numbers[4] >= min_score and min(numbers[2:4]) > 0:
            own.append(numbers)
    tables = {name: np.array(group, np.float32).reshape(-1, 5) for name, group in groups.items()}
    return {name: FileBoxes(table[:, :4], table[:, 4], *_number_and_size(name, sizes)) for name, table in tables.items()}


def _number_and_size(name: str, sizes: Mapping[str, tuple[int | None, Size | None]]) -> tuple[int | None, Size | None]:
    return (int(name[1:]), None) if name.startswith("#") else sizes.get(name, (None, None))


def _annotated(
    each: JsonObject, images: Mapping[object, JsonObject], path: str | Path
) -> tuple[str, Sequence[float], float] | None:
    """Returns image, box and score of an annotation. None for a crowd, which is not one object."""
    number = _field(each, "image_id", path)
    if number not in images:
        raise InputError(f"'{path}' has a box in image {number}, which it does not list.")
    if each.get("iscrowd", 0):
        return None
    return str(images[number]["file_name"]), _field(each, "bbox", path), each.get("score", 1.0)


def _image_of(each: object, path: str | Path) -> str:
    """Returns the image of a detection: its file name, or # and its number."""
    if isinstance(each, dict) and "file_name" in each:
        return str(each["file_name"])
    number = _field(each, "image_id", path)
    return f"#{number}" if isinstance(number, int) else str(number)


def _field(each: object, key: str, path: str | Path) -> Any:
    if not isinstance(each, dict) or key not in each:
        raise InputError(f"An entry of '{path}' has no '{key}'. A file of boxes holds {FORMATS}.")
    return each[key]


def _lists(boxes: object, path: str | Path) -> list[list[float]]:
    if not isinstance(boxes, list) or not all(isinstance(box, list) and len(box) in (4, 5) for box in boxes):
        raise InputError(f"'{path}' is no file of boxes; it holds {FORMATS}.")
    return boxes


def _size(image: JsonObject) -> Size | None:
    return (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
