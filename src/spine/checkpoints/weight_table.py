"""Tables of published weight files, and the evaluation settings of each file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from spine.checkpoints.download import cached_path
from spine.checkpoints.input_settings import IMAGENET_MEAN, IMAGENET_STD, InputSettings
from spine.errors import InputError, nearest

SQUASHED = "evaluated on whole images squashed to a square; here the longer side is cropped."


class PublishedWeights(NamedTuple):
    """A weight file that a publisher offers, and how its metric was measured."""

    address: str
    license: str
    metric: str  # as the publisher reports it; none was measured here
    sha256: str = ""  # the hash or its first digits, if they are published
    image_size: int | tuple[int, int] | None = 224  # side of a square, or (height, width), in pixels; None if unknown
    crop_pct: float | None = 0.875  # image size divided by the size before the center crop; None if unknown or not cropped
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    layout: str | None = None  # name of the layout, if the file alone cannot determine it
    interpolation: str | None = "bilinear"  # or "bicubic", both antialiased as in PIL; None if unknown
    note: str = ""  # a difference of the images that spine cannot reproduce; completes "The weights were ..."

    @property
    def input_settings(self) -> InputSettings:
        """The settings of the images that the publisher evaluated it on."""
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        return InputSettings(size, self.crop_pct, self.interpolation, self.mean, self.std, self.note)


class Evaluation(TypedDict, total=False):
    """Optional fields of `PublishedWeights`, for settings that several files share."""

    image_size: int | tuple[int, int] | None
    crop_pct: float | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layout: str | None
    interpolation: str | None
    note: str


WeightTable = Mapping[str, Mapping[str, PublishedWeights]]  # variant -> name -> file


def hash_in_name(address: str, license: str, metric: str, **evaluation: Unpack[Evaluation]) -> PublishedWeights:
    """Returns a file whose name ends with the first digits of its SHA-256, as torchvision, timm and OpenMMLab name them."""
    return PublishedWeights(address, license, metric, Path(address).stem.rpartition("-")[2], **evaluation)


def published(name: str, table: WeightTable, variant: str) -> PublishedWeights:
    """Returns the file of a weight table by its name. Raises InputError with the names for this variant if there is none."""
    rows = table.get(variant, {})
    if name not in rows:
        others = sorted(other for other, other_rows in table.items() if name in other_rows)
        elsewhere = f" '{name}' is published for {', '.join(others)}." if others else ""
        raise InputError(
            f"There is no weights file '{name}', and no published weights of that name for variant '{variant}'."
            f"{nearest(name, list(rows))}{elsewhere} Names: {', '.join(rows) or 'none'}; or give the path of a file."
        )
    return rows[name]


def row_of_file(path: Path, table: WeightTable) -> PublishedWeights | None:
    """Returns the row of a weight table whose file has the same name as `path`. None if there is none, or more than one."""
    rows = {row for rows in table.values() for row in rows.values() if cached_path(row.address).name == path.name}
    return rows.pop() if len(rows) == 1 else None
