"""Rows of the tables of published weight files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spine.checkpoints.download import cached_path
from spine.checkpoints.input_settings import IMAGENET_MEAN, IMAGENET_STD, InputSettings
from spine.errors import InputError, nearest

SQUASHED = "evaluated on whole images squashed to a square; here the longer side is cropped."


class PublishedWeights(NamedTuple):
    """A file that a publisher offers, and how its numbers were measured."""

    address: str
    license: str
    metric: str  # as the publisher reports it; none of them was measured here
    sha256: str = ""  # its beginning, where one is published
    image_size: int | tuple[int, int] | None = 224  # one side of a square, or height and width; None where nobody says it
    crop_pct: float | None = 0.875
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    layout: str | None = None  # where the file cannot tell
    interpolation: str | None = "bilinear"  # or bicubic, antialiased as PIL's

    note: str = ""  # how the publisher's images differ from all that spine can do, as a sentence

    @property
    def input_settings(self) -> InputSettings:
        """The images that the publisher evaluated it on."""
        size = (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size
        return InputSettings(size, self.crop_pct, self.interpolation, self.mean, self.std, self.note)


WeightTable = Mapping[str, Mapping[str, PublishedWeights]]  # variant -> name -> file


def hashed(address: str, license: str, metric: str, **facts: Any) -> PublishedWeights:
    """A file whose name ends in the beginning of its SHA-256, as those of torchvision, timm and OpenMMLab do."""
    return PublishedWeights(address, license, metric, Path(address).stem.rpartition("-")[2], **facts)


def published(name: str, table: WeightTable, variant: str) -> PublishedWeights:
    """A row of a backbone's weight table; InputError with the names that there are for this variant."""
    rows = table.get(variant, {})
    if name not in rows:
        others = sorted(other for other, their_rows in table.items() if name in their_rows)
        elsewhere = f" '{name}' is published for {', '.join(others)}." if others else ""
        raise InputError(
            f"There is no weights file '{name}', and no published weights of that name for variant '{variant}'."
            f"{nearest(name, list(rows))}{elsewhere} Names: {', '.join(rows) or 'none'}; or give the path of a file."
        )
    return rows[name]


def row_of_file(path: Path, table: WeightTable) -> PublishedWeights | None:
    """The row of a weight table whose published file has the name of `path`; None where there is none, or more than one."""
    rows = {row for rows in table.values() for row in rows.values() if cached_path(row.address).name == path.name}
    return rows.pop() if len(rows) == 1 else None
