"""Small copies of the figures of runs, for the HTML page."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from spine.reporting.leaderboard.ranking import Group

MAX_WIDTH = 900  # pixels
QUALITY = 80  # of WebP
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
                uri = thumbnail(path)
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


def thumbnail(path: Path) -> str:
    """Returns a picture as a data URI, at most MAX_WIDTH pixels wide, or an empty string if it cannot be read."""
    content = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.thumbnail((MAX_WIDTH, 4 * MAX_WIDTH))
            picture.convert("RGB").save(content, "WEBP", quality=QUALITY)
    except Exception as error:  # a damaged or half-written file; Pillow raises many types
        log.warning("'%s' is not in the page: %s", path, error)
        return ""
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
