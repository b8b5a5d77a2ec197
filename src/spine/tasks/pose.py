"""Keypoints by heatmaps."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spine import pictures
from spine.errors import InputError
from spine.losses import heatmap_loss
from spine.metrics import KeypointScores
from spine.targets import apply_affine, decode_heatmaps, gaussian_heatmaps, invert_affine
from spine.tasks.base import Batch, Show, Task


class Pose(Task):
    """Gaussian targets, visibility-weighted squared error, quarter-offset decoding; OKS-AP, PCK and NME in the original pictures."""

    name = "pose"
    monitor: ClassVar[str] = "val/AP"

    def __init__(self, *, sigma: float = 2.0, flip_test: bool = False, **common: Any):
        """`sigma`: of the Gaussians, in heatmap pixels; `flip_test`: evaluation averages with the mirrored image's heatmaps."""
        super().__init__(**common)
        self.sigma, self.flip_test = sigma, flip_test
        if flip_test and not self.labels.can_flip:
            raise InputError(
                "task.flip_test averages with the mirrored image, and it is not known which keypoints change places there. "
                "Give dataset.flip_pairs, such as [[1,2],[3,4]], or [] where none does."
            )
        self.scores = KeypointScores(self.labels.sigmas)
        mirrored = list(range(len(self.labels.keypoints)))
        for a, b in self.labels.flip_pairs:
            mirrored[a], mirrored[b] = b, a
        self.mirrored = mirrored  # the keypoint that each becomes in a mirrored image

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and heatmaps (B, K, h, w)."""
        image = batch["image"]
        heatmaps = self.model(image).float()
        if self.flip_test and not self.training:  # pixel centres make both grids one: no shift is needed
            flipped = self.model(image.flip(-1)).float().flip(-1)[:, self.mirrored]
            heatmaps = (heatmaps + flipped) / 2
        stride = image.shape[-1] / heatmaps.shape[-1]
        target, weight = gaussian_heatmaps(batch["keypoints"], tuple(heatmaps.shape[-2:]), stride, self.sigma)
        return heatmap_loss(heatmaps, target, weight), heatmaps

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Brings predictions and truth back to the original pictures, and takes them in."""
        back = invert_affine(batch["affine"])
        found = self._decode(output, batch)
        prediction = torch.cat([apply_affine(found[..., :2], back), found[..., 2:]], dim=-1)
        keypoints = batch["keypoints"]
        target = torch.cat([apply_affine(keypoints[..., :2], back), keypoints[..., 2:]], dim=-1)
        self.scores.update(prediction, target, batch["area"], batch["box"], batch["image_id"])

    @staticmethod
    def _decode(heatmaps: Tensor, batch: Batch) -> Tensor:
        return decode_heatmaps(heatmaps, batch["image"].shape[-1] / heatmaps.shape[-1])

    def compute_metrics(self) -> dict[str, float]:
        """AP, AP50, AP75, AR, PCK in 0..1; NME as a share of the box's size."""
        values = self.scores.compute()
        self.scores.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, show: Show) -> dict[str, Figure]:
        """Images with true and predicted keypoints, and the sum of the heatmaps."""
        found, truth = self._decode(output, batch).cpu().numpy(), batch["keypoints"].cpu().numpy()
        heat = output.amax(1).cpu().numpy()
        return {"predictions": pictures.keypoints(show(batch["image"]), truth, found, heat, self.labels.skeleton)}
