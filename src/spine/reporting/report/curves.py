"""The curves of a report: one panel for each metric, with one line for each split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from spine.reporting.history import LOGGED_PER_STEP, Points
from spine.reporting.pages.page import thin


class Line(TypedDict):
    """The points of one split: x and y values, None for a value that is not a number."""

    label: str
    points: list[list[float | None]]


class Panel(TypedDict):
    """One metric over the epochs."""

    title: str
    lines: list[Line]
    whole: bool  # whether there are values at the ends of epochs only
    first: bool  # whether it is shown at first; the others are on demand


def curve_panels(history: Mapping[str, Points], monitor: str) -> list[Panel]:
    """Returns the panels: the watched metric, the loss, the other metrics, and what is logged at single steps.

    The keys of `history` are <split>/<metric>. Lines with one point are left out if all lines are so short.
    """
    panels: dict[str, Panel] = {}
    for name, points in history.items():
        split, _, metric = name.partition("/")
        by_step = name in LOGGED_PER_STEP
        title = name if by_step else metric or split
        panel = panels.setdefault(title, {"title": title, "lines": [], "whole": not by_step, "first": not by_step})
        panel["lines"].append({"label": split, "points": thin(points)})
    order = [monitor.partition("/")[2], "loss"]
    place = {title: i for i, title in enumerate(order)}
    return sorted(panels.values(), key=lambda panel: (not panel["first"], place.get(panel["title"], len(order))))
