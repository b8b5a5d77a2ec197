"""Small copies of the figures of runs, for the HTML page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from spine.reporting.leaderboard.ranking import Group
from spine.reporting.pages.pictures import data_uri

MAX_WIDTH = 900  # pixels
MAX_RUNS = 30  # of each group: the best
MAX_BYTES = 20_000_000  # of all pictures of a page

log = logging.getLogger(__name__)


def embedded_figures(groups: Sequence[Group]) -> dict[Path, dict[str, str]]:
    """Returns the figures of the best runs of each group as data URIs: run folder -> name of the figure -> URI.

    Leaves out figures that cannot be read, and stops at MAX_BYTES.
    """
    found: dict[Path, dict[str, str]] = {}
    size = 0
    for group in groups:
        for entry in [entry for entry in group.entries if entry.rank is not None][:MAX_RUNS]:
            folder = entry.run.folder
            for path in sorted((folder / "figures").glob("*.png")):
                uri = data_uri(path, MAX_WIDTH)
                size += len(uri)
                if size > MAX_BYTES:
                    log.warning(
                        "The page has no figures after those of %s: it would be larger than %d MB.",
                        entry.name,
                        MAX_BYTES // 10**6,
                    )
                    return found
                if uri:
                    found.setdefault(folder, {})[path.stem] = uri
    return found
