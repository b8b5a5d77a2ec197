"""Class scores of images of any size: in one pass or in sliding crops, averaged over scales and mirrored images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from spine.errors import InputError
from spine.layers.conv import resize_map
from spine.layers.image_sizes import images_by_size, pad_to_multiple
from spine.layers.precision import at_least_float32

Size = tuple[int, int]  # height, width
Network = Callable[[Tensor], Tensor]  # images (B, 3, H, W) -> logits (B, classes, h, w)


@dataclass(frozen=True)
class Inference:
    """Computes class scores as mmsegmentation does, with its `test_cfg` and its test-time augmentation.

    mode: "whole": the network gets the whole image. "slide": it gets one crop of `crop_size` at a time.
        Crops are `crop_stride` apart, and the last ones end at the border of the image. Logits are
        averaged where crops overlap. An image that is smaller than a crop is one crop.
    scales: factors of the size of the image. flip: the mirrored image is evaluated too. The
        probabilities of all of these views are averaged.
    multiple: to which the sides of an image or crop are padded for the network.
    multi_label: whether classes may overlap: the probability of each is a sigmoid instead of a softmax.
    align_corners: of the bilinear filter that resizes logits: that of the head, as in mmsegmentation.
    """

    mode: Literal["whole", "slide"] = "whole"
    crop_size: Size = (512, 512)
    crop_stride: Size = (341, 341)
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    multiple: int = 1
    multi_label: bool = False
    align_corners: bool = False

    def __post_init__(self) -> None:
        if self.mode == "slide" and any(stride > side for stride, side in zip(self.crop_stride, self.crop_size, strict=True)):
            raise InputError(
                f"task.crop_stride is {list(self.crop_stride)}, larger than task.crop_size={list(self.crop_size)}: pixels between the "
                f"crops would have no prediction. Set it to at most the size of a crop."
            )

    @property
    def views(self) -> list[tuple[float, bool]]:
        """Scale and mirroring of every view."""
        return [(scale, flipped) for scale in self.scales for flipped in (False, True)[: 1 + self.flip]]

    @property
    def description(self) -> str:
        """The inference in words, such as "crops of 512x512, 341x341 apart; scales 0.5 and 1, mirrored too"."""
        crop, stride = ("x".join(map(str, size)) for size in (self.crop_size, self.crop_stride))
        parts = [f"crops of {crop}, {stride} apart" if self.mode == "slide" else "whole images"]
        if self.scales != (1.0,):
            parts.append(f"scale{'s' * (len(self.scales) > 1)} {', '.join(f'{scale:g}' for scale in self.scales)}")
        if self.flip:
            parts.append("mirrored too")
        return ", ".join(parts)

    @torch.no_grad()
    def scores(self, network: Network, batch: Mapping[str, Tensor], sizes: Sequence[Size]) -> Iterator[tuple[int, Tensor]]:
        """Yields the row of each image of a batch, and its scores (classes, height, width) at the size in `sizes`.

        Scores are logits: those of the network, or those of averaged probabilities. Only the scores of
        one image are in memory. Rows come in any order.
        """
        for rows, images in images_by_size(batch):
            if self._is_one_pass:
                logits = at_least_float32(network(pad_to_multiple(images, self.multiple)))
                for row, each in zip(rows, logits.split(1), strict=True):
                    yield row, self._resize(self._at_input(each, images), sizes[row])[0]
            else:
                for row, image in zip(rows, images.split(1), strict=True):
                    yield row, self._average(network, image, sizes[row])[0]

    def count_passes(self, batch: Mapping[str, Tensor]) -> int:
        """Returns how often `scores` calls the network for a batch."""
        total = 0
        for rows, images in images_by_size(batch):
            size = (images.shape[-2], images.shape[-1])
            views = 1 if self._is_one_pass else len(rows) * (1 + self.flip)
            total += views * sum(len(self._crops(scaled(size, scale))) for scale in self.scales)
        return total

    @property
    def _is_one_pass(self) -> bool:
        return self.mode == "whole" and self.views == [(1.0, False)]

    def _average(self, network: Network, image: Tensor, size: Size) -> Tensor:
        """Scores (1, classes, *size) of one image (1, 3, H, W)."""
        if self.views == [(1.0, False)]:
            return self._resize(self._logits(network, image), size)
        total: Tensor | None = None
        for scale, flipped in self.views:
            view = resize_map(image, scaled((image.shape[-2], image.shape[-1]), scale))
            logits = self._logits(network, view.flip(-1) if flipped else view)
            logits = self._resize(logits.flip(-1) if flipped else logits, size)
            probabilities = logits.sigmoid() if self.multi_label else logits.softmax(1)
            total = probabilities if total is None else total.add_(probabilities)
        assert total is not None
        mean, limits = total.div_(len(self.views)), torch.finfo(total.dtype)
        return mean.logit_(limits.eps) if self.multi_label else mean.clamp_(min=limits.tiny).log_()

    def _logits(self, network: Network, image: Tensor) -> Tensor:
        """Logits (1, classes, H, W) of one view (1, 3, H, W), at its size."""
        windows = self._crops((image.shape[-2], image.shape[-1]))
        total: Tensor | None = None
        count = image.new_zeros(1, 1, *image.shape[-2:])
        for rows, columns in windows:
            crop = image[..., rows, columns]
            logits = self._at_input(at_least_float32(network(pad_to_multiple(crop, self.multiple))), crop)
            if len(windows) == 1:
                return logits
            if total is None:
                total = logits.new_zeros(1, logits.shape[1], *image.shape[-2:])
            total[..., rows, columns] += logits
            count[..., rows, columns] += 1
        assert total is not None
        return total.div_(count)

    def _at_input(self, logits: Tensor, image: Tensor) -> Tensor:
        """Resizes the logits of a padded image to its pixels, and leaves out the padding."""
        height, width = image.shape[-2:]
        padded = height + -height % self.multiple, width + -width % self.multiple
        return self._resize(logits, padded)[..., :height, :width]

    def _resize(self, logits: Tensor, size: Size) -> Tensor:
        return resize_map(logits, size, align_corners=self.align_corners)

    def _crops(self, size: Size) -> list[tuple[slice, slice]]:
        """Rows and columns of each crop of an image of `size`."""
        if self.mode == "whole":
            return [(slice(0, size[0]), slice(0, size[1]))]
        rows, columns = (
            [slice(start, start + min(crop, side)) for start in starts(side, crop, stride)]
            for side, crop, stride in zip(size, self.crop_size, self.crop_stride, strict=True)
        )
        return [(row, column) for row in rows for column in columns]


def starts(side: int, crop: int, stride: int) -> list[int]:
    """Returns where crops begin on a side. They are `stride` apart; the last one ends at the end of the side."""
    last = max(side - crop, 0)
    return [min(i * stride, last) for i in range(math.ceil(last / stride) + 1)]


def scaled(size: Size, scale: float) -> Size:
    """Returns a size times a factor, rounded as mmcv rounds."""
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def default_stride(crop_size: Size) -> Size:
    """Returns a stride with which neighboring crops overlap by a third, such as 341 pixels for crops of 512."""
    return max(1, crop_size[0] * 2 // 3), max(1, crop_size[1] * 2 // 3)
