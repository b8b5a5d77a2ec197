"""Batches of samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Sample
from spine.layers.image_sizes import stack_padded

IMAGES = ("image", "tokenizer_image")


def collate(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Stacks samples. Images (B, 3, H, W) are channels_last without a copy.

    Samples with `image_size` may have images and masks of different sizes. These are padded at the
    bottom and at the right: images with 0, masks with IGNORE_INDEX. Spare samples are left out if
    there are others. Raises InputError if other
    samples have images of different sizes.
    """
    samples = [sample for sample in samples if "spare" not in sample] or samples[:1]
    batch: dict[str, torch.Tensor] = {}
    for key in samples[0]:
        tensors = [sample[key] for sample in samples]  # type: ignore[literal-required]
        if key in IMAGES:
            if "image_size" not in samples[0]:
                _check_sizes(tensors)
            if len({tensor.dtype for tensor in tensors}) > 1:  # pixels and normalized images
                raise InputError("Steps of augment.train return images of different types: all must be uint8 pixels, or none.")
            batch[key] = stack_padded([tensor.permute(1, 2, 0) for tensor in tensors], 0).permute(0, 3, 1, 2)
        elif key == "mask":
            batch[key] = stack_padded(tensors, IGNORE_INDEX)
        else:
            batch[key] = torch.stack(tensors)
    return batch


def _check_sizes(images: Sequence[torch.Tensor]) -> None:
    sizes = sorted({(image.shape[1], image.shape[2]) for image in images})
    if len(sizes) > 1:
        shown = " and ".join(f"{height}x{width}" for height, width in sizes[:2])
        raise InputError(
            f"The images of a batch have different sizes, such as {shown}. Add a step to augment.train or augment.eval that resizes "
            f"or crops all images to one size."
        )
