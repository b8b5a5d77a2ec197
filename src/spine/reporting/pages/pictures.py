"""Pictures inside an HTML page."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

from PIL import Image

QUALITY = 80  # of WebP

log = logging.getLogger(__name__)


def data_uri(path: Path, max_width: int) -> str:
    """Returns a picture as a data URI, at most `max_width` pixels wide, or an empty string if it cannot be read."""
    content = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.thumbnail((max_width, 4 * max_width))
            picture.convert("RGB").save(content, "WEBP", quality=QUALITY)
    except Exception as error:  # a damaged or half-written file; Pillow raises many types
        log.warning("'%s' is not in the page: %s", path, error)
        return ""
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
