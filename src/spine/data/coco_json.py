"""Reads and checks JSON files in COCO's format: annotations of keypoints, and the boxes of a detector."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spine.data import faults
from spine.data.image_files import Size, format_names, log_warning
from spine.errors import InputError
from spine.interfaces import KeypointAnnotations

JsonObject = dict[str, Any]  # of a file
OUTSIDE = 1.0  # pixels by which a labeled keypoint may be outside of its image without a warning


class KeypointFile:
    """An annotation file: its images, and the annotations of the first category with keypoints."""

    def __init__(self, path: Path, fields: Sequence[str], names: Sequence[str] | int | None):
        """`fields`: the lists of an annotation that hold its keypoints, in order. `names`: of the keypoints, or their number;
        None for those of the category.

        Raises InputError if the file is not in COCO's format.
        """
        self.path, self.fields = path, fields
        content = _read_content(path)
        _check_keys(content, "images", ("id", "file_name"), path)
        _check_keys(content, "annotations", ("id", "image_id", "category_id"), path)
        _check_keys(content, "categories", ("id",), path)
        self.category = _find_category(content["categories"], path, any_category=names is not None)
        self.names = _names(names, self.category)
        self.images = {image["id"]: image for image in content["images"]}
        number = self.category["id"]
        self.annotations = [each for each in content["annotations"] if each["category_id"] == number]

    def keypoints(self, annotation: JsonObject) -> np.ndarray:
        """Returns the keypoints (K, 3) float64 of an annotation.

        Raises InputError if they are not K, if a coordinate or the area is not finite, or if its image is not in the file.
        """
        values = self._values(annotation)
        count, number = len(self.names), annotation["id"]
        if not values:  # some files have none for crowds
            return np.zeros((count, 3))
        if len(values) != 3 * count:
            raise InputError(
                f"Annotation {number} in '{self.path}' has {len(values)} numbers for {count} keypoints, not {3 * count}."
            )
        if annotation["image_id"] not in self.images:
            raise InputError(
                f"Annotation {number} in '{self.path}' is of image {annotation['image_id']}, which the file does not list."
            )
        try:
            numbers = np.array([*values, *_box(annotation), area_of(annotation)], np.float64)
        except (TypeError, ValueError, IndexError):
            numbers = np.full(1, np.nan)
        if len(numbers) != 3 * count + 5 or not np.isfinite(numbers).all():
            raise InputError(
                f"Annotation {number} in '{self.path}' has a coordinate or an area that is not a number, or a bbox that is not x, y, "
                f"width, height. Correct or remove it."
            )
        return numbers[:-5].reshape(count, 3)

    def _values(self, annotation: JsonObject) -> list[Any]:
        """Returns x, y, visibility of all keypoints of an annotation in one list. Raises InputError if they are not in lists."""
        lists = [annotation.get(field) or [] for field in self.fields]
        if not all(isinstance(each, list) for each in lists):
            raise InputError(
                f"Annotation {annotation['id']} in '{self.path}' has keypoints that are not a list of x, y, visibility, x, ..."
            )
        return [value for each in lists for value in each]

    def samples(self) -> Iterator[tuple[JsonObject, np.ndarray]]:
        """Yields the annotations of labeled single objects with their keypoints (K, 3).

        The COCO protocol ignores predictions for all others. A box without an area is left out too. Logs warnings about these, and
        about keypoints outside of their images.
        """
        empty: list[int] = []
        outside: list[tuple[int, int]] = []  # annotation, number of its keypoints
        for annotation in self.annotations:
            if annotation.get("iscrowd", 0) or not self._is_labeled(annotation):
                continue
            try:
                keypoints = self.keypoints(annotation)
            except InputError as error:
                faults.report("annotation", str(error), [self.path])
                continue
            if number := self._count_outside(annotation["image_id"], keypoints):
                outside.append((annotation["id"], number))
            if min(_box(annotation)[2:]) > 0:
                yield annotation, keypoints
            else:
                empty.append(annotation["id"])
        if empty:
            log_warning(
                f"{len(empty)} labeled objects in '{self.path}' have a box without an area and are no samples; the first is "
                f"annotation {empty[0]}."
            )
        if outside and not faults.is_collecting():  # the doctor reports them with pictures
            log_warning(
                f"{sum(number for _, number in outside)} labeled keypoints in '{self.path}' are outside of their images, the first in "
                f"annotation {outside[0][0]}. They are trained on only where a crop contains them, and they are evaluated."
            )

    def _is_labeled(self, annotation: JsonObject) -> bool:
        """Whether a keypoint is labeled. True also for one that is not a number, which `keypoints` refuses."""
        return any(not isinstance(visibility, int | float) or visibility > 0 for visibility in self._values(annotation)[2::3])

    def _count_outside(self, image_id: int, keypoints: np.ndarray) -> int:
        """Returns the number of labeled keypoints (K, 3) outside of their image."""
        if (size := self.size(image_id)) is None:
            return 0
        high = np.array([size[1] - 1, size[0] - 1]) + OUTSIDE
        beyond = (keypoints[:, :2] < -OUTSIDE) | (keypoints[:, :2] > high)
        return int((beyond.any(1) & (keypoints[:, 2] > 0)).sum())

    def size(self, image_id: int) -> Size | None:
        """Returns the (height, width) of an image, or None if the file does not state it."""
        image = self.images[image_id]
        return (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None

    def all_objects(self, folder: Path) -> KeypointAnnotations:
        """Returns all objects of the category. `folder`: of the images."""
        objects = [each for each in self.annotations if any(field in each for field in self.fields)]
        count = len(self.names)
        keypoints = np.array([self.keypoints(each) for each in objects]).reshape(-1, count, 3)
        visible = (keypoints[:, :, 2] > 0).sum(1)
        stated = len(self.fields) == 1  # num_keypoints is the number of those in `keypoints`
        return KeypointAnnotations(
            path=str(self.path),
            category=self.category["id"],
            images={key: (str(folder / image["file_name"]), self.size(key)) for key, image in self.images.items()},
            image_ids=np.array([each["image_id"] for each in objects], np.int64),
            keypoints=keypoints,
            boxes=np.array([_box(each) for each in objects], np.float64).reshape(-1, 4),
            areas=np.array([area_of(each) for each in objects], np.float64),
            crowd=np.array([bool(each.get("iscrowd", 0)) for each in objects], bool),
            labeled=np.array(
                [each.get("num_keypoints", found) if stated else found for each, found in zip(objects, visible, strict=True)],
                np.int64,
            ),
        )


def area_of(annotation: JsonObject) -> float:
    """Returns the area of an object: that of the file, else that of its box."""
    area = annotation.get("area")
    box = _box(annotation)
    return float(box[2] * box[3] if area is None else area)


def read_detections(path: Path, annotations: KeypointAnnotations) -> list[JsonObject]:
    """Returns the boxes of a detector, a list of COCO's results: image_id, bbox, score.

    Boxes of other categories, of images that the annotations do not list, and without an area are left out, with a warning.
    Raises InputError if none is left, or if the file is not a list of boxes.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(
            f"'{path}' is not a file of detections, which is a list of objects with image_id, category_id, bbox and score."
        )
    if not content:
        raise InputError(f"'{path}' is an empty list: it has no detections.")
    for place, each in enumerate(content):
        _check_detection(each, place, path)
    of_category = [each for each in content if each["category_id"] == annotations.category]
    if not of_category:
        found = format_names(sorted({each["category_id"] for each in content}))
        raise InputError(
            f"'{path}' has no detection of category {annotations.category}, that of the keypoints in '{annotations.path}'; "
            f"it has the categories {found}."
        )
    known = [each for each in of_category if each["image_id"] in annotations.images]
    if not known:
        raise InputError(
            f"'{path}' has no detection in an image of '{annotations.path}': image_id {of_category[0]['image_id']} is not among them. "
            f"Give the detections of the split that is evaluated."
        )
    usable = [each for each in known if min(each["bbox"][2:]) > 0]
    for number, reason in (
        (len(of_category) - len(known), f"in images that '{annotations.path}' does not list"),
        (len(known) - len(usable), "without an area"),
    ):
        if number:
            log_warning(f"{number} of {len(of_category)} boxes in '{path}' are {reason}; they are left out.")
    if not usable:
        raise InputError(f"All boxes in '{path}' are without an area.")
    return usable


def _check_detection(each: object, place: int, path: Path) -> None:
    """Raises InputError if an entry of a file of detections is not a box with a score."""
    keys = ("image_id", "category_id", "bbox", "score")
    if not isinstance(each, dict) or any(key not in each for key in keys):
        raise InputError(f"Entry {place} of '{path}' is not a detection, which has {', '.join(keys)}.")
    box = each["bbox"]
    numbers = [*box, each["score"]] if isinstance(box, list) else []
    if len(numbers) != 5 or not all(isinstance(value, int | float) and np.isfinite(value) for value in numbers):
        raise InputError(f"Entry {place} of '{path}' needs a bbox of four numbers, x, y, width, height, and a score.")


def read_json(path: Path) -> object:
    """Returns the content of a JSON file. Raises InputError if it is not JSON."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"'{path}' is not JSON ({error}).") from error


def _read_content(path: Path) -> JsonObject:
    """Reads an annotation file. Raises InputError if it is not in COCO's format."""
    content = read_json(path)
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        raise InputError(f"'{path}' is not in COCO's format: it needs the lists {', '.join(keys)}.")
    return content


def _check_keys(content: JsonObject, name: str, keys: Sequence[str], path: Path) -> None:
    """Raises InputError if an entry of a list of an annotation file does not have the keys."""
    for place, entry in enumerate(content[name]):
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise InputError(f"Entry {place} of the list '{name}' in '{path}' is not an object with {', '.join(keys)}.")


def _find_category(categories: Sequence[JsonObject], path: Path, any_category: bool) -> JsonObject:
    """Returns the first category with keypoints, or with `any_category` the first one if none has keypoints."""
    found = next((each for each in categories if each.get("keypoints")), None)
    if found is None and any_category and categories:
        found = categories[0]
    if found is None:
        raise InputError(
            f"'{path}' has no category with keypoints; it may be a file of boxes or of captions. If its annotations have keypoints "
            f"without names, set dataset.names to a list of names, or to their number."
        )
    return found


def _names(given: Sequence[str] | int | None, category: JsonObject) -> tuple[str, ...]:
    if given is None:
        return tuple(category["keypoints"])
    return tuple(map(str, range(given))) if isinstance(given, int) else tuple(given)


def _box(annotation: Mapping[str, Any]) -> list[float]:
    return annotation.get("bbox") or [0.0, 0.0, 0.0, 0.0]
