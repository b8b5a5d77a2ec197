"""Inputs of networks, from a data set or from rendered images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spine.data.collation import collate
from spine.data.data_module import DataModule
from spine.data.formats.shapes import Shapes
from spine.data.transforms.pipeline import to_pixels
from spine.exporting.checking import Inputs
from spine.layers.image_sizes import images_by_size
from spine.prediction.description import ModelDescription
from spine.prediction.predictor import Predictor

Size = tuple[int, int]  # height, width


@dataclass(frozen=True)
class SampleSource:
    """Where the images come from that a file is checked with.

    data: the data set of the model; None if it is not here: images are then rendered. size: (height, width) of the network's images.
    """

    predictor: Predictor
    data: DataModule | None
    size: Size

    @property
    def description(self) -> ModelDescription:
        """Of the model."""
        return self.predictor.description

    def name(self, split: str) -> str:
        """Returns the origin of the images, for messages."""
        return f"of the {split} split" if self.data is not None else "rendered"

    def inputs(self, split: str, count: int) -> Iterator[Inputs]:
        """Yields the inputs of the network for `count` images, one image each: image (1, 3, H, W), patch_mask (1, N) if masked."""
        left = count
        for batch in self._batches(split, count):
            more = [batch["patch_mask"]] if "patch_mask" in batch else []
            for rows, images in images_by_size(batch):
                fitted = fit(images, self.size)
                for place, row in enumerate(rows):
                    if left == 0:
                        return
                    left -= 1
                    yield fitted[place : place + 1].contiguous(), *(x[row : row + 1] for x in more)

    def _batches(self, split: str, count: int) -> Iterator[Mapping[str, Tensor]]:
        if self.data is not None:
            yield from self.data.loader(split)
            return
        for i in range(count):
            image = Shapes(split="val", length={"val": count}).load(i)["image"]
            yield collate(self.predictor.preprocessing(image, i))


def fit(images: Tensor, size: Size) -> Tensor:
    """Crops images (B, 3, H, W) at the bottom and at the right to `size`, or repeats them there if they are smaller."""
    height, width = size
    repeats = (-(-height // images.shape[-2]), -(-width // images.shape[-1]))
    return images.repeat(1, 1, *repeats)[..., :height, :width]


def stack(inputs: list[Inputs]) -> Inputs:
    """Joins inputs of one image each to a batch."""
    return tuple(torch.cat(each) for each in zip(*inputs, strict=True))


def pixels_of(inputs: Inputs, description: ModelDescription) -> Inputs:
    """Returns the inputs of a file that takes pixels: (B, H, W, 3) uint8 in place of normalized images."""
    image = to_pixels(inputs[0], description.mean, description.std, description.channels)
    return torch.from_numpy(image), *inputs[1:]
