"""A sheet of thumbnails of predictions, to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from spine.data.image_files import evenly_spaced
from spine.prediction.drawing import DARK, LIGHT, fit, font_for, shorten
from spine.prediction.prediction import Color, Prediction, write_image

MAX_CELLS = 24
WIDTH, GAP, TEXT = 1440, 10, 13  # pixels of the sheet, between cells, and of letters
LARGEST = (540, 720)  # height and width of a stored thumbnail
GRAY = (110, 110, 110)
LAYOUTS = ((1.6, 6, 24), (2.4, 4, 20), (float("inf"), 2, 16))  # up to this aspect ratio of the cells: columns, cells at most


@dataclass(frozen=True)
class Cell:
    """A thumbnail with its texts. legend: names and colors of the classes that it shows."""

    image: np.ndarray
    name: str
    caption: str
    legend: Sequence[tuple[str, Color]] = ()


def write_cell(prediction: Prediction, folder: Path) -> None:
    """Writes the thumbnail of a prediction to a folder of thumbnails."""
    stem = f"{prediction.item.index:09}"
    write_image(fit(prediction.thumbnail(), *LARGEST), folder / f"{stem}.png")
    texts = {"name": prediction.name, "caption": prediction.caption, "legend": prediction.legend()}
    (folder / f"{stem}.json").write_text(json.dumps(texts))


def read_cells(folder: Path) -> list[Cell]:
    """Returns the thumbnails in a folder, in the order of their images. Those that were not written completely are left out."""
    cells = []
    for path in sorted(folder.glob("*.json")):
        try:
            texts = json.loads(path.read_text())
        except ValueError:
            continue
        legend = [(name, tuple(color)) for name, color in texts["legend"]]
        image = np.asarray(Image.open(path.with_suffix(".png")).convert("RGB"))
        cells.append(Cell(image, texts["name"], texts["caption"], legend))
    return cells


def draw_sheet(cells: Sequence[Cell], title: str) -> np.ndarray:
    """Returns the sheet (H, W, 3) uint8: evenly spaced cells with file names and captions, and a legend of their classes."""
    aspect = float(np.median([cell.image.shape[1] / cell.image.shape[0] for cell in cells]))
    columns, most = next((columns, most) for limit, columns, most in LAYOUTS if aspect <= limit)
    cells = [cells[i] for i in evenly_spaced(len(cells), most)]
    columns = min(columns, len(cells))
    width = (WIDTH - GAP) // columns - GAP if len(cells) > 2 else min(LARGEST[1], (WIDTH - GAP) // columns - GAP)
    height = round(min(width * 1.4, width / aspect))
    step, top, line = height + 3 * TEXT + 2 * GAP, 3 * TEXT, round(TEXT * 1.5)
    rows = -(-len(cells) // columns)
    legend = list(dict.fromkeys(entry for cell in cells for entry in cell.legend))
    sheet_width = max(columns * (width + GAP) + GAP, WIDTH // 2)
    legend_lines = _legend_lines(legend, sheet_width)
    canvas = Image.new("RGB", (sheet_width, top + rows * step + line * len(legend_lines) + GAP), LIGHT)
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), shorten(title, sheet_width - 2 * GAP, TEXT + 2), DARK, font_for(title, TEXT + 2))
    for i, cell in enumerate(cells):
        left, upper = GAP + i % columns * (width + GAP), top + i // columns * step
        _draw_cell(canvas, draw, cell, (left, upper, width, height))
    for i, entries in enumerate(legend_lines):
        _draw_legend(draw, entries, top + rows * step + i * line)
    return np.asarray(canvas)


def _draw_cell(canvas: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, place: tuple[int, int, int, int]) -> None:
    """Draws the image of a cell at the bottom of its place (left, top, width, height), and its texts below."""
    left, top, width, height = place
    image = fit(cell.image, height, width)
    canvas.paste(Image.fromarray(image), (left + (width - image.shape[1]) // 2, top + (height - image.shape[0]) // 2))
    lines = (
        (shorten(cell.caption, width, TEXT), DARK),
        (shorten(cell.name, width, TEXT - 2, keep_end=True), GRAY),
    )
    for i, (text, color) in enumerate(lines):
        draw.text((left, top + height + 3 + i * round(TEXT * 1.4)), text, color, font_for(text, TEXT - 2 * i))


def _legend_lines(legend: Sequence[tuple[str, Color]], width: int) -> list[list[tuple[int, str, Color]]]:
    """Divides a legend into lines of (left, name, color)."""
    lines: list[list[tuple[int, str, Color]]] = []
    left = width
    for name, color in legend:
        needed = round(font_for(name, TEXT).getlength(name)) + 3 * TEXT
        if left + needed > width - GAP:
            lines.append([])
            left = GAP
        lines[-1].append((left, name, color))
        left += needed
    return lines


def _draw_legend(draw: ImageDraw.ImageDraw, entries: Sequence[tuple[int, str, Color]], top: int) -> None:
    for left, name, color in entries:
        draw.rectangle((left, top + 2, left + TEXT, top + 2 + TEXT), fill=color, outline=GRAY)
        draw.text((left + round(1.5 * TEXT), top), name, DARK, font_for(name, TEXT))
