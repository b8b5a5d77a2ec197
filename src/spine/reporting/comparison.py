"""Compares the curves and results of two runs."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import TypedDict

TIMINGS = ("train/images_per_s", "train/data_wait")
Curve = dict[int, float]  # step -> value


class Difference(TypedDict):
    """How a metric of two runs differs."""

    step: int | None  # the first one that differs; None for a final result
    one: float | None  # value there; None if it was not measured
    other: float | None
    largest: float | None  # the largest absolute difference; None if there is none between finite values


class Comparison(TypedDict):
    """The content of rerun.json, apart from what differed at the start."""

    identical: bool  # bit for bit, all curves and results except for timings
    curves: dict[str, Difference]  # by metric, those that differ
    results: dict[str, Difference]  # by metric, those that differ


def compare_runs(one: Path, other: Path) -> Comparison:
    """Compares metrics.csv and metrics.json of two run folders."""
    first, second = read_curves(one), read_curves(other)
    curves = {
        name: difference
        for name in sorted({*first, *second})
        if (difference := _difference(first.get(name, {}), second.get(name, {})))
    }
    before, after = _results(one), _results(other)
    results = {
        name: {**difference, "step": None}
        for name in sorted({*before, *after})
        if (difference := _difference(*({0: values[name]} if name in values else {} for values in (before, after))))
    }
    return {"identical": not curves and not results, "curves": curves, "results": results}  # type: ignore[typeddict-item]


def describe(comparison: Comparison, monitor: str) -> str:
    """Returns sentences about a comparison. `monitor`: the metric whose results are named."""
    if comparison["identical"]:
        return "The curves and results are identical bit for bit."
    curves, results = comparison["curves"], comparison["results"]
    parts = []
    if curves:
        name = min(curves, key=lambda each: (curves[each]["step"] or 0, "loss" not in each, each))
        first = curves[name]
        parts.append(
            f"{_count(curves, 'curve')}, first {name} in step {first['step']}: {_text(first['one'])} and {_text(first['other'])}, at "
            f"most {_text(first['largest'])} apart."
        )
    if results:
        name = monitor if monitor in results else next(iter(results))
        parts.append(
            f"{_count(results, 'result')}, such as {name}: {_text(results[name]['one'])} and {_text(results[name]['other'])}."
        )
    return " ".join(parts)


def read_curves(folder: Path) -> dict[str, Curve]:
    """Reads the curves of metrics.csv, without the timings."""
    curves: dict[str, Curve] = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch", *TIMINGS):
                    curves.setdefault(name, {})[int(row["step"])] = float(value)
    return curves


def _results(folder: Path) -> dict[str, float]:
    content = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {name: math.nan if value is None else value for name, value in content.items()}


def _difference(one: Curve, other: Curve) -> Difference | None:
    """Returns the first difference of two curves, or None if they are equal. NaN equals NaN."""
    steps = [step for step in sorted({*one, *other}) if not _equal(one.get(step), other.get(step))]
    if not steps:
        return None
    gaps = [abs(one[step] - other[step]) for step in steps if step in one and step in other]
    finite = [gap for gap in gaps if math.isfinite(gap)]
    return {
        "step": steps[0],
        "one": _finite(one.get(steps[0])),
        "other": _finite(other.get(steps[0])),
        "largest": max(finite) if finite else None,
    }


def _equal(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isnan(one) and math.isnan(other))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _count(differences: dict[str, Difference], what: str) -> str:
    return f"1 {what} differs" if len(differences) == 1 else f"{len(differences)} {what}s differ"


def _text(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.6g}"
