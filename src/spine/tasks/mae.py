"""Masked pre-training on pixels: Masked Autoencoders Are Scalable Vision Learners (He et al., CVPR 2022, arXiv 2111.06377)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from torch import Tensor

from spine import pictures
from spine.errors import InputError
from spine.losses import masked_pixel_loss, normalise_patches
from spine.targets import patchify, unpatchify
from spine.tasks.base import Batch, Show, Task


class MaskedAutoencoding(Task):
    """Squared error on hidden patches, each normalised by itself where `norm_pix_loss`."""

    name = "mae"
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[str] = "min"

    def __init__(self, *, mask_ratio: float = 0.75, norm_pix_loss: bool = True, **common: Any):
        """`mask_ratio`: share of hidden patches; the data module draws which."""
        super().__init__(**common)
        if not 0 < mask_ratio < 1:
            raise InputError(f"task.mask_ratio is {mask_ratio}; it is the share of hidden patches, between 0 and 1.")
        self.mask_ratio, self.norm_pix_loss = mask_ratio, norm_pix_loss

    def measure(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and predicted patches (B, N, P * P * 3)."""
        image, patch_mask = batch["image"], batch["patch_mask"]
        prediction = self.model(image, patch_mask).float()
        target = patchify(image, self.model.patch_size)  # type: ignore[arg-type]
        if self.norm_pix_loss:
            target = normalise_patches(target)
        return masked_pixel_loss(prediction, target, patch_mask), prediction

    def draw(self, batch: Batch, output: Tensor, show: Show) -> dict[str, Figure]:
        """Masked input, reconstruction, original. Normalised predictions borrow mean and deviation from the true patch."""
        image, hidden, patch = batch["image"].float(), batch["patch_mask"][..., None], self.model.patch_size
        truth, painted = patchify(image, patch), output.float()  # type: ignore[arg-type]
        if self.norm_pix_loss:
            variance, mean = torch.var_mean(truth, dim=-1, keepdim=True)
            painted = painted * (variance + 1e-6).sqrt() + mean
        rows = {"seen": torch.zeros_like(truth), "reconstructed": painted}
        shown = {
            name: show(unpatchify(torch.where(hidden, x, truth), patch, self.model.grid))  # type: ignore[arg-type]
            for name, x in rows.items()
        }
        return {"reconstruction": pictures.image_rows({**shown, "original": show(image)})}
