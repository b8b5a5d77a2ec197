"""Keypoints from any JSON in COCO's format: one sample a labelled object."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np

from spine.datasets.files import need_file, need_folder, need_root, read_image
from spine.errors import InputError
from spine.interfaces import DataSet, Labels

# cocoeval's, in the order of COCO's seventeen keypoints
COCO_SIGMAS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087, .089, .089)  # fmt: skip


class COCOKeypoints(DataSet):
    """Names and skeleton come from the file; flip pairs and sigmas from the file, the yaml or the names."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "keypoints"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "{split}",
        annotations: str = "annotations/person_keypoints_{split}.json",
        flip_pairs: list[tuple[int, int]] | None = None,
        sigmas: list[float] | float | None = None,
    ):
        """`flip_pairs` from 0; None pairs the names that differ in left and right. `sigmas`: one a keypoint, or one for all."""
        base = need_root(root, "coco_keypoints")
        self.folder = need_folder(base / images.format(split=split), f"the {split} images")
        path = need_file(base / annotations.format(split=split), f"the {split} annotations")
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise InputError(f"'{path}' is not JSON ({error}).") from error
        categories = [c for c in content.get("categories", []) if c.get("keypoints")] if isinstance(content, dict) else []
        if not categories:
            raise InputError(f"'{path}' has no category with keypoints; it may be a file of boxes or of captions.")
        category = categories[0]
        names = tuple(category["keypoints"])
        self.labels = Labels(
            keypoints=names,
            skeleton=tuple((a - 1, b - 1) for a, b in category.get("skeleton", [])),  # COCO counts from 1
            flip_pairs=self._flip_pairs(flip_pairs or category.get("flip_pairs"), names),
            sigmas=self._sigmas(sigmas if sigmas is not None else category.get("sigmas"), names, str(path)),
        )
        files = {image["id"]: image["file_name"] for image in content["images"]}
        self.items = [self._item(a, files, len(names), str(path)) for a in content["annotations"] if self._usable(a, category)]
        if not self.items:
            raise InputError(f"'{path}' has no annotation with a labelled keypoint.")

    @staticmethod
    def _usable(annotation: dict[str, Any], category: dict[str, Any]) -> bool:
        """Labelled single objects with a box, as the COCO protocol with given boxes counts them."""
        return (
            annotation.get("category_id") == category["id"]
            and not annotation.get("iscrowd", 0)
            and any(annotation.get("keypoints", [])[2::3])
            and min(annotation["bbox"][2:]) > 0
        )

    @staticmethod
    def _item(annotation: dict[str, Any], files: dict[int, str], count: int, path: str) -> dict[str, Any]:
        keypoints = np.array(annotation["keypoints"], np.float32)
        if keypoints.size != 3 * count:
            raise InputError(
                f"Annotation {annotation['id']} in '{path}' has {keypoints.size} numbers for {count} keypoints, not {3 * count}."
            )
        if annotation["image_id"] not in files:
            raise InputError(
                f"Annotation {annotation['id']} in '{path}' is of image {annotation['image_id']}, which the file does not list."
            )
        box = np.array(annotation["bbox"], np.float32)
        return {
            "file": files[annotation["image_id"]],
            "keypoints": keypoints.reshape(count, 3),
            "box": box,
            "area": float(annotation.get("area") or box[2] * box[3]),
            "image_id": int(annotation["image_id"]),
        }

    @staticmethod
    def _flip_pairs(given: Any, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
        if given is not None:
            if bad := [pair for pair in given if not all(0 <= i < len(names) for i in pair)]:
                raise InputError(f"Flip pair {tuple(bad[0])} is not of keypoints 0 to {len(names) - 1}.")
            return tuple((int(a), int(b)) for a, b in given)
        return tuple(
            (i, names.index(name.replace("left", "right")))
            for i, name in enumerate(names)
            if "left" in name and name.replace("left", "right") in names
        )

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
        return {"image": read_image(self.folder / item.pop("file")), **item}
