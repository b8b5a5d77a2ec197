"""Keypoint metrics."""

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
    """OKS-AP and AR by COCO's protocol with given boxes, PCK and NME. Everything in pixels of the original pictures."""

    full_state_update = False

    def __init__(self, sigmas: tuple[float, ...], pck_threshold: float = 0.2):
        """`sigmas`: one a keypoint; `pck_threshold`: share of the box's longer side within which a keypoint counts as found."""
        super().__init__()
        self.sigmas, self.pck_threshold = sigmas, pck_threshold
        for name in ("prediction", "target", "area", "box", "image_id"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, prediction: Tensor, target: Tensor, area: Tensor, box: Tensor, image_id: Tensor) -> None:
        """prediction (B, K, 3) x, y, score; target (B, K, 3) x, y, visibility; area (B,); box (B, 4) x, y, w, h; image_id (B,)."""
        values = {"prediction": prediction, "target": target, "area": area, "box": box, "image_id": image_id}
        for name, value in values.items():
            getattr(self, name).append(value.detach())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes. One that had no sample takes part with empty tensors: gathering skips empty lists."""
        empty = {"prediction": (len(self.sigmas), 3), "target": (len(self.sigmas), 3), "area": (), "box": (4,), "image_id": ()}
        for name, shape in empty.items():
            if not getattr(self, name):
                kind = torch.int64 if name == "image_id" else torch.float32
                getattr(self, name).append(torch.zeros((0, *shape), dtype=kind, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, float]:
        """AP, AP50, AP75, AR, PCK in 0..1; NME as a share of the square root of the box's area, over labelled keypoints."""
        names = ("prediction", "target", "area", "box", "image_id")
        prediction, target, area, box, image_id = (dim_zero_cat(getattr(self, name)).cpu().double() for name in names)
        labelled = target[..., 2] > 0  # (B, K)
        distance = (prediction[..., :2] - target[..., :2]).norm(dim=-1)
        longer, size = box[:, 2:].amax(1, keepdim=True), box[:, 2:].prod(1, keepdim=True).sqrt()
        found = (distance <= self.pck_threshold * longer)[labelled].double().mean()
        error = (distance / size)[labelled].mean()
        scores = self._average_precision(prediction, target, area, box, image_id.long())
        return {**scores, "PCK": float(found), "NME": float(error)}

    def _average_precision(
        self, prediction: Tensor, target: Tensor, area: Tensor, box: Tensor, image_id: Tensor
    ) -> dict[str, float]:
        from faster_coco_eval import COCO, COCOeval_faster

        truth: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        for i in range(len(target)):
            common = {"image_id": int(image_id[i]), "category_id": 1}
            labelled = int((target[i, :, 2] > 0).sum())
            truth.append(
                {**common, "id": i + 1, "keypoints": target[i].flatten().tolist(), "num_keypoints": labelled,
                 "area": float(area[i]), "bbox": box[i].tolist(), "iscrowd": 0}
            )  # fmt: skip
            found.append({**common, "keypoints": prediction[i].flatten().tolist(), "score": float(prediction[i, :, 2].mean())})
        dataset: dict[str, Any] = {
            "images": [{"id": number} for number in sorted({entry["image_id"] for entry in truth})],
            "categories": [{"id": 1, "name": "object"}],
            "annotations": truth,
        }
        with contextlib.redirect_stdout(io.StringIO()):  # the library prints its tables
            coco = COCO(dataset)
            evaluation = COCOeval_faster(
                coco,
                coco.loadRes(found),
                iouType="keypoints",
                kpt_oks_sigmas=np.array(self.sigmas),
                print_function=lambda *_: None,
            )
            evaluation.run()
        stats = np.asarray(evaluation.stats)
        return {"AP": float(stats[0]), "AP50": float(stats[1]), "AP75": float(stats[2]), "AR": float(stats[5])}
