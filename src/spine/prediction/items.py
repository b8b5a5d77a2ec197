"""Images on their way through a predictor: read, transformed and batched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from spine.data.collation import collate
from spine.data.image_files import read_image
from spine.errors import InputError
from spine.interfaces import Sample
from spine.prediction.boxes import BoxTable
from spine.prediction.preprocessing import Boxes, Preprocessing, whole_image
from spine.prediction.sources import ImageFile


@dataclass(frozen=True)
class Item:
    """One image of a source.

    index: its place in the source. name: of the file, relative to the source; of a frame `video.mp4#000012`.
    path: the file. pixels: (H, W, 3) uint8 of an image that is not a file; None for files, which are read again to be drawn.
    size: (height, width) of the image. boxes, box_scores: (n, 4) and (n,) of the objects, for keypoints.
    image_id: number of the image in the file of boxes. error: why the file cannot be read.
    samples: the inputs of the network, until they are batched.
    """

    index: int
    name: str
    path: str | None = None
    pixels: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    boxes: Boxes | None = None
    box_scores: np.ndarray | None = None
    image_id: int | None = None
    error: str = ""
    samples: Sequence[Sample] = field(default=(), repr=False)

    @property
    def number(self) -> int:
        """The number of the image in COCO's results: that of the file of boxes, else its place in the source, from 1."""
        return self.index + 1 if self.image_id is None else self.image_id

    @property
    def image(self) -> np.ndarray:
        """The image (H, W, 3) uint8 RGB. Files are read again: batches of large images would fill the memory."""
        if self.pixels is not None:
            return self.pixels
        assert self.path is not None
        return _upright_if_shown_so(self.path, self.size)


class ItemBatch(NamedTuple):
    """Items, and the batch of their samples.

    counts: number of samples of each item. batch: None without samples. unreadable: items with an error; they have no samples.
    """

    items: list[Item]
    counts: list[int]
    batch: dict[str, Tensor] | None
    unreadable: list[Item]


def collate_items(items: Sequence[Item]) -> ItemBatch:
    """Batches the samples of items."""
    good = [item for item in items if not item.error]
    samples = [sample for item in good for sample in item.samples]
    return ItemBatch(
        [replace(item, samples=()) for item in good],
        [len(item.samples) for item in good],
        collate(samples) if samples else None,
        [item for item in items if item.error],
    )


def make_item(item: Item, image: np.ndarray, preprocessing: Preprocessing) -> Item:
    """Returns an item with its samples, made from its image (H, W, 3) uint8."""
    boxes = item.boxes
    if preprocessing.finds_keypoints and boxes is None:
        boxes = whole_image(image)
    samples = preprocessing(image, item.index, boxes, item.box_scores)
    return replace(item, size=(image.shape[0], image.shape[1]), boxes=boxes, samples=samples)


class FileItems(Dataset):
    """The items of files. A file that cannot be read becomes an item with an error."""

    def __init__(self, files: Sequence[ImageFile], preprocessing: Preprocessing, boxes: BoxTable | None = None):
        self.files, self.preprocessing, self.boxes = files, preprocessing, boxes

    def __len__(self) -> int:
        """Number of files."""
        return len(self.files)

    def __getitem__(self, place: int) -> Item:
        """Returns the item of one file."""
        file = self.files[place]
        item = Item(file.index, file.name, path=file.path)
        try:
            size = None
            if self.boxes is not None:
                found = self.boxes.of_file(file.name)
                size = found.size
                item = replace(item, boxes=found.boxes, box_scores=found.scores, image_id=found.image_id)
            image = read_image(file.path, size, upright=size is None)
            return make_item(item, image, self.preprocessing)
        except (InputError, OSError, cv2.error) as error:
            return replace(item, error=_first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _upright_if_shown_so(path: str, size: tuple[int, int]) -> np.ndarray:
    """Returns the image of a file as the network saw it: boxes may be in pixels of an image that is not turned upright."""
    image = read_image(path)
    return image if image.shape[:2] == size else read_image(path, size)
