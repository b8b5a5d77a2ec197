"""Predicted keypoints of the objects in an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, cast

import numpy as np
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import draw_skeleton, side_colors
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row
from spine.tasks.base import Batch, Task, ToPixels
from spine.tasks.pose.metrics import coco_result
from spine.tasks.pose.rescoring import keep_objects, rescore
from spine.tasks.pose.task import Pose, crop_areas, size_of

MANY = 40  # keypoints; those of faces are drawn as smaller points
THRESHOLD = 0.2  # score of a keypoint, up to which it is not drawn


@dataclass(frozen=True, eq=False)
class Keypoints(Prediction):
    """The keypoints of n objects, in pixels of the image.

    keypoints: (n, K, 3) float32: x, y, score. boxes: (n, 4) float32: x, y, width, height of the objects. scores: (n,): the score of
    the box times that of the keypoints. kept: the indices of the objects that remain when duplicates are removed, as in evaluations,
    in the order of COCO's results.
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    kept: list[int]
    pictures = "overlays"

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        count, rules = len(task.labels.keypoints), cast(Pose, task).protocol
        if not inputs:
            return cls(item, task.labels, np.zeros((0, count, 3), np.float32), np.zeros((0, 4), np.float32), np.zeros(0), [])
        keypoints = outputs["keypoints"].numpy()
        found = keypoints.astype(np.float64)
        box_scores = inputs["box_score"].numpy().astype(np.float64)
        areas = crop_areas(inputs["affine"], size_of(inputs["image"])).numpy().astype(np.float64)
        ids = np.full(len(found), item.number)
        scores = rescore(found[..., 2], box_scores, rules.rescore)
        sigmas = np.array(task.labels.sigmas)
        kept = keep_objects(found[..., :2], scores, areas, ids, sigmas, rules.oks_nms, rules.soft_oks_nms)
        return cls(item, task.labels, keypoints, inputs["box"].numpy(), scores, [int(i) for i in kept])

    @property
    def caption(self) -> str:
        """The number of objects and the mean score of their keypoints."""
        if not self.kept:
            return "no object"
        mean = self.keypoints[self.kept][..., 2].mean()
        return f"{len(self.kept)} object{'s' * (len(self.kept) > 1)}, mean score {mean:.2f}"

    def draw(self) -> np.ndarray:
        """Returns the image with the skeletons of the objects that are kept."""
        image, labels = self.image.copy(), self.labels
        colors = side_colors(labels.keypoints, labels.flip_pairs)
        for i in self.kept:
            side = float(np.sqrt(max(self.boxes[i, 2] * self.boxes[i, 3], 1.0)))
            scale = max(1.0, side / (90 if len(labels.keypoints) > MANY else 45))
            draw_skeleton(image, self.keypoints[i], labels.skeleton, colors, min(scale, max(image.shape) / 130), THRESHOLD)
        return image

    def record(self, top_k: int = 5) -> Config:
        """Returns the file, its size and its objects."""
        objects = [
            {"box": box, "score": score, "keypoints": points}
            for box, score, points in zip(self.boxes.tolist(), self.scores.tolist(), self.keypoints.tolist(), strict=True)
        ]
        height, width = self.item.size
        return {
            "file": self.name,
            "image_id": self.item.number,
            "height": height,
            "width": width,
            "names": self.labels.keypoints,
            "objects": objects,
            "kept": self.kept,
        }

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row for each keypoint of each object."""
        return [
            {
                "file": record["file"],
                "object": number,
                "object_score": each["score"],
                "keypoint": name,
                "x": x,
                "y": y,
                "score": score,
            }
            for number, each in enumerate(record["objects"])
            for name, (x, y, score) in zip(record["names"], each["keypoints"], strict=True)
        ]

    @classmethod
    def result_files(cls, records: list[Config]) -> dict[str, object]:
        """Returns keypoints.json: the kept objects of all images in COCO's results format, with the names of their files."""
        found = []
        for record in records:
            for each in (record["objects"][i] for i in record["kept"]):
                keypoints = np.array(each["keypoints"], np.float64)
                found.append({**coco_result(keypoints, each["score"], record["image_id"]), "file_name": record["file"]})
        return {"keypoints.json": found}
