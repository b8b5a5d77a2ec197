"""Metrics of keypoint detection."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat


class KeypointScores(Metric):
    """OKS-AP and AR by the COCO protocol with given boxes, PCK and NME.

    All values are in pixels of the original images.
    """

    full_state_update = False

    def __init__(self, sigmas: tuple[float, ...], pck_threshold: float = 0.2):
        """`sigmas`: OKS constant of each keypoint.

        `pck_threshold`: a keypoint is correct for PCK if its distance to the ground truth is at
        most this fraction of the longer side of the box.
        """
        super().__init__()
        self.sigmas, self.pck_threshold = sigmas, pck_threshold
        for name in ("prediction", "target", "area", "box", "image_id"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, area: Tensor, box: Tensor, image_id: Tensor) -> None:
        """Adds a batch.

        `prediction`: (B, K, 3), x, y, score. `target`: (B, K, 3), x, y, visibility. `area`: (B,).
        `box`: (B, 4), x, y, width, height. `image_id`: (B,).
        """
        values = {"prediction": prediction, "target": target, "area": area, "box": box, "image_id": image_id}
        for name, value in values.items():
            getattr(self, name).append(value.detach())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes.

        A process without samples takes part with empty tensors, because torchmetrics does not
        gather empty lists.
        """
        num_keypoints = len(self.sigmas)
        shapes = {"prediction": (num_keypoints, 3), "target": (num_keypoints, 3), "area": (), "box": (4,), "image_id": ()}
        for name, shape in shapes.items():
            if not getattr(self, name):
                dtype = torch.int64 if name == "image_id" else torch.float32
                getattr(self, name).append(torch.zeros((0, *shape), dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, float]:
        """Computes AP, AP50, AP75, AR and PCK in 0..1, and NME.

        NME is a fraction of the square root of the area of the box. PCK and NME are averaged over
        labeled keypoints.
        """
        names = ("prediction", "target", "area", "box", "image_id")
        prediction, target, area, box, image_id = (dim_zero_cat(getattr(self, name)).cpu().double() for name in names)
        labeled = target[..., 2] > 0  # (B, K)
        distance = (prediction[..., :2] - target[..., :2]).norm(dim=-1)
        longer_side, box_size = box[:, 2:].amax(1, keepdim=True), box[:, 2:].prod(1, keepdim=True).sqrt()
        pck = (distance <= self.pck_threshold * longer_side)[labeled].double().mean()
        nme = (distance / box_size)[labeled].mean()
        scores = self._average_precision(prediction, target, area, box, image_id.long())
        return {**scores, "PCK": float(pck), "NME": float(nme)}

    def _average_precision(
        self, prediction: Tensor, target: Tensor, area: Tensor, box: Tensor, image_id: Tensor
    ) -> dict[str, float]:
        """Computes AP, AP50, AP75 and AR with faster-coco-eval."""
        from faster_coco_eval import COCO, COCOeval_faster

        with contextlib.redirect_stdout(io.StringIO()):  # the library prints its tables
            coco = COCO(_coco_ground_truth(target, area, box, image_id))
            evaluation = COCOeval_faster(
                coco,
                coco.loadRes(_coco_predictions(prediction, image_id)),
                iouType="keypoints",
                kpt_oks_sigmas=np.array(self.sigmas),
                print_function=lambda *_: None,
            )
            evaluation.run()
        stats = np.asarray(evaluation.stats)
        return {"AP": float(stats[0]), "AP50": float(stats[1]), "AP75": float(stats[2]), "AR": float(stats[5])}


def _coco_ground_truth(target: Tensor, area: Tensor, box: Tensor, image_id: Tensor) -> dict[str, list[dict[str, object]]]:
    """Converts ground truth to the annotation format of COCO."""
    annotations: list[dict[str, object]] = [
        {
            "id": i + 1,
            "image_id": int(image_id[i]),
            "category_id": 1,
            "keypoints": keypoints.flatten().tolist(),
            "num_keypoints": int((keypoints[:, 2] > 0).sum()),
            "area": float(area[i]),
            "bbox": box[i].tolist(),
            "iscrowd": 0,
        }
        for i, keypoints in enumerate(target)
    ]
    return {
        "images": [{"id": number} for number in sorted(set(image_id.tolist()))],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": annotations,
    }


def _coco_predictions(prediction: Tensor, image_id: Tensor) -> list[dict[str, object]]:
    """Converts predictions to the result format of COCO.

    The score of an object is the mean score of its keypoints.
    """
    return [
        {
            "image_id": int(image_id[i]),
            "category_id": 1,
            "keypoints": keypoints.flatten().tolist(),
            "score": float(keypoints[:, 2].mean()),
        }
        for i, keypoints in enumerate(prediction)
    ]


def describe_distance(prediction: np.ndarray, truth: np.ndarray) -> str:
    """Returns the mean distance of the labeled keypoints (K, 3) in words, in pixels of the input image."""
    labeled = truth[:, 2] > 0
    if not labeled.any():
        return "no keypoint is labeled"
    distance = np.linalg.norm(prediction[labeled, :2] - truth[labeled, :2], axis=1).mean()
    return f"{distance:.1f} pixels from the truth on average"
