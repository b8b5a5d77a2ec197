"""W&B's objects for samples: images with masks and keypoints as layers, tables, and confusion matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spine.interfaces import IGNORE_INDEX
from spine.tasks.samples import TRUTH, SampleView

if TYPE_CHECKING:
    import wandb
    from wandb.plot import CustomChart

KEYPOINT_SIZE = 0.03  # side of the box around a keypoint, as a fraction of the longer side of the image


def sample_image(sample: SampleView) -> wandb.Image:
    """Returns the image of a sample. Its masks and keypoints can be switched on and off.

    W&B has no object for keypoints. Each one is a small box with the name of the keypoint.
    """
    import wandb

    assert sample.image is not None
    names = dict(enumerate(sample.mask_classes)) | {IGNORE_INDEX: "ignored"}
    masks = {layer: {"mask_data": np.asarray(mask, np.uint8), "class_labels": names} for layer, mask in sample.masks.items()}
    boxes = {layer: _keypoint_boxes(sample, layer) for layer in sample.keypoints}
    return wandb.Image(sample.image, masks=masks or None, boxes=boxes or None)


def _keypoint_boxes(sample: SampleView, layer: str) -> dict[str, object]:
    """Returns one box for each keypoint of a layer; keypoints without a label are left out."""
    assert sample.image is not None
    half = max(2.0, KEYPOINT_SIZE * max(sample.image.shape[:2])) / 2
    boxes = []
    for i, (x, y, score) in enumerate(np.asarray(sample.keypoints[layer], float).tolist()):
        if layer == TRUTH and score <= 0:
            continue
        box: dict[str, object] = {
            "position": {"minX": x - half, "maxX": x + half, "minY": y - half, "maxY": y + half},
            "domain": "pixel",
            "class_id": i,
            "box_caption": sample.keypoint_names[i],
        }
        if layer != TRUTH:
            box["scores"] = {"score": score}
        boxes.append(box)
    return {"box_data": boxes, "class_labels": dict(enumerate(sample.keypoint_names))}


def sample_table(samples: Sequence[SampleView]) -> wandb.Table:
    """Returns a table with a row for each sample: image, prediction, truth, loss, index and file."""
    import wandb

    rows = [[sample_image(s), s.prediction, s.truth, s.loss, s.index, s.file] for s in samples]
    return wandb.Table(columns=["image", "prediction", "truth", "loss", "index", "file"], data=rows)


def confusion_plot(counts: np.ndarray, classes: Sequence[str]) -> CustomChart:
    """Returns W&B's plot of a confusion matrix (classes, classes) with the ground truth in rows.

    It is the chart of wandb.plot.confusion_matrix, which takes every label and prediction instead of counts.
    """
    import wandb

    rows = [[classes[i], classes[j], int(count)] for (i, j), count in np.ndenumerate(counts)]
    table = wandb.Table(columns=["Actual", "Predicted", "nPredictions"], data=rows)
    fields = {name: name for name in ("Actual", "Predicted", "nPredictions")}
    return wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": "Confusion matrix"})
