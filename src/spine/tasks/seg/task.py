"""Semantic segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Literal, Unpack

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelConfusionMatrix

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, TrainingOutputs
from spine.layers.conv import resize_map
from spine.layers.image_sizes import pad_to_multiple
from spine.models.sharding import is_sharded
from spine.option_types import Config
from spine.reporting.figures import confusion
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.samples import PREDICTION, TRUTH, SampleView
from spine.tasks.seg import plots
from spine.tasks.seg.boundaries import BoundaryCounts, boundary_iou
from spine.tasks.seg.inference import Inference, Size, default_stride
from spine.tasks.seg.losses import check_loss, default_loss
from spine.tasks.seg.masks import describe_mask, layers, resize_mask
from spine.tasks.seg.metrics import pixel_counts, scores_of_classes, segmentation_scores


class Segmentation(Task):
    """Cross entropy over labeled pixels, with logits resized to the mask. Metrics: mIoU, mAcc, aAcc, mDice, and the IoU of each class.

    An evaluation outside of training also measures the boundary IoU, and has a table of classes. A loss of one's own is called with
    logits (B, classes, H, W) and masks (B, H, W), in which 255 means ignored; in an evaluation with one image at a time.

    If classes may overlap (`Labels.multi_label`), masks and predictions are (B, classes, H, W) of 0, 1 and 255, and the
    probability of each class is a sigmoid.
    """

    name = "seg"
    monitor: ClassVar[str] = "val/mIoU"

    def __init__(
        self,
        *,
        resolution: Literal["original", "input"] = "original",
        inference: Literal["whole", "slide"] = "whole",
        crop_size: Sequence[int] | None = None,
        crop_stride: Sequence[int] | None = None,
        scales: Sequence[float] = (1.0,),
        flip_test: bool = False,
        threshold: float = 0.5,
        boundary_width: float = 0.02,
        **common: Unpack[TaskArguments],
    ):
        """`resolution`: whether evaluations and predictions have the pixels of the "original" images, or those of the "input" of the
        network. The data module needs the same value. `inference`, `crop_size`, `crop_stride`, `scales`, `flip_test`: see
        `Inference`; crop_size: None for the image size of the network; crop_stride: None for two thirds of it.
        `threshold`: if classes may overlap, the probability above which a pixel shows a class.
        `boundary_width`: of the boundary IoU, as a fraction of the diagonal of the image.
        Raises InputError if the loss needs one class per pixel, and classes may overlap.
        """
        multi_label = common["labels"].multi_label
        if common.get("loss") is None:
            common["loss"] = default_loss(multi_label)
        super().__init__(**common)
        assert self.loss is not None
        check_loss(self.loss, multi_label)
        self.given_options: Config = {
            "resolution": resolution, "inference": inference, "crop_size": None if crop_size is None else list(crop_size),
            "crop_stride": None if crop_stride is None else list(crop_stride), "scales": list(scales), "flip_test": flip_test,
            "threshold": threshold, "boundary_width": boundary_width,
        }  # fmt: skip
        self.resolution, self.threshold, self.multi_label = resolution, threshold, multi_label
        crop = self._crop_size(inference, crop_size)
        stride = default_stride(crop) if crop_stride is None else (int(crop_stride[0]), int(crop_stride[1]))
        self.inference = Inference(
            inference, crop, stride, tuple(map(float, scales)), flip_test,
            multiple=getattr(self.model, "patch_size", None) or 1,
            multi_label=multi_label,
            align_corners=getattr(getattr(self.model, "head", None), "align_corners", False),
        )  # fmt: skip
        count = len(self.labels.mask_classes)
        self.confusion: MulticlassConfusionMatrix | MultilabelConfusionMatrix
        if multi_label:
            self.confusion = MultilabelConfusionMatrix(count, ignore_index=IGNORE_INDEX, validate_args=False)
        else:
            self.confusion = MulticlassConfusionMatrix(count, ignore_index=IGNORE_INDEX, validate_args=False)
        self.boundaries = BoundaryCounts(count, boundary_width)
        self.measures_all = False  # also boundaries
        self.losses = torch.zeros(0)  # (B,) of the images of the last evaluated batch

    def _crop_size(self, inference: str, given: Sequence[int] | None) -> Size:
        size = given if given is not None else getattr(getattr(self.model, "config", None), "image_size", None)
        if size is None and inference == "slide":
            raise InputError("task.inference is slide, which needs the size of its crops: set task.crop_size=[height,width].")
        return (int(size[0]), int(size[1])) if size is not None else (1, 1)

    def options(self) -> Config:
        """Those of the evaluation."""
        return dict(self.given_options)

    def describe_evaluation(self) -> str:
        """The resolution and the inference."""
        return f"at the resolution of the {self.resolution} images; {self.inference.description}"

    # ---- training ----

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits (B, classes, H, W) at the size of the mask, in one pass. In training the losses of auxiliary outputs
        are added, with their weights.
        """
        output, auxiliary = TrainingOutputs.of(self.model(batch["image"]))
        size = batch["mask"].shape[-2:]
        aligned = self.inference.align_corners
        logits = resize_map(output.float(), size, align_corners=aligned)
        loss = self._loss(logits, batch)
        for extra, weight in auxiliary:
            loss = loss + weight * self._loss(resize_map(extra.float(), size, align_corners=aligned), batch)
        return loss, logits

    def _loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        assert self.loss is not None
        return self.loss(logits, batch["mask"])

    def loss_weight(self, batch: Batch) -> float | Tensor:
        """The number of images, each counted by the fraction of its pixels that are labeled."""
        if "image_size" in batch:
            return super().loss_weight(batch) * self._labeled_fractions(batch).mean()
        labeled = batch["mask"] != IGNORE_INDEX
        return super().loss_weight(batch) * (labeled.sum() / labeled.numel())

    def _labeled_fractions(self, batch: Batch) -> Tensor:
        """The fraction (B,) of labeled pixels of each image, without padding. If classes may overlap, each pixel has a label for each."""
        mask = batch["mask"]
        layers = mask.shape[1] if self.multi_label else 1
        labels = torch.tensor([layers * height * width for height, width in self._sizes(batch)], device=mask.device)
        return (mask != IGNORE_INDEX).flatten(1).sum(1) / labels

    # ---- evaluation and prediction ----

    def validate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and the predicted masks, (B, H, W) or (B, classes, H, W) uint8, of one batch. Losses are averaged over images as in
        `loss_weight`.
        """
        if self.resolution == "input" and "original_size" in batch:
            raise InputError(
                "task.resolution is input, and the masks are those of the original images: give the data module resolution='input'."
            )
        mask, losses = batch["mask"], batch["image"].new_zeros(len(batch["image"]), dtype=torch.float32)
        predicted = torch.full_like(mask, IGNORE_INDEX, dtype=torch.uint8)
        for row, scores in self._scores(batch):
            _, height, width = scores.shape
            losses[row] = self._loss(scores[None], {"mask": mask[row : row + 1, ..., :height, :width]})
            predicted[row, ..., :height, :width] = self._decide(scores)
        self.losses, fractions = losses, self._labeled_fractions(batch)
        return (losses * fractions).sum() / fractions.sum().clamp(min=torch.finfo(fractions.dtype).tiny), predicted

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`mask` (B, H, W) uint8: the predicted class of each pixel of the original image if the batch has `original_size`, else of the
        input image; (B, classes, H, W) of 0 and 1 if classes may overlap. 255 at the bottom and right pads images of different sizes.
        """
        height, width = (max(sides) for sides in zip(*self._sizes(batch), strict=True))
        layers = (len(self.labels.mask_classes),) if self.multi_label else ()
        shape = len(batch["image"]), *layers, height, width
        predicted = torch.full(shape, IGNORE_INDEX, dtype=torch.uint8, device=batch["image"].device)
        for row, scores in self._scores(batch):
            predicted[row, ..., : scores.shape[1], : scores.shape[2]] = self._decide(scores)
        return {"mask": predicted}

    def _decide(self, scores: Tensor) -> Tensor:
        """The predicted class (H, W) of each pixel, or whether it shows each class (classes, H, W), from scores (classes, H, W)."""
        return scores.sigmoid() > self.threshold if self.multi_label else scores.argmax(0)

    def _scores(self, batch: Batch) -> Iterator[tuple[int, Tensor]]:
        """Row and scores (classes, H, W) of each image of a batch."""
        self._keep_in_step(batch)
        yield from self.inference.scores(self.model, batch, self._sizes(batch))

    def _sizes(self, batch: Batch) -> list[Size]:
        """(height, width) of the prediction for each image of a batch."""
        keys = ("original_size", "image_size") if self.resolution == "original" else ("image_size",)
        for key in keys:
            if key in batch:
                return [(height, width) for height, width in batch[key].tolist()]
        shape = batch.get("mask", batch["image"]).shape
        return [(shape[-2], shape[-1])] * shape[0]

    def _keep_in_step(self, batch: Batch) -> None:
        """Runs a sharded network until all processes have run it as often: its parameters are gathered in every pass."""
        if not (dist.is_available() and dist.is_initialized() and is_sharded(self.model)):
            return
        own = self.inference.count_passes(batch)
        most = torch.tensor(own, device=batch["image"].device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        height, width = self.inference.crop_size
        image = pad_to_multiple(batch["image"][:1, :, :height, :width], self.inference.multiple)
        for _ in range(int(most) - own):
            self.model(image)

    def on_validation_epoch_start(self) -> None:
        """Measures boundaries too, outside of training."""
        super().on_validation_epoch_start()
        self.measures_all = self.trainer.state.fn != "fit"

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Updates the metrics with the predicted masks of one evaluated batch."""
        self.confusion.update(output.long(), batch["mask"].long())
        if self.measures_all:
            self.boundaries.update(output, batch["mask"], self._sizes(batch))

    def compute_metrics(self) -> dict[str, float]:
        """mIoU, mAcc, aAcc, mDice and the IoU of each class, in 0..1; outside of training the mean boundary IoU, mBoundaryIoU."""
        values = segmentation_scores(self.confusion.compute())
        if self.measures_all:
            values["mBoundaryIoU"] = float(boundary_iou(self.boundaries.compute()).nanmean())
        iou = scores_of_classes(self.confusion.compute())["IoU"].tolist()
        values |= {f"IoU/{name}": value for name, value in zip(self.labels.mask_classes, iou, strict=True)}
        self.confusion.reset()
        self.boundaries.reset()
        return values

    def confusion_counts(self) -> tuple[np.ndarray, tuple[str, ...]] | None:
        """The confusion matrix of the pixels of the split. None if classes may overlap: they are not confused with each other."""
        return None if self.multi_label else (self.confusion.compute().cpu().numpy(), self.labels.mask_classes)

    def table_of_classes(self) -> list[dict[str, object]]:
        """Labeled pixels, IoU, accuracy, precision, Dice and boundary IoU of each class, outside of training."""
        if not self.measures_all:
            return []
        confusion = self.confusion.compute()
        scores = {**scores_of_classes(confusion), "boundary IoU": boundary_iou(self.boundaries.compute())}
        columns = {name: [value if value == value else None for value in values.tolist()] for name, values in scores.items()}
        return [
            {"class": name, "pixels": pixels, **{column: values[i] for column, values in columns.items()}}
            for i, (name, pixels) in enumerate(zip(self.labels.mask_classes, pixel_counts(confusion).truth.tolist(), strict=True))
        ]

    # ---- figures ----

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each image of the batch that was evaluated last."""
        return self.losses

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """Both masks at the size of the input image, and the shares of their largest classes."""
        names, views = self.labels.mask_classes, []
        image_sizes = batch["image_size"].tolist() if "image_size" in batch else [batch["image"].shape[-2:]] * len(output)
        for found, true, size in zip(*self._masks(output, batch), image_sizes, strict=True):
            views.append(
                SampleView(
                    prediction=describe_mask(found, names),
                    truth=describe_mask(true, names),
                    masks=layers(PREDICTION, resize_mask(found, size), names) | layers(TRUTH, resize_mask(true, size), names),
                    mask_classes=names,
                )
            )
        return views

    def _masks(self, output: Tensor, batch: Batch) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Predicted and ground truth masks, (H, W) or (classes, H, W) uint8, of each image, without padding."""
        sizes = self._sizes(batch)
        both = (output.cpu().numpy().astype(np.uint8), batch["mask"].cpu().numpy().astype(np.uint8))
        predicted, truth = ([mask[..., :h, :w] for mask, (h, w) in zip(masks, sizes, strict=True)] for masks in both)
        return predicted, truth

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Images, ground truth, prediction and errors."""
        predicted, truth = self._masks(output, batch)
        images = list(to_pixels(batch["image"]))
        if "image_size" in batch:
            images = [image[:h, :w] for image, (h, w) in zip(images, batch["image_size"].tolist(), strict=True)]
        return {"predictions": plots.segmentation(images, truth, predicted, self.labels.mask_classes, self.labels.palette)}

    def draw_summary(self) -> dict[str, Figure]:
        """The confusion matrix unless classes may overlap, and outside of training the IoU of each class."""
        counts = self.confusion_counts()
        figures = {} if counts is None else {"confusion": confusion(*counts)}
        if self.measures_all:
            figures["classes"] = plots.class_bars(self.confusion.compute().cpu(), self.labels.mask_classes, self.labels.palette)
        return figures
