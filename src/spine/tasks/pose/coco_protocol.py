"""Average precision and recall of keypoints by the protocol of COCO, with faster-coco-eval."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Sequence
from typing import TypedDict

import numpy as np

from spine.interfaces import KeypointAnnotations

NAMES = ("AP", "AP50", "AP75", "AP_M", "AP_L", "AR", "AR50", "AR75", "AR_M", "AR_L")  # in the order of COCO's statistics


class KeypointResult(TypedDict):
    """A predicted object in COCO's results format."""

    image_id: int
    category_id: int
    keypoints: list[float]  # x, y, score of each keypoint
    score: float


def average_precision(
    results: Sequence[KeypointResult], truth: KeypointAnnotations, images: Collection[int], sigmas: Sequence[float]
) -> dict[str, float]:
    """Returns AP, AP50, AP75, AR and more in 0..1; M and L are of medium and large objects. Sizes that do not occur are left out.

    `images`: the images that are evaluated. Predictions that match a crowd or an object without labeled keypoints are ignored.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    if not results:
        return dict.fromkeys(NAMES, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):  # the library prints its tables
        coco = COCO(_ground_truth(truth, images))
        evaluation = COCOeval_faster(
            coco,
            coco.loadRes([dict(each) for each in results]),  # it adds keys to them
            iouType="keypoints",
            kpt_oks_sigmas=np.array(sigmas),
            print_function=lambda *_: None,
        )
        evaluation.run()
    stats = np.asarray(evaluation.stats)[: len(NAMES)]
    return {name: float(value) for name, value in zip(NAMES, stats, strict=True) if value >= 0}


def _ground_truth(truth: KeypointAnnotations, images: Collection[int]) -> dict[str, list[dict[str, object]]]:
    """Returns annotations in COCO's format."""
    chosen = [i for i, number in enumerate(truth.image_ids.tolist()) if number in images]
    annotations: list[dict[str, object]] = [
        {
            "id": number,
            "image_id": int(truth.image_ids[i]),
            "category_id": truth.category,
            "keypoints": truth.keypoints[i].flatten().tolist(),
            "num_keypoints": int(truth.labeled[i]),
            "area": float(truth.areas[i]),
            "bbox": truth.boxes[i].tolist(),
            "iscrowd": int(truth.crowd[i]),
        }
        for number, i in enumerate(chosen, start=1)
    ]
    return {
        "images": [{"id": number} for number in sorted(images)],
        "categories": [{"id": truth.category, "name": "object"}],
        "annotations": annotations,
    }
