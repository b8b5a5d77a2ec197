"""Keypoint detection with heatmaps or coordinate classification."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar, Unpack

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spine.errors import InputError
from spine.option_types import Config
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.pose import plots
from spine.tasks.pose.codecs import CODECS, Size, default_sigma, draw_heatmaps
from spine.tasks.pose.heatmaps import apply_affine, invert_affine
from spine.tasks.pose.losses import bin_loss, heatmap_loss
from spine.tasks.pose.metrics import KeypointEvaluation, KeypointScores, Protocol, describe_confidence, describe_distance
from spine.tasks.samples import PREDICTION, TRUTH, SampleView, loss_of_each


class Pose(Task):
    """Encodes keypoints as targets, and decodes outputs of the network as keypoints, with one codec.

    The loss is the squared error of heatmaps, or the divergence of the distributions of the head `simcc`, weighted by visibility.
    Metrics in pixels of the original images: OKS-AP, PCK and NME. A loss of one's own is called with the output of the network
    (heatmaps (B, K, h, w) or logits (B, K, X + Y)), targets of the same shape and weights (B, K).
    """

    name = "pose"
    monitor: ClassVar[str] = "val/AP"
    weights: Tensor

    def __init__(
        self,
        *,
        codec: str = "fractional",
        sigma: float | None = None,
        flip_test: bool = False,
        flip_shift: bool | None = None,
        hard_keypoints: int | None = None,
        keypoint_weights: Sequence[float] | None = None,
        rescore: float | None = 0.2,
        oks_nms: float | None = 0.9,
        soft_oks_nms: bool = False,
        nme_threshold: float = 0.1,
        **common: Unpack[TaskArguments],
    ):
        """`codec`: a key of `spine.tasks.pose.codecs.CODECS`. `sigma`: of the Gaussians, in heatmap pixels, or in bins of the head
        `simcc`; None: 2 heatmap pixels, 6 bins.

        `flip_test`: average with the output for the mirrored image in evaluation. `flip_shift`: whether that output is moved, see
        `Codec.flip_back`; None: as the codec does. `hard_keypoints`: the loss is the mean of that many keypoints with the highest
        losses in each image; None: of all. `keypoint_weights`: a factor for each keypoint in the loss.

        `rescore`, `oks_nms`, `soft_oks_nms`, `nme_threshold`: see `metrics.Protocol`.
        """
        super().__init__(**common)
        if codec not in CODECS:
            raise InputError(f"task.codec is '{codec}'; choices: {', '.join(CODECS)}.")
        self.codec_name, self.codec, self.sigma = codec, CODECS[codec], sigma
        self.flip_test, self.flip_shift = flip_test, flip_shift
        self.hard_keypoints, self.keypoint_weights = hard_keypoints, keypoint_weights
        self._check_options()
        self.register_buffer("weights", torch.tensor(keypoint_weights or 1.0), persistent=False)  # (K,) or ()
        self.protocol = Protocol(rescore, oks_nms, soft_oks_nms, nme_threshold)
        self.scores = KeypointScores(len(self.labels.keypoints))
        self.evaluation: KeypointEvaluation | None = None  # of all batches, until the metrics are reset
        mirrored = list(range(len(self.labels.keypoints)))
        for a, b in self.labels.flip_pairs:
            mirrored[a], mirrored[b] = b, a
        self.mirrored = mirrored  # the index that each keypoint has in a mirrored image

    def _check_options(self) -> None:
        """Raises InputError if an option does not fit the keypoints of the data set."""
        count = len(self.labels.keypoints)
        if self.flip_test and not self.labels.can_flip:
            raise InputError(
                "task.flip_test averages with the mirrored image, and it is not known which keypoints change places there. "
                "Give dataset.flip_pairs, such as [[1,2],[3,4]], or [] if none does."
            )
        if self.hard_keypoints is not None and self.loss is not None:
            raise InputError(
                "task.hard_keypoints is an option of the loss of the task, which task.loss replaces. Leave one of them out."
            )
        if self.hard_keypoints is not None and self.hard_keypoints > count:
            raise InputError(f"task.hard_keypoints is {self.hard_keypoints}; the data set has {count} keypoints.")
        if self.keypoint_weights is not None and len(self.keypoint_weights) != count:
            raise InputError(
                f"task.keypoint_weights has {len(self.keypoint_weights)} factors; the data set has {count} keypoints."
            )

    def options(self) -> Config:
        """The codec, the flip test, what the loss counts, and how predictions are scored."""
        names = ("sigma", "flip_test", "flip_shift", "hard_keypoints", "keypoint_weights")
        return {"codec": self.codec_name, **{name: getattr(self, name) for name in names}, **dataclasses.asdict(self.protocol)}

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and output of the network: heatmaps (B, K, h, w) or bins (B, K, X + Y)."""
        output = self._predict(batch["image"])
        return self._loss(output, batch), output

    def _sigma(self, output: Tensor) -> float:
        return default_sigma(output.shape) if self.sigma is None else self.sigma

    def _loss(self, output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        image_size = size_of(batch["image"])
        target, weight = self.codec.encode(batch["keypoints"], output.shape, image_size, self._sigma(output))
        if self.keypoint_weights is not None:
            weight = weight * self.weights
        if self.loss is not None:
            return self.loss(output, target, weight)
        if output.ndim == 4:
            return heatmap_loss(output, target, weight, self.hard_keypoints)
        return bin_loss(output, target, weight, image_size, self.hard_keypoints)

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

    def _predict(self, image: Tensor) -> Tensor:
        output = self.model(image).float()
        if self.flip_test and not self.training:
            mirrored = self.model(image.flip(-1)).float()
            output = (output + self.codec.flip_back(mirrored, size_of(image), self.flip_shift)[:, self.mirrored]) / 2
        return output

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`keypoints` (B, K, 3): x, y, score; in pixels of the original image if the batch has `affine`, else of the input image."""
        found = self._decode(self._predict(batch["image"]), batch)
        if "affine" in batch:
            found = torch.cat([apply_affine(found[..., :2], invert_affine(batch["affine"])), found[..., 2:]], dim=-1)
        return {"keypoints": found}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Maps predictions and ground truth back to the original images, and collects them."""
        affine, keypoints = batch["affine"], batch["keypoints"]
        back, found = invert_affine(affine), self._decode(output, batch)
        index = batch.get("index")
        self.evaluation = None
        self.scores.update(
            prediction=torch.cat([apply_affine(found[..., :2], back), found[..., 2:]], dim=-1),
            target=torch.cat([apply_affine(keypoints[..., :2], back), keypoints[..., 2:]], dim=-1),
            index=torch.arange(len(found), device=found.device) if index is None else index,
            crop_area=crop_areas(affine, size_of(batch["image"])),
            **{key: batch[key] for key in ("area", "box", "image_id", "box_score", "head_size") if key in batch},
        )

    def _decode(self, output: Tensor, batch: Batch) -> Tensor:
        """Keypoints (B, K, 3) in pixels of the input image."""
        return self.codec.decode(output, size_of(batch["image"]), self._sigma(output))

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
        heat = draw_heatmaps(output, size_of(batch["image"]), self._sigma(output)).cpu().numpy()
        return {"predictions": plots.keypoints(to_pixels(batch["image"]), truth, found, heat, self.labels.skeleton)}


def size_of(image: Tensor) -> Size:
    """Returns the height and width of images (B, 3, H, W)."""
    return image.shape[-2], image.shape[-1]


def crop_areas(affine: Tensor, size: Size) -> Tensor:
    """Returns the areas (B,) that crops of `size` show of their original images, in pixels of these. `affine`: (B, 2, 3)."""
    determinant = affine[:, 0, 0] * affine[:, 1, 1] - affine[:, 0, 1] * affine[:, 1, 0]
    return size[0] * size[1] / determinant.abs()
