"""Batches of images of different sizes: they are padded at the bottom and at the right, and taken apart again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def stack_padded(arrays: Sequence[Tensor], value: float) -> Tensor:
    """Stacks arrays with the same number of axes, (B, ...). `value` fills the padding at the end of each axis."""
    if len({array.shape for array in arrays}) == 1:
        return torch.stack(list(arrays))
    shape = [max(sides) for sides in zip(*(array.shape for array in arrays), strict=True)]
    stacked = arrays[0].new_full((len(arrays), *shape), value)
    for place, array in zip(stacked, arrays, strict=True):
        place[tuple(slice(side) for side in array.shape)] = array
    return stacked


def images_by_size(batch: Mapping[str, Tensor]) -> Iterator[tuple[list[int], Tensor]]:
    """Yields the images (b, 3, h, w) of each size in a batch, with their rows.

    The padding to the largest image of the batch is left out, so that the output of a network does
    not depend on the other images. A batch without `image_size` has images of one size.
    """
    image = batch["image"]
    if "image_size" not in batch:
        yield list(range(len(image))), image
        return
    rows: dict[tuple[int, int], list[int]] = {}
    for row, (height, width) in enumerate(batch["image_size"].tolist()):
        rows.setdefault((height, width), []).append(row)
    for (height, width), own in rows.items():
        yield own, (image if len(own) == len(image) else image[own])[..., :height, :width]


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads images (B, C, H, W) with 0 at the bottom and at the right, so that both sides are multiples of a number."""
    bottom, right = (-side % multiple for side in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom)) if bottom or right else image
