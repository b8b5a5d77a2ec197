"""Mixup and cutmix of whole batches on their device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spine.data.transforms.resizing import Size
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, BatchTransform

NO_BOX = (0, 0, 0, 0)
Box = tuple[int, int, int, int]  # top, bottom, left, right


class Draws(NamedTuple):
    """How each sample is mixed with its partner. n is the number of samples, or 1 for all of them."""

    labels: np.ndarray  # (n,): share of the sample's own label
    pixels: np.ndarray  # (n,): share of the sample's own pixels in the blend (mixup); 1 with cutmix
    boxes: np.ndarray  # (n, 4): box of pixels that is taken from the partner (cutmix); empty with mixup


class Mixing(BatchTransform):
    """Mixes each image of a batch with its partner, and their labels, as timm's Mixup does.

    Mixup (Zhang et al., arXiv 1710.09412) blends the images. Cutmix (Yun et al., arXiv 1905.04899)
    pastes a box of the partner. The partner of the first sample is the last one, and so on, so the
    number of samples must be even.
    """

    def __init__(
        self,
        mixup: float = 0.8,
        cutmix: float = 1.0,
        cutmix_minmax: Sequence[float] | None = None,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        mode: Literal["batch", "pair", "elem"] = "batch",
        off_epochs: int = 0,
    ):
        """`mixup`, `cutmix`: alpha of the Beta distribution of the share of the own label; 0 turns one off.
        `cutmix_minmax`: range of the sides of a box relative to those of the image, drawn instead of
        its area; turns cutmix on.

        `prob`: of mixing at all. `switch_prob`: of cutmix instead of mixup, if both are on. `mode`:
        draw these for each "batch", "pair" of partners, or sample ("elem"). `off_epochs`: number of
        last epochs without mixing. Raises InputError if a value is not possible.
        """
        if mixup < 0 or cutmix < 0 or off_epochs < 0:
            raise InputError(
                f"augment.batch: mixup is {mixup}, cutmix {cutmix} and off_epochs {off_epochs}; none may be negative."
            )
        if not (mixup or cutmix or cutmix_minmax):
            raise InputError("augment.batch: mixup and cutmix are both 0. Set one of them above 0, or augment.batch=null.")
        if not (0 <= prob <= 1 and 0 <= switch_prob <= 1):
            raise InputError(f"augment.batch: prob is {prob} and switch_prob {switch_prob}; both must be from 0 to 1.")
        if mode not in ("batch", "pair", "elem"):
            raise InputError(f"augment.batch: mode is '{mode}'; choices: batch, pair, elem.")
        if cutmix_minmax is not None and not (len(cutmix_minmax) == 2 and 0 <= cutmix_minmax[0] < cutmix_minmax[1] <= 1):
            raise InputError(
                f"augment.batch: cutmix_minmax is {list(cutmix_minmax)}; it must be two fractions in ascending order, such as [0.2, 0.8]."
            )
        self.mixup, self.cutmix = mixup, 1.0 if cutmix_minmax is not None else cutmix
        self.minmax = None if cutmix_minmax is None else (cutmix_minmax[0], cutmix_minmax[1])
        self.prob, self.switch_prob, self.mode, self.off_epochs = prob, switch_prob, mode, off_epochs

    def __call__(self, batch: dict[str, Tensor], classes: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Returns the mixed `image` (B, 3, H, W), and `target` (B, classes), the shares of the labels.

        Raises InputError if the number of samples is odd.
        """
        image, label = batch["image"], batch["label"]
        if len(image) % 2:
            raise InputError(
                f"augment.batch mixes pairs of images, but a batch has {len(image)}. Set an even dataset.batch_size, and a "
                f"dataset.global_batch_size that all processes divide into even batches, or augment.batch=null."
            )
        draws = self.draw(len(image), (image.shape[2], image.shape[3]), rng)
        own, other = (_column(share, image.device, torch.float32) for share in (draws.labels, 1 - draws.labels))
        one_hot = F.one_hot(label, classes).float() if label.ndim == 1 else label
        target = one_hot * own + one_hot.flip(0) * other
        if label.ndim == 2:  # several classes: what is unknown in one of two images is unknown
            target = target.masked_fill((label == IGNORE_INDEX) | (label == IGNORE_INDEX).flip(0), IGNORE_INDEX)
        return {"image": mix_images(image, draws), "target": target}

    def draw(self, count: int, size: Size, rng: np.random.Generator) -> Draws:
        """Returns the random numbers for `count` images of `size` (height, width)."""
        if self.mode == "batch":
            share, cut = self._draw_share(rng)
            return self._with_boxes(np.array([share]), np.array([cut]), size, rng)
        shares, cuts = self._draw_shares(count if self.mode == "elem" else count // 2, rng)
        draws = self._with_boxes(shares, cuts, size, rng)
        return draws if self.mode == "elem" else Draws(*(np.concatenate([values, values[::-1]]) for values in draws))

    def _draw_share(self, rng: np.random.Generator) -> tuple[float, bool]:
        """The share of the own label before a box is cut off by the border, and whether to use cutmix."""
        if rng.random() >= self.prob:
            return 1.0, False
        cut = rng.random() < self.switch_prob if self.mixup and self.cutmix else self.cutmix > 0
        alpha = self.cutmix if cut else self.mixup
        return float(rng.beta(alpha, alpha)), cut

    def _draw_shares(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The same for `count` samples: (count,) float32 and (count,) bool."""
        cuts = rng.random(count) < self.switch_prob if self.mixup and self.cutmix else np.full(count, self.cutmix > 0)
        of_cutmix = rng.beta(self.cutmix, self.cutmix, size=count) if self.cutmix else np.ones(count)
        of_mixup = rng.beta(self.mixup, self.mixup, size=count) if self.mixup else np.ones(count)
        shares = np.where(cuts, of_cutmix, of_mixup).astype(np.float32)
        return np.where(rng.random(count) < self.prob, shares, np.float32(1)), cuts

    def _with_boxes(self, shares: np.ndarray, cuts: np.ndarray, size: Size, rng: np.random.Generator) -> Draws:
        """Draws the boxes of cutmix. The share of the own label becomes that of the pixels outside of the box."""
        cuts = cuts & (shares != 1)
        boxes = [self._draw_box(float(share), size, rng) if cut else NO_BOX for share, cut in zip(shares, cuts, strict=True)]
        top, bottom, left, right = np.array(boxes).T
        outside = 1.0 - (bottom - top) * (right - left) / (size[0] * size[1])
        return Draws(
            np.where(cuts, outside.astype(shares.dtype), shares), np.where(cuts, shares.dtype.type(1), shares), np.array(boxes)
        )

    def _draw_box(self, share: float, size: Size, rng: np.random.Generator) -> Box:
        height, width = size
        if self.minmax is not None:
            low, high = self.minmax
            h, w = (int(rng.integers(int(side * low), max(int(side * low) + 1, int(side * high)))) for side in size)
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return top, top + h, left, left + w
        h, w = int(height * np.sqrt(1 - share)), int(width * np.sqrt(1 - share))
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))  # the center
        return max(y - h // 2, 0), min(y + (h + 1) // 2, height), max(x - w // 2, 0), min(x + (w + 1) // 2, width)


def mix_images(image: Tensor, draws: Draws) -> Tensor:
    """Returns images (B, 3, H, W), each mixed with its partner."""
    partner = image.flip(0)
    if (draws.pixels != 1).any():
        own, other = (_column(share, image.device, image.dtype)[..., None, None] for share in (draws.pixels, 1 - draws.pixels))
        image = (image * own).add_(partner * other)
    if draws.boxes.any():
        top, bottom, left, right = torch.from_numpy(draws.boxes).to(image.device).T[:, :, None]  # (n, 1) each
        rows, columns = (torch.arange(side, device=image.device) for side in image.shape[2:])
        in_rows, in_columns = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        image = torch.where((in_rows[:, :, None] & in_columns[:, None])[:, None], partner, image)
    return image


def _column(values: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.from_numpy(values).to(device, dtype)[:, None]
