"""What a task says about single samples of an evaluated batch, for loggers and for the worst samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

TRUTH, PREDICTION = "ground_truth", "prediction"  # layers of masks and keypoints


@dataclass(frozen=True)
class SampleView:
    """One evaluated sample, as text and as layers over its image."""

    prediction: str = ""  # in words
    truth: str = ""
    masks: Mapping[str, np.ndarray] = field(default_factory=dict)  # by layer: (H, W) class indices, 255 = ignored
    mask_classes: Sequence[str] = ()
    keypoints: Mapping[str, np.ndarray] = field(default_factory=dict)  # by layer: (K, 3) x, y in pixels, score or visibility
    keypoint_names: Sequence[str] = ()
    image: np.ndarray | None = None  # (H, W, 3) uint8; set by the caller of the task
    loss: float | None = None
    index: int | None = None  # in the data set
    file: str = ""


def loss_of_each(loss: Callable[[Tensor, Mapping[str, Tensor]], Tensor], output: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the loss (B,) of each sample, computed as that of a batch of one."""
    losses = [loss(output[i : i + 1], {key: value[i : i + 1] for key, value in batch.items()}) for i in range(len(output))]
    return torch.stack(losses)
