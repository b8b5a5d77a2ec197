"""Writes doctor.html: the findings with pictures, in one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from spine.reporting.doctor.content import Diagnosis, numbers, size_text
from spine.reporting.pages.page import write_page
from spine.reporting.pages.pictures import QUALITY

LISTED = 200  # files of a finding in the page; doctor.json has more

Pictures = Sequence[tuple[str, np.ndarray]]  # caption, (h, w, 3) uint8


def write_diagnosis(path: Path, diagnosis: Diagnosis, pictures: Sequence[Pictures]) -> None:
    """Writes the page. `pictures`: of each finding."""
    findings = [
        {
            **row,
            "seen": row["seen"].replace(f"{diagnosis['root']}/", ""),
            "pictures": [{"caption": caption, "uri": embedded(image)} for caption, image in of_row],
            "listed": row["files"][:LISTED],
            "more": max(0, row["count"] - LISTED) if len(row["files"]) > LISTED else 0,
        }
        for row, of_row in zip(diagnosis["findings"], pictures, strict=True)
    ]
    splits = [
        {
            "name": name,
            **facts,
            "size": size_text(facts.get("sizes")),
            "mean_text": numbers(facts.get("mean")),
            "std_text": numbers(facts.get("std")),
            "largest": max(facts["classes"].values(), default=0) if isinstance(facts["classes"], dict) else 0,
        }
        for name, facts in diagnosis["splits"].items()
    ]
    content = {**diagnosis, "findings": findings, "splits": splits, "data": {}}
    write_page(path, "spine.reporting.doctor", "doctor.html", content)


def embedded(image: np.ndarray) -> str:
    """Returns pixels (h, w, 3) uint8 as a data URI."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"
