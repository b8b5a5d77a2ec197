"""Writes HTML pages that need no other file and no network."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spine.reporting.history import Points

MAX_POINTS = 200  # of one curve; longer ones are averaged


def write_page(path: Path, package: str, template: str, content: Mapping[str, object]) -> None:
    """Renders a template of a package to a file. An existing file is replaced only when the new one is complete.

    Templates, styles and scripts are in `<package>/templates`, and those of all pages in `spine.reporting.pages`.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "templates"), PackageLoader("spine.reporting.pages", "templates")]),
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {}  # by default, keys are sorted
    environment.globals["source"] = partial(_source, environment)
    text = environment.get_template(template).render(content)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
    part.replace(path)


def _source(environment: Environment, name: str) -> Markup:
    """Returns a style or a script, which a template writes into the page as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def relative_link(path: Path, folder: Path) -> str:
    """Returns the address of a file or folder from a page in `folder`."""
    return quote(os.path.relpath(path, folder).encode("utf-8", "surrogateescape"))


def thin(points: Points) -> list[list[float | None]]:
    """Returns the x and the y values of a curve, rounded, with at most MAX_POINTS points: means of neighbors."""
    size = -(-len(points) // MAX_POINTS) or 1
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [[finite(float(f"{sum(point[axis] for point in part) / len(part):.5g}")) for part in parts] for axis in (0, 1)]


def finite(value: float) -> float | None:
    """Replaces NaN and infinity by None, because JSON has neither."""
    return value if math.isfinite(value) else None
