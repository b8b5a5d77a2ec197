"""The pictures of a report: predictions, the worst and the best samples, and other figures of the evaluation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from spine.reporting.pages.page import relative_link
from spine.reporting.pages.pictures import data_uri

MAX_WIDTH = 1400  # pixels
MAX_BYTES = 6_000_000  # of all pictures of a report
WORST, BEST = "worst", "best"
RANKED = {WORST: "Samples with the highest losses", BEST: "Samples with the lowest losses"}


@dataclass(frozen=True)
class Picture:
    """A figure of the run folder. `uri`: its copy in the page, or empty if there is no room for it."""

    name: str
    title: str
    uri: str
    link: str


@dataclass(frozen=True)
class RankedTable:
    """The worst or the best samples: their figures and their table."""

    title: str
    pictures: Sequence[Picture]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Pictures:
    """All pictures of a report."""

    predictions: Sequence[Picture]
    ranked: Sequence[RankedTable]
    others: Sequence[Picture]


def find_pictures(folder: Path, split: str, shown_otherwise: Sequence[str] = ()) -> Pictures:
    """Returns the figures of a split in a run folder, the most important first, at most MAX_BYTES in all.

    `shown_otherwise`: names of figures that the report shows in another way.
    """
    names = sorted(path.stem.removeprefix(f"{split}_") for path in (folder / "figures").glob(f"{split}_*.png"))
    ranked = {kind: [name for name in names if name.startswith(f"{kind}_")] for kind in RANKED}
    predictions = [name for name in names if any(f"{kind}_{name}" in ranked[kind] for kind in RANKED)]
    if not predictions:  # figures of a task that ranks no samples
        predictions = [name for name in names if name in ("predictions", "reconstruction", "tokens")]
    others = [name for name in names if name not in (*predictions, *ranked[WORST], *ranked[BEST], *shown_otherwise)]
    room = MAX_BYTES
    found: dict[str, Picture] = {}
    for name in (*predictions, *ranked[WORST], *ranked[BEST], *others):
        path = folder / "figures" / f"{split}_{name}.png"
        uri = _embedded(path, path.stat().st_mtime_ns)
        uri = uri if len(uri) <= room else ""
        room -= len(uri)
        found[name] = Picture(name, name.replace("_", " "), uri, relative_link(path, folder))
    return Pictures(
        [found[name] for name in predictions],
        [
            RankedTable(
                title, [found[name] for name in ranked[kind]], *_samples(folder / "figures" / f"{split}_{kind}_samples.csv")
            )
            for kind, title in RANKED.items()
            if ranked[kind]
        ],
        [found[name] for name in others],
    )


@lru_cache(maxsize=64)
def _embedded(path: Path, changed: int) -> str:
    """Returns a figure as a data URI. A report that is written again reads only figures that have `changed`."""
    return data_uri(path, MAX_WIDTH)


def _samples(path: Path) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Returns the columns and the rows of a table of samples, without columns that are empty."""
    if not path.is_file():
        return (), ()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    return columns, [[f"{float(row[name]):.4g}" if name == "loss" else row[name] for name in columns] for row in rows]
