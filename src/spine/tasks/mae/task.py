"""Masked pre-training on pixels: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Unpack

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spine.errors import InputError
from spine.interfaces import SampleExtra
from spine.layers.precision import at_least_float32
from spine.models.masked import MaskedModel
from spine.option_types import Config
from spine.reporting.figures import image_rows
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.mae.losses import masked_pixel_loss, normalize_patches
from spine.tasks.mae.masking import RandomPatchMask
from spine.tasks.mae.patches import patchify, unpatchify
from spine.tasks.samples import loss_of_each


class MaskedAutoencoding(Task):
    """Squared error on masked patches, each normalized by its own mean and variance if `norm_pix_loss`.

    A loss of one's own is called with predicted patches (B, N, P * P * 3), target patches and patch_mask (B, N).
    """

    name = "mae"
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[str] = "min"
    model: MaskedModel

    def __init__(self, *, mask_ratio: float = 0.75, norm_pix_loss: bool = True, **common: Unpack[TaskArguments]):
        """`mask_ratio`: fraction of masked patches. The data module draws the masks."""
        super().__init__(**common)
        if not 0 < mask_ratio < 1:
            raise InputError(f"task.mask_ratio is {mask_ratio}; it is the fraction of masked patches, between 0 and 1.")
        self.mask_ratio, self.norm_pix_loss = mask_ratio, norm_pix_loss

    def options(self) -> Config:
        """The fraction of masked patches, and the normalization of their pixels."""
        return {"mask_ratio": self.mask_ratio, "norm_pix_loss": self.norm_pix_loss}

    def sample_extras(self) -> Mapping[str, SampleExtra]:
        """A patch_mask for every sample."""
        grid = self.model.grid
        return {"patch_mask": RandomPatchMask(grid[0] * grid[1], self.mask_ratio)}

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and predicted patches (B, N, P * P * 3)."""
        prediction = at_least_float32(self.model(batch["image"], batch["patch_mask"]))
        return self._loss(prediction, batch), prediction

    def _loss(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        target = patchify(batch["image"], self.model.patch_size)
        if self.norm_pix_loss:
            target = normalize_patches(target)
        return (self.loss or masked_pixel_loss)(prediction, target, batch["patch_mask"])

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each sample."""
        return loss_of_each(self._loss, output, batch)

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`image` (B, 3, H, W): normalized, with predictions in the masked patches; `patch_mask` (B, N): True = masked."""
        patch_mask = batch["patch_mask"]
        prediction = self.model(batch["image"], patch_mask).float()
        return {"image": self._reconstruct(batch["image"], prediction, patch_mask), "patch_mask": patch_mask}

    def _reconstruct(self, image: Tensor, prediction: Tensor, patch_mask: Tensor) -> Tensor:
        """Images whose masked patches are predictions. Normalized predictions take mean and variance from the ground truth."""
        truth = patchify(image.float(), self.model.patch_size)
        if self.norm_pix_loss:
            variance, mean = torch.var_mean(truth, dim=-1, keepdim=True)
            prediction = prediction * (variance + 1e-6).sqrt() + mean
        return unpatchify(torch.where(patch_mask[..., None], prediction, truth), self.model.patch_size, self.model.grid)

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Masked input, reconstruction, original."""
        image, patch_mask = batch["image"].float(), batch["patch_mask"]
        hidden = torch.where(patch_mask[..., None], 0.0, patchify(image, self.model.patch_size))
        rows = {
            "masked": to_pixels(unpatchify(hidden, self.model.patch_size, self.model.grid)),
            "reconstructed": to_pixels(self._reconstruct(image, output.float(), patch_mask)),
            "original": to_pixels(image),
        }
        return {"reconstruction": image_rows(rows)}
