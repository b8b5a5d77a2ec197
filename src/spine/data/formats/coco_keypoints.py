"""Keypoints from any JSON in COCO's format: one sample a labelled object."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spine.data.image_files import Size, check_images, need_file, need_root, read_image, report
from spine.data.keypoint_flips import find_flip_pairs
from spine.data.splits import Splits, chosen_name, place, split_folder
from spine.errors import InputError
from spine.interfaces import DataSet, Labels

# cocoeval's, in the order of COCO's seventeen keypoints
COCO_SIGMAS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087, .089, .089)  # fmt: skip
YEARS = ("", "2017", "2014")  # behind the names of COCO's splits
Pairs = tuple[tuple[int, int], ...]


class COCOKeypoints(DataSet):
    """Names and skeleton come from the file; flip pairs and sigmas from the yaml, the file or the names.

    Boxes and keypoints are in pixels of the image as the file's width and height have it: no EXIF rotation is applied where these are
    the stored ones.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "keypoints"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "{split}",
        annotations: str = "annotations/person_keypoints_{split}.json",
        splits: Splits | None = None,
        flip_pairs: list[tuple[int, int]] | None = None,
        sigmas: list[float] | float | None = None,
    ):
        """`images`, `annotations`: a folder and a file relative to root. {split} is the name of the split in `splits`, else the split, or
        the split with a year of COCO behind it (train2017). Without {split}, `images` means its sub-folder of the split where there is
        one, and `annotations=faces.json` faces_<split>.json.

        `flip_pairs` from 0; None pairs the names that differ in left and right, [] says that no keypoint changes places in a mirrored
        image. `sigmas`: one a keypoint, or one for all.
        """
        base = need_root(root, "coco_keypoints")
        self.folder, self.path = self._find(base, images, annotations, split, splits)
        content = self._read(self.path)
        category = next((c for c in content["categories"] if c.get("keypoints")), None)
        if category is None:
            raise InputError(f"'{self.path}' has no category with keypoints; it may be a file of boxes or of captions.")
        names = tuple(category["keypoints"])
        pairs, can_flip = self._flip_pairs(flip_pairs if flip_pairs is not None else category.get("flip_pairs"), names)
        self.labels = Labels(
            keypoints=names,
            skeleton=tuple((a - 1, b - 1) for a, b in category.get("skeleton", [])),  # COCO counts from 1
            flip_pairs=pairs,
            sigmas=self._sigmas(sigmas if sigmas is not None else category.get("sigmas"), names, str(self.path)),
            can_flip=can_flip,
        )
        files = {image["id"]: image for image in content["images"]}
        self.items = [
            self._item(a, files, len(names), str(self.path)) for a in content["annotations"] if self._usable(a, category)
        ]
        if not self.items:
            raise InputError(f"'{self.path}' has no annotation with a labelled keypoint.")

    @staticmethod
    def _find(base: Path, images: str, annotations: str, split: str, splits: Splits | None) -> tuple[Path, Path]:
        """Folder and file of a split: the first name of the split for which both are there."""
        chosen = chosen_name(split, splits)
        tried = [chosen] if chosen else [split + year for year in YEARS]
        found = [(place(base, images, name), _annotation_file(base, annotations, name)) for name in tried]
        there = [pair for pair in found if pair[0].is_dir()] or found
        folder, path = next((pair for pair in there if pair[1].is_file()), there[0])
        folder = folder if folder.is_dir() else split_folder(base, images, split, splits)
        if split != "train" and "{split}" not in annotations and path == base / annotations:
            report(f"Split '{split}' reads '{path}', as every split does: give dataset.annotations with {{split}} in it.")
        return folder, need_file(path, f"the {split} annotations")

    @staticmethod
    def _read(path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"'{path}' is not JSON ({error}).") from error
        keys = ("images", "annotations", "categories")
        if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
            raise InputError(f"'{path}' is not in COCO's format: it needs the lists {', '.join(keys)}.")
        return content

    def check(self, needs: frozenset[str]) -> None:
        """InputError where image files are missing, or where one of a few that are read does not have the size of the annotations."""
        files: dict[str, Size | None] = {item["file"]: item["size"] for item in self.items}
        with os.scandir(self.folder) as entries:
            present = {entry.name for entry in entries}
        missing = [name for name in files if name not in present and not (self.folder / name).is_file()]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(files)} images that '{self.path}' lists are not in '{self.folder}'; the first is '{missing[0]}'."
            )
        check_images([(self.folder / name, size) for name, size in files.items()])

    @staticmethod
    def _usable(annotation: dict[str, Any], category: dict[str, Any]) -> bool:
        """Labelled single objects with a box, as the COCO protocol with given boxes counts them."""
        return (
            annotation.get("category_id") == category["id"]
            and not annotation.get("iscrowd", 0)
            and any(annotation.get("keypoints", [])[2::3])
            and min(annotation.get("bbox", [0, 0, 0, 0])[2:]) > 0
        )

    @staticmethod
    def _item(annotation: dict[str, Any], files: dict[int, dict[str, Any]], count: int, path: str) -> dict[str, Any]:
        keypoints = np.array(annotation["keypoints"], np.float32)
        if keypoints.size != 3 * count:
            raise InputError(
                f"Annotation {annotation['id']} in '{path}' has {keypoints.size} numbers for {count} keypoints, not {3 * count}."
            )
        if annotation["image_id"] not in files:
            raise InputError(
                f"Annotation {annotation['id']} in '{path}' is of image {annotation['image_id']}, which the file does not list."
            )
        box, image = np.array(annotation["bbox"], np.float32), files[annotation["image_id"]]
        size = (int(image["height"]), int(image["width"])) if image.get("height") and image.get("width") else None
        return {
            "file": image["file_name"],
            "size": size,
            "keypoints": keypoints.reshape(count, 3),
            "box": box,
            "area": float(annotation.get("area") or box[2] * box[3]),
            "image_id": int(annotation["image_id"]),
        }

    @staticmethod
    def _flip_pairs(given: Sequence[Sequence[int]] | None, names: tuple[str, ...]) -> tuple[Pairs, bool]:
        """Pairs, and whether they are known to be all: names alone must leave no keypoint open."""
        if given is None:
            found, unknown = find_flip_pairs(names)
            return found, not unknown and (bool(found) or len(names) == 1)
        if bad := [pair for pair in given if len(pair) != 2 or not all(0 <= i < len(names) for i in pair)]:
            raise InputError(f"Flip pair {tuple(bad[0])} is not of keypoints 0 to {len(names) - 1}.")
        members = [i for pair in given for i in pair]
        if twice := [i for i in members if members.count(i) > 1]:
            raise InputError(
                f"Keypoint {twice[0]} ('{names[twice[0]]}') stands in two flip pairs; it changes places with one other."
            )
        return tuple((int(a), int(b)) for a, b in given), True

    @staticmethod
    def _sigmas(given: Any, names: tuple[str, ...], path: str) -> tuple[float, ...]:
        if given is None and len(names) == len(COCO_SIGMAS) and names[0] == "nose":
            given = COCO_SIGMAS
        if given is None:
            raise InputError(
                f"'{path}' names no sigmas for its {len(names)} keypoints, and the object keypoint similarity needs them. "
                f"Set dataset.sigmas to a list, or to one number such as 0.05."
            )
        sigmas = (float(given),) * len(names) if isinstance(given, int | float) else tuple(map(float, given))
        if len(sigmas) != len(names) or min(sigmas) <= 0:
            raise InputError(f"{len(sigmas)} sigmas were given for {len(names)} keypoints; each needs one above zero.")
        return sigmas

    def __len__(self) -> int:
        """Number of labelled objects."""
        return len(self.items)

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, keypoints (K, 3) float32, box (4,), area, image_id."""
        item = dict(self.items[index])
        return {"image": read_image(self.folder / item.pop("file"), item.pop("size"), upright=False), **item}


def _annotation_file(base: Path, pattern: str, name: str) -> Path:
    """The file of a split: {split} replaced; else `<stem>_<name>.json`, or `<folder>/<name>.json`, or the path itself."""
    if "{split}" in pattern:
        return base / pattern.replace("{split}", name)
    path = base / pattern
    beside = path / f"{name}.json" if path.is_dir() else path.with_name(f"{path.stem}_{name}{path.suffix}")
    return beside if beside.is_file() else path
