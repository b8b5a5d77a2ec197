"""Keypoint detection with heatmaps."""

from __future__ import annotations

import dataclasses
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
from spine.tasks.pose.metrics import KeypointEvaluation, KeypointScores, Protocol, describe_confidence, describe_distance
from spine.tasks.samples import PREDICTION, TRUTH, SampleView, loss_of_each


class Pose(Task):
    """Squared error to Gaussian heatmaps, weighted by visibility; quarter-offset decoding.

    Metrics in pixels of the original images: OKS-AP, PCK and NME. A loss of one's own is called with heatmaps (B, K, h, w), targets
    (B, K, h, w) and weights (B, K).
    """

    name = "pose"
    monitor: ClassVar[str] = "val/AP"

    def __init__(
        self,
        *,
        sigma: float = 2.0,
        flip_test: bool = False,
        rescore: float | None = 0.2,
        oks_nms: float | None = 0.9,
        soft_oks_nms: bool = False,
        nme_threshold: float = 0.1,
        **common: Unpack[TaskArguments],
    ):
        """`sigma`: of the Gaussians, in heatmap pixels. `flip_test`: average with the heatmaps of the mirrored image in evaluation.

        `rescore`, `oks_nms`, `soft_oks_nms`, `nme_threshold`: see `metrics.Protocol`.
        """
        super().__init__(**common)
        self.sigma, self.flip_test = sigma, flip_test
        if flip_test and not self.labels.can_flip:
            raise InputError(
                "task.flip_test averages with the mirrored image, and it is not known which keypoints change places there. "
                "Give dataset.flip_pairs, such as [[1,2],[3,4]], or [] if none does."
            )
        self.protocol = Protocol(rescore, oks_nms, soft_oks_nms, nme_threshold)
        self.scores = KeypointScores(len(self.labels.keypoints))
        self.evaluation: KeypointEvaluation | None = None  # of all batches, until the metrics are reset
        mirrored = list(range(len(self.labels.keypoints)))
        for a, b in self.labels.flip_pairs:
            mirrored[a], mirrored[b] = b, a
        self.mirrored = mirrored  # the index that each keypoint has in a mirrored image

    def options(self) -> Config:
        """The width of the Gaussians, whether mirrored images are evaluated too, and how predictions are scored."""
        return {"sigma": self.sigma, "flip_test": self.flip_test, **dataclasses.asdict(self.protocol)}

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and heatmaps (B, K, h, w)."""
        heatmaps = self._heatmaps(batch["image"])
        return self._loss(heatmaps, batch), heatmaps

    def _loss(self, heatmaps: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        stride = batch["image"].shape[-1] / heatmaps.shape[-1]
        height, width = heatmaps.shape[-2:]
        target, weight = gaussian_heatmaps(batch["keypoints"], (height, width), stride, self.sigma)
        return (self.loss or heatmap_loss)(heatmaps, target, weight)

    def loss_weight(self, batch: Batch) -> float | Tensor:
        """The number of images. The boxes of a detector have no labeled keypoints, and no loss."""
        return 0.0 if "box_score" in batch else super().loss_weight(batch)

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor | None:
        """The loss (B,) of each sample. None for the boxes of a detector."""
        return None if "box_score" in batch else loss_of_each(self._loss, output, batch)

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """Both sets of keypoints in pixels of the input image, and their mean distance."""
        found, truth = self._decode(output, batch).cpu().numpy(), batch["keypoints"].cpu().numpy()
        detected = "box_score" in batch
        return [
            SampleView(
                prediction=describe_confidence(one, self.labels.keypoints) if detected else describe_distance(one, true),
                truth="the box of a detector" if detected else f"{(true[:, 2] > 0).sum()} labeled keypoints",
                keypoints={PREDICTION: one} if detected else {PREDICTION: one, TRUTH: true},
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
        """Maps predictions and ground truth back to the original images, and collects them."""
        affine, keypoints, (height, width) = batch["affine"], batch["keypoints"], batch["image"].shape[-2:]
        back, found = invert_affine(affine), self._decode(output, batch)
        index = batch.get("index")
        self.evaluation = None
        self.scores.update(
            prediction=torch.cat([apply_affine(found[..., :2], back), found[..., 2:]], dim=-1),
            target=torch.cat([apply_affine(keypoints[..., :2], back), keypoints[..., 2:]], dim=-1),
            index=torch.arange(len(found), device=found.device) if index is None else index,
            crop_area=height * width / (affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]).abs(),
            **{key: batch[key] for key in ("area", "box", "image_id", "box_score", "head_size") if key in batch},
        )

    @staticmethod
    def _decode(heatmaps: Tensor, batch: Batch) -> Tensor:
        return decode_heatmaps(heatmaps, batch["image"].shape[-1] / heatmaps.shape[-1])

    def evaluate(self) -> KeypointEvaluation:
        """The results of all batches. Every process calls it."""
        if self.evaluation is None:
            data = self.evaluated_data()
            annotations = data.keypoint_annotations() if data is not None else None
            self.evaluation = KeypointEvaluation(self.scores.compute(), self.labels, self.protocol, annotations)
        return self.evaluation

    def compute_metrics(self) -> dict[str, float]:
        """AP and AR by the protocol of COCO in 0..1; with labeled keypoints PCK and NME, and what the data set has: see
        `KeypointEvaluation.metrics`.
        """
        evaluation, data = self.evaluate(), self.evaluated_data()
        values = evaluation.metrics(complete=data is None or len(evaluation.instances.index) == len(data))
        self.scores.reset()
        self.evaluation = None
        return values

    def table_of_classes(self) -> list[dict[str, object]]:
        """How often each keypoint is labeled and correct, and its mean distance in pixels of the original images."""
        return self.evaluate().rows()

    def result_file(self) -> tuple[str, object]:
        """The predicted objects in COCO's results format."""
        return "keypoints", self.evaluate().results

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Images with ground truth and predicted keypoints, and the maximum of the heatmaps."""
        found, truth = self._decode(output, batch).cpu().numpy(), batch["keypoints"].cpu().numpy()
        heat = output.amax(1).cpu().numpy()
        return {"predictions": plots.keypoints(to_pixels(batch["image"]), truth, found, heat, self.labels.skeleton)}
