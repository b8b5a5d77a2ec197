"""Keypoint detection with heatmaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spine.errors import InputError
from spine.option_types import Config
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.pose import plots
from spine.tasks.pose.heatmaps import apply_affine, decode_heatmaps, gaussian_heatmaps, invert_affine
from spine.tasks.pose.losses import heatmap_loss
from spine.tasks.pose.metrics import KeypointScores, describe_distance
from spine.tasks.samples import PREDICTION, TRUTH, SampleView, loss_of_each


class Pose(Task):
    """Squared error to Gaussian heatmaps, weighted by visibility; quarter-offset decoding.

    Metrics in pixels of the original images: OKS-AP, PCK and NME. A loss of one's own is called with heatmaps (B, K, h, w), targets
    (B, K, h, w) and weights (B, K).
    """

    name = "pose"
    monitor: ClassVar[str] = "val/AP"

    def __init__(self, *, sigma: float = 2.0, flip_test: bool = False, **common: Unpack[TaskArguments]):
        """`sigma`: of the Gaussians, in heatmap pixels. `flip_test`: average with the heatmaps of the mirrored image in evaluation."""
        super().__init__(**common)
        self.sigma, self.flip_test = sigma, flip_test
        if flip_test and not self.labels.can_flip:
            raise InputError(
                "task.flip_test averages with the mirrored image, and it is not known which keypoints change places there. "
                "Give dataset.flip_pairs, such as [[1,2],[3,4]], or [] if none does."
            )
        self.scores = KeypointScores(self.labels.sigmas)
        mirrored = list(range(len(self.labels.keypoints)))
        for a, b in self.labels.flip_pairs:
            mirrored[a], mirrored[b] = b, a
        self.mirrored = mirrored  # the index that each keypoint has in a mirrored image

    def options(self) -> Config:
        """The width of the Gaussians, and whether mirrored images are evaluated too."""
        return {"sigma": self.sigma, "flip_test": self.flip_test}

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and heatmaps (B, K, h, w)."""
        heatmaps = self._heatmaps(batch["image"])
        return self._loss(heatmaps, batch), heatmaps

    def _loss(self, heatmaps: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        stride = batch["image"].shape[-1] / heatmaps.shape[-1]
        height, width = heatmaps.shape[-2:]
        target, weight = gaussian_heatmaps(batch["keypoints"], (height, width), stride, self.sigma)
        return (self.loss or heatmap_loss)(heatmaps, target, weight)

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each sample."""
        return loss_of_each(self._loss, output, batch)

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """Both sets of keypoints in pixels of the input image, and their mean distance."""
        found, truth = self._decode(output, batch).cpu().numpy(), batch["keypoints"].cpu().numpy()
        return [
            SampleView(
                prediction=describe_distance(one, true),
                truth=f"{(true[:, 2] > 0).sum()} labeled keypoints",
                keypoints={PREDICTION: one, TRUTH: true},
                keypoint_names=self.labels.keypoints,
            )
            for one, true in zip(found, truth, strict=True)
        ]

    def _heatmaps(self, image: Tensor) -> Tensor:
        heatmaps = self.model(image).float()
        if self.flip_test and not self.training:  # pixel centers make both grids the same: no shift is needed
            flipped = self.model(image.flip(-1)).float().flip(-1)[:, self.mirrored]
            heatmaps = (heatmaps + flipped) / 2
        return heatmaps

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`keypoints` (B, K, 3): x, y, score; in pixels of the original image if the batch has `affine`, else of the input image."""
        found = self._decode(self._heatmaps(batch["image"]), batch)
        if "affine" in batch:
            found = torch.cat([apply_affine(found[..., :2], invert_affine(batch["affine"])), found[..., 2:]], dim=-1)
        return {"keypoints": found}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Maps predictions and ground truth back to the original images, and updates the metrics."""
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
        """AP, AP50, AP75, AR, PCK in 0..1; NME as a fraction of the size of the box."""
        values = self.scores.compute()
        self.scores.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Images with ground truth and predicted keypoints, and the maximum of the heatmaps."""
        found, truth = self._decode(output, batch).cpu().numpy(), batch["keypoints"].cpu().numpy()
        heat = output.amax(1).cpu().numpy()
        return {"predictions": plots.keypoints(to_pixels(batch["image"]), truth, found, heat, self.labels.skeleton)}
