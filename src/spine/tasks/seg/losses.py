"""Losses of semantic segmentation.

Each is called with logits (B, classes, H, W) and masks, in which 255 means ignored, and returns the loss ().
Masks are (B, H, W) int64 class indices; if classes may overlap, they are (B, classes, H, W) of 0 and 1, and the
probability of each class is a sigmoid. Ignored pixels have no influence, and a batch without labels has the loss 0.

Losses that divide by a number of pixels take `average`: "labeled" counts the labeled ones, and "all" the ignored ones too,
which is mmsegmentation's default (avg_non_ignore=False).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX

Average = Literal["labeled", "all"]


class CrossEntropy(nn.Module):
    """Mean cross entropy of the labeled pixels. Sources: PyTorch; mmsegmentation's CrossEntropyLoss."""

    needs_one_class: ClassVar[bool] = True
    class_weight: Tensor | None

    def __init__(self, class_weight: Sequence[float] | None = None, label_smoothing: float = 0.0, average: Average = "labeled"):
        """`class_weight`: a factor for each class; the mean is weighted, as in PyTorch. `label_smoothing`: the share of the
        label that is spread over all classes. `average`: "all" counts ignored pixels with the weight 1.
        """
        super().__init__()
        _require(0 <= label_smoothing < 1, f"label_smoothing is {label_smoothing}; it must be 0 or more and below 1.")
        self.label_smoothing, self.average = label_smoothing, average
        self.register_buffer("class_weight", _weights(class_weight), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        total = F.cross_entropy(
            logits, mask, weight=_checked(self.class_weight, logits), ignore_index=IGNORE_INDEX, reduction="sum",
            label_smoothing=self.label_smoothing,
        )  # fmt: skip
        weight = _pixel_weights(mask, self.class_weight).sum()
        return _divide(total, weight + (mask == IGNORE_INDEX).sum() if self.average == "all" else weight)


class BinaryCrossEntropy(nn.Module):
    """Binary cross entropy of each class, the mean of the labeled pixels and classes.

    Sources: PyTorch's BCEWithLogitsLoss; mmsegmentation's CrossEntropyLoss with use_sigmoid.
    """

    pos_weight: Tensor | None

    def __init__(self, pos_weight: Sequence[float] | None = None, average: Average = "labeled"):
        """`pos_weight`: for each class, the factor of the loss of the pixels that show it, as in PyTorch."""
        super().__init__()
        self.average = average
        self.register_buffer("pos_weight", _weights(pos_weight, "pos_weight"), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        target, labeled = _targets(mask, logits)
        weight = _checked(self.pos_weight, logits, "pos_weight")
        losses = F.binary_cross_entropy_with_logits(
            logits, target, reduction="none", pos_weight=None if weight is None else weight[:, None, None]
        )
        return _mean(losses, labeled, self.average)


class OhemCrossEntropy(nn.Module):
    """Cross entropy of the hard pixels (online hard example mining).

    A pixel is hard if the probability of its label is below `threshold`. At least `min_kept` pixels an image count: if
    fewer are hard, the threshold of the batch is raised. With threshold None, exactly the `min_kept` pixels an
    image with the highest losses count.

    Sources: HRNet's OhemCrossEntropy, whose `min_kept` is that of a batch; mmsegmentation's OHEMPixelSampler, which divides by
    the number of all pixels (average="all"), or with avg_non_ignore by that of the labeled ones (average="labeled").
    """

    needs_one_class: ClassVar[bool] = True
    class_weight: Tensor | None

    def __init__(
        self,
        threshold: float | None = 0.7,
        min_kept: int = 100_000,
        class_weight: Sequence[float] | None = None,
        average: Literal["kept", "labeled", "all"] = "kept",
    ):
        """`average`: whether the sum is divided by the number of the pixels that are kept, or by that of the labeled ones, or of all."""
        super().__init__()
        _require(
            threshold is None or 0 <= threshold <= 1, f"threshold is {threshold}; it must be a probability, 0 to 1, or null."
        )
        _require(min_kept >= 1, f"min_kept is {min_kept}; it must be a number of pixels of an image, 1 or more.")
        self.threshold, self.min_kept, self.average = threshold, min_kept, average
        self.register_buffer("class_weight", _weights(class_weight), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        weight = _checked(self.class_weight, logits)
        losses = F.cross_entropy(logits, mask, weight=weight, ignore_index=IGNORE_INDEX, reduction="none")
        kept = self._hard_pixels(logits.detach(), losses.detach(), mask)
        return _mean(losses * kept, kept if self.average == "kept" else mask != IGNORE_INDEX, self.average)

    def _hard_pixels(self, logits: Tensor, losses: Tensor, mask: Tensor) -> Tensor:
        """Returns which pixels count (B, H, W) bool. Nothing waits for the device."""
        labeled, count = mask != IGNORE_INDEX, self.min_kept * len(mask)
        if self.threshold is None:
            order = losses.masked_fill(~labeled, -1).flatten().argsort(descending=True)
            kept = torch.zeros_like(labeled).flatten()
            kept[order[:count]] = True
            return kept.view_as(labeled) & labeled
        probability = logits.softmax(1).gather(1, mask.where(labeled, 0)[:, None])[:, 0]
        ascending = probability.masked_fill(~labeled, torch.inf).flatten().sort().values
        index = (labeled.sum() - 1).clamp(0, count)
        threshold = ascending.gather(0, index[None]).clamp(min=self.threshold)
        return (probability < threshold) & labeled


class Dice(nn.Module):
    """1 - Dice of each image, over the probabilities of all pixels and classes. The mean of the images.

    Source: Milletari et al., V-Net, arXiv 1606.04797, equation 2; mmsegmentation's DiceLoss.
    """

    def __init__(self, eps: float = 1e-3, squared: bool = True, sigmoid: bool = False):
        """`eps`: added to both sums of squares. `squared`: False for sums without squares, to which `eps` is added once, as to the
        overlap (mmsegmentation's naive_dice). `sigmoid`: of each class instead of the softmax, also for masks of class indices.
        """
        super().__init__()
        _require(eps > 0, f"eps is {eps}; it must be above 0.")
        self.eps, self.squared, self.sigmoid = eps, squared, sigmoid

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        target, labeled = _targets(mask, logits)
        sigmoid = self.sigmoid or mask.ndim == logits.ndim
        probability = (logits.sigmoid() if sigmoid else logits.softmax(1)) * labeled
        overlap = 2 * (probability * target).flatten(1).sum(1)
        if self.squared:
            sums = probability.square().flatten(1).sum(1) + target.square().flatten(1).sum(1)
            dice = overlap / (sums + 2 * self.eps)
        else:
            dice = (overlap + self.eps) / (probability.flatten(1).sum(1) + target.flatten(1).sum(1) + self.eps)
        return ((1 - dice) * labeled.flatten(1).any(1)).mean()


class Lovasz(nn.Module):
    """Lovász-softmax, a convex extension of 1 - IoU of each class; the Lovász hinge if classes may overlap. The mean of the classes.

    Source: Berman et al., arXiv 1705.08790, and the authors' lovasz_softmax and lovasz_hinge.
    """

    def __init__(self, classes: Literal["present", "all"] = "present", per_image: bool = False):
        """`classes`: those that count, the "present" ones or all; with the hinge, all count. `per_image`: the IoU of each image
        instead of the batch.
        """
        super().__init__()
        self.classes, self.per_image = classes, per_image

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        target, labeled = _targets(mask, logits)
        hinge = mask.ndim == logits.ndim
        errors = 1 - logits * (2 * target - 1) if hinge else (target - logits.softmax(1)).abs()
        errors = errors.masked_fill(~labeled, -1)  # after all that are above 0
        if self.per_image:
            errors, target = errors.flatten(2), target.flatten(2)  # (B, classes, pixels)
        else:
            errors, target = (each.transpose(0, 1).flatten(1)[None] for each in (errors, target))  # (1, classes, pixels)
        losses = _lovasz_extension(errors, target)
        every = hinge or self.classes == "all"
        counted = torch.ones_like(losses, dtype=torch.bool) if every else target.sum(2) > 0
        of_images = (losses * counted).sum(1) / counted.sum(1).clamp(min=1)
        return of_images.mean()


class Focal(nn.Module):
    """Sigmoid focal loss: binary cross entropy of each class, of which easy pixels have small weights.

    The mean of the labeled pixels and classes. Source: Lin et al., arXiv 1708.02002, equation 5; mmsegmentation's FocalLoss.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float = 0.5,
        class_weight: Sequence[float] | None = None,
        average: Average = "labeled",
    ):
        """`alpha`: weight of the label; 1 - alpha: that of the other classes. `class_weight`: a factor for each class."""
        super().__init__()
        _require(gamma >= 0, f"gamma is {gamma}; it must be 0 or more.")
        _require(0 <= alpha <= 1, f"alpha is {alpha}; it must be a weight, 0 to 1.")
        self.gamma, self.alpha, self.average = gamma, alpha, average
        self.register_buffer("class_weight", _weights(class_weight), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Returns the loss ()."""
        target, labeled = _targets(mask, logits)
        probability = logits.sigmoid()
        missing = (1 - probability) * target + probability * (1 - target)
        factor = (self.alpha * target + (1 - self.alpha) * (1 - target)) * missing.pow(self.gamma)
        losses = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * factor
        if (weight := _checked(self.class_weight, logits)) is not None:
            losses = losses * weight[:, None, None]
        return _mean(losses, labeled, self.average)


def default_loss(multi_label: bool) -> nn.Module:
    """Returns the loss of the papers: cross entropy; the binary one of each class if classes may overlap."""
    return BinaryCrossEntropy() if multi_label else CrossEntropy()


def check_loss(loss: nn.Module, multi_label: bool) -> None:
    """Raises InputError if a loss or a part of it needs one class per pixel, and classes may overlap."""
    if multi_label and (unfit := [part for part in loss.modules() if getattr(part, "needs_one_class", False)]):
        raise InputError(
            f"task.loss is {type(unfit[0]).__name__}, which needs one class per pixel, and dataset.multi_label is set: use "
            f"BinaryCrossEntropy, Dice, Focal or Lovasz."
        )


def _lovasz_extension(errors: Tensor, target: Tensor) -> Tensor:
    """Returns the losses (groups, classes) of errors (groups, classes, pixels), negative for ignored pixels."""
    ordered, order = errors.sort(dim=2, descending=True)
    found = target.gather(2, order)
    size = found.sum(2, keepdim=True)
    jaccard = 1 - (size - found.cumsum(2)) / (size + (1 - found).cumsum(2))
    gradient = torch.diff(jaccard, dim=2, prepend=torch.zeros_like(jaccard[..., :1]))
    return (ordered.clamp(min=0) * gradient).sum(2)


def _targets(mask: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the 0 and 1 of each class, in the shape of the logits (B, classes, H, W), and what is labeled, (B, 1 or classes, H, W).

    Targets are 0 where a mask is ignored.
    """
    if mask.ndim == logits.ndim:
        return (mask == 1).to(logits.dtype), mask != IGNORE_INDEX
    classes = torch.arange(logits.shape[1], device=mask.device)
    return (mask[:, None] == classes[:, None, None]).to(logits.dtype), (mask != IGNORE_INDEX)[:, None]


def _mean(losses: Tensor, counted: Tensor, average: str) -> Tensor:
    """Returns the mean of losses (B, ...): their sum where `counted` holds, divided by the number of such, or of all for "all"."""
    total = (losses * counted).sum()
    return total / losses.numel() if average == "all" else _divide(total, counted.expand_as(losses).sum())


def _pixel_weights(mask: Tensor, class_weight: Tensor | None) -> Tensor:
    """Returns the weight (B, H, W) of each pixel: that of its class, and 0 if it is ignored."""
    labeled = mask != IGNORE_INDEX
    return labeled if class_weight is None else class_weight[mask.where(labeled, 0)] * labeled


def _divide(total: Tensor, weight: Tensor) -> Tensor:
    """Returns a weighted mean, and 0 for the weight 0."""
    return total / weight.where(weight > 0, 1)


def _weights(values: Sequence[float] | None, name: str = "class_weight") -> Tensor | None:
    if values is None:
        return None
    _require(min(values, default=-1.0) >= 0, f"{name} is {list(values)}; it must be a list of factors, 0 or more.")
    return torch.tensor(list(values), dtype=torch.float32)


def _require(condition: bool, message: str) -> None:
    """Raises InputError with a message unless the condition holds."""
    if not condition:
        raise InputError(f"task.loss: {message}")


def _checked(weights: Tensor | None, logits: Tensor, name: str = "class_weight") -> Tensor | None:
    """Returns the weights of the classes. Raises InputError if their number is not that of the classes."""
    if weights is not None and len(weights) != logits.shape[1]:
        raise InputError(
            f"task.loss: {name} has {len(weights)} numbers, but there are {logits.shape[1]} classes: "
            f"give one number for each class."
        )
    return weights if weights is None else weights.to(logits.dtype)
