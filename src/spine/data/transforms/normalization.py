"""Normalization of pixels: of one image, or of a batch on its device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Normalization:
    """Computes (pixels / 255 - mean) / std in float32, as one multiplication and one addition.

    The result is the same for an image and for a batch, on every device.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], channels: str = "rgb"):
        """`mean`, `std`: of red, green and blue pixels in 0..1. `channels`: their order in the batches, "rgb" or "bgr"."""
        self.scale = (1 / (255 * np.array(std))).astype(np.float32)
        self.shift = (-np.array(mean) / np.array(std)).astype(np.float32)
        order = slice(None, None, -1 if channels == "bgr" else 1)
        self.of_channels = torch.tensor(np.stack([self.scale[order], self.shift[order]]))
        self.on_device: dict[tuple[torch.device, int], Tensor] = {}  # scale and shift of rows of pixels

    def image(self, pixels: np.ndarray) -> np.ndarray:
        """Returns RGB pixels (H, W, 3) as float32."""
        width = pixels.shape[1]
        rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)  # long rows are several times faster than rows of 3 numbers
        normalized = rows * np.tile(self.scale, width)
        normalized += np.tile(self.shift, width)
        return normalized.reshape(pixels.shape)

    def batch(self, pixels: Tensor) -> Tensor:
        """Returns pixels (B, 3, H, W) uint8, which are channels_last, as float32 in channels_last."""
        rows = pixels.permute(0, 2, 3, 1).flatten(2)
        key = (pixels.device, pixels.shape[-1])
        if key not in self.on_device:
            self.on_device = {key: self.of_channels.to(pixels.device).repeat(1, pixels.shape[-1])}
        scale, shift = self.on_device[key]
        if rows.device.type == "cpu":  # image by image, each of which stays in the processor's cache
            normalized = torch.from_numpy(np.empty(rows.shape, np.float32))  # NumPy's memory has huge pages: several times faster
            for result, image in zip(normalized, rows, strict=True):
                result.copy_(image).mul_(scale).add_(shift)
        else:
            normalized = rows.to(torch.float32).mul_(scale).add_(shift)
        return normalized.unflatten(2, (-1, 3)).permute(0, 3, 1, 2)
