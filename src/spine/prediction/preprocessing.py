"""Images of any size -> samples, with the transforms of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from spine.data.building import build_step
from spine.data.data_module import make_sample
from spine.data.sampler import Draw
from spine.data.transforms import Step, Transform
from spine.data.transforms.pipeline import group_steps
from spine.interfaces import RawSample, Sample, SampleExtra
from spine.prediction.description import ModelDescription

Boxes = np.ndarray  # (n, 4) float32: x, y, width, height of each object, in pixels of the image


def evaluation_steps(description: ModelDescription) -> list[Step]:
    """Builds the transforms of evaluations. Raises InputError if one is not allowed, or does not take its options."""
    codec = description.task_options.get("codec")
    return [build_step(f"augment.eval[{i}]", node, codec) for i, node in enumerate(description.eval_steps)]


def with_own_sizes(description: ModelDescription, steps: Sequence[Step]) -> ModelDescription:
    """Returns a description whose masks have the sizes of their images, if the transforms of evaluations show whole images.

    If they crop images, masks are those of the crops.
    """
    if "resolution" not in description.task_options:
        return description
    shows_all = all(step.whole_image or not step.geometric for step in group_steps(steps))
    options = {**description.task_options, "resolution": "original" if shows_all else "input"}
    return replace(description, task_options=options)


class Preprocessing:
    """Makes the samples of images. For keypoints there is one for each box; for all other tasks there is one."""

    def __init__(self, description: ModelDescription, steps: Sequence[Step], extras: Mapping[str, SampleExtra]):
        """`extras`: what the task adds to each sample, such as patch_mask.

        Raises InputError if the transforms do not fit together.
        """
        self.keypoints, self.seed, self.extras = len(description.labels.keypoints), description.seed, extras
        self.finds_keypoints = description.task == "pose"
        self.transform = Transform(
            steps,
            description.mean,
            description.std,
            description.pad_multiple,
            description.channels,
            description.task_options.get("resolution"),
        )
        needs = {"image", "keypoints"} if self.finds_keypoints else {"image"}
        self.transform.prepare(description.labels, frozenset(needs))

    def __call__(
        self, image: np.ndarray, index: int, boxes: Boxes | None = None, scores: np.ndarray | None = None
    ) -> list[Sample]:
        """Returns the samples of an image (H, W, 3) uint8 RGB.

        `index`: of the image among all; it determines what is random, such as patch masks. `boxes`: of the objects whose keypoints
        are predicted, with their `scores` (n,); None: the whole image.
        """
        draw = Draw(0, index)
        if not self.finds_keypoints:
            return [make_sample({"image": image}, draw, self.transform, self.seed, self.extras)]
        boxes = whole_image(image) if boxes is None else boxes
        scores = np.ones(len(boxes), np.float32) if scores is None else scores
        raws: list[RawSample] = [
            {
                "image": image,
                "keypoints": np.zeros((self.keypoints, 3), np.float32),
                "box": box,
                "area": float(box[2] * box[3]),
                "image_id": index,
                "box_score": float(score),
            }
            for box, score in zip(boxes, scores, strict=True)
        ]
        return [make_sample(raw, draw, self.transform, self.seed, self.extras) for raw in raws]


def whole_image(image: np.ndarray) -> Boxes:
    """Returns one box, that of the whole image (H, W, 3)."""
    height, width = image.shape[:2]
    return np.array([[0, 0, width, height]], np.float32)
