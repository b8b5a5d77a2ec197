"""Predicted visual tokens of masked images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
import torch
from torch import Tensor

from spine.option_types import Config
from spine.prediction.drawing import hide_patches, panels
from spine.prediction.items import Item
from spine.prediction.prediction import Prediction, Row
from spine.tasks.base import Batch, Task, ToPixels
from spine.tokenizers.frozen import FrozenTokenizer


@dataclass(frozen=True, eq=False)
class Tokens(Prediction):
    """The most probable token of each patch.

    tokens, true_tokens: (h, w) int64 of the patches down and across; the true ones are those of the tokenizer for the complete image.
    patch_mask: (h, w) bool, True = masked. original: (H, W, 3) uint8, the image as the network saw it, without the mask.
    """

    tokens: np.ndarray
    true_tokens: np.ndarray
    patch_mask: np.ndarray
    original: np.ndarray
    tokenizer: FrozenTokenizer
    pictures, suffix = "reconstructions", ".png"

    @classmethod
    def of_item(cls, item: Item, inputs: Batch, outputs: Mapping[str, Tensor], task: Task, to_pixels: ToPixels) -> Self:
        """Returns the prediction for an item; see `Prediction.of_item`."""
        assert task.tokenizer is not None
        grids = (outputs["tokens"], inputs["tokens"], outputs["patch_mask"])
        tokens, truth, mask = (each[0].view(*task.model.grid).numpy() for each in grids)  # type: ignore[misc]
        return cls(item, task.labels, tokens, truth, mask, to_pixels(inputs["image"])[0], task.tokenizer)

    @property
    def correct(self) -> int:
        """The number of masked patches whose token is predicted."""
        return int(((self.tokens == self.true_tokens) & self.patch_mask).sum())

    @property
    def masked(self) -> np.ndarray:
        """What the network saw of the image, (H, W, 3) uint8: masked patches are gray."""
        return hide_patches(self.original, self.patch_mask)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Returns the pixels (H, W, 3) uint8 that tokens (h, w) stand for. Raises InputError if the tokenizer has no decoder."""
        pixels = self.tokenizer.decode(torch.from_numpy(tokens).reshape(1, -1), tokens.shape)
        return (pixels[0] * 255).round().byte().permute(1, 2, 0).numpy()

    @property
    def caption(self) -> str:
        """How many masked tokens are predicted."""
        return f"{self.correct} of {int(self.patch_mask.sum())} masked tokens"

    def draw(self) -> np.ndarray:
        """Returns the masked image, decoded tokens, those of the complete image, and the original side by side.

        Tokens are predicted where patches are masked. Without a decoder, only both images are drawn.
        """
        if not self.tokenizer.has_decoder:
            return panels((self.masked, self.original), ("masked", "original"))
        pair = (np.where(self.patch_mask, self.tokens, self.true_tokens), self.true_tokens)
        height, width = self.original.shape[:2]
        decoded = [_resized(self.decode(tokens), height, width) for tokens in pair]
        return panels((self.masked, *decoded, self.original), ("masked", "predicted tokens", "true tokens", "original"))

    def record(self, top_k: int = 5) -> Config:
        """Returns the file, its tokens, and how many masked ones are predicted."""
        return {
            "file": self.name,
            "masked_patches": int(self.patch_mask.sum()),
            "correct": self.correct,
            "tokens": self.tokens.ravel().tolist(),
        }

    @classmethod
    def rows(cls, record: Config) -> list[Row]:
        """Returns one row."""
        return [{key: record[key] for key in ("file", "masked_patches", "correct")}]


def _resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    return image if image.shape[:2] == (height, width) else cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
