"""Objects that a detector found in the images of a data set, for the evaluation of keypoints with detected boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.coco_json import JsonObject, read_detections
from spine.data.image_files import check_images, need_file, read_image
from spine.errors import InputError
from spine.interfaces import DataSet, KeypointAnnotations, RawSample


class DetectedObjects(DataSet):
    """The boxes of a detector. Each is one sample without labeled keypoints, with the score of its box."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "keypoints"})

    def __init__(self, data: DataSet, path: str, threshold: float = 0.0):
        """`data`: the annotated images. `path`: a JSON file of detections in COCO's results format. Boxes with a score below
        `threshold` are left out.

        Raises InputError if the data set has no file of annotations, or if no detection belongs to it.
        """
        annotations = data.keypoint_annotations()
        if annotations is None:
            raise InputError(
                "task.bbox_file needs a data set with the images and annotations of a file in COCO's format, such as coco_keypoints."
            )
        self.data, self.labels, self.annotations = data, data.labels, annotations
        self.path = need_file(path, "the detections of task.bbox_file")
        found = read_detections(self.path, annotations)
        kept = [each for each in found if each["score"] >= threshold]
        if not kept:
            highest = max(each["score"] for each in found)
            raise InputError(f"The highest score in '{path}' is {highest:g}, below task.bbox_threshold={threshold:g}.")
        self.image_ids = np.array([each["image_id"] for each in kept], np.int64)
        self.boxes, self.scores = _boxes(kept), np.array([each["score"] for each in kept], np.float32)

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.boxes)

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images. Raises InputError if files are missing or broken."""
        used = [self.annotations.images[number] for number in dict.fromkeys(self.image_ids.tolist())]
        if missing := [path for path, _ in used if not Path(path).is_file()]:
            raise InputError(f"{len(missing)} of {len(used)} images in '{self.path}' are missing; the first is '{missing[0]}'.")
        check_images(used)

    def files(self, index: int) -> list[str]:
        """Returns the image file of a box."""
        return [self.annotations.images[int(self.image_ids[index])][0]]

    def shared_files(self) -> list[str]:
        """Returns the files of annotations and of detections."""
        return [*self.data.shared_files(), str(self.path)]

    def keypoint_annotations(self) -> KeypointAnnotations:
        """Returns the annotated objects of the data set."""
        return self.annotations

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8, keypoints (K, 3) without labels, box (4,), area, image_id and box_score."""
        number = int(self.image_ids[index])
        path, size = self.annotations.images[number]
        box = self.boxes[index]
        return {
            "image": read_image(path, size, upright=False),
            "keypoints": np.zeros((len(self.labels.keypoints), 3), np.float32),
            "box": box,
            "area": float(box[2] * box[3]),
            "image_id": number,
            "box_score": float(self.scores[index]),
        }


def _boxes(detections: Sequence[JsonObject]) -> np.ndarray:
    return np.array([each["bbox"] for each in detections], np.float32)
