"""What a data set is like: sizes, mean and standard deviation of pixels, and how equal its classes are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from spine.data.checks.kinds import Finding
from spine.data.image_files import format_names

IMBALANCE = 10  # images of the largest class for one of the smallest
ODD_SIZE = 4.0  # times the median by which a side is unusual
ODD_RATIO = 3.0  # times the median by which the ratio of long and short side is unusual


def sizes(size: np.ndarray) -> dict[str, list[int]]:
    """Returns the smallest, the median and the largest [width, height] of sizes (N, 2) of height and width, by name."""
    found = {"smallest": size.min(0), "median": np.median(size, axis=0), "largest": size.max(0)}
    return {name: [int(value[1]), int(value[0])] for name, value in found.items()}


def odd_sizes(size: np.ndarray) -> np.ndarray:
    """Returns which images (N,) have a size or shape far from the others. `size`: (N, 2)."""
    short, long = size.min(1), size.max(1)
    ratio = long / short
    return (short < np.median(short) / ODD_SIZE) | (long > np.median(long) * ODD_SIZE) | (ratio > ODD_RATIO * np.median(ratio))


def mean_and_std(mean: np.ndarray, square: np.ndarray) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of the pixels in 0..1, each image counted equally. Arguments: (N, 3) of each image."""
    overall = mean.mean(0, dtype=np.float64)
    deviation = np.sqrt(np.maximum(square.mean(0, dtype=np.float64) - overall**2, 0))
    return [round(float(value), 4) for value in overall], [round(float(value), 4) for value in deviation]


def imbalance(counts: Mapping[str, int], split: str) -> list[Finding]:
    """Returns a finding if the largest class has IMBALANCE times the images of the smallest that has any."""
    present = {name: count for name, count in counts.items() if count}
    if len(present) < 2 or max(present.values()) < IMBALANCE * min(present.values()):
        return []
    largest, smallest = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
    seen = (
        f"'{largest}' has {present[largest]} images and '{smallest}' {present[smallest]}, "
        f"{present[largest] / present[smallest]:.0f} times as many."
    )
    return [Finding("imbalance", split, 1, seen)]


def classes_without_pixels(names: tuple[str, ...], pixels: np.ndarray, split: str) -> list[Finding]:
    """Returns a finding about classes without a pixel in any mask. `pixels`: (classes,)."""
    missing = [name for name, count in zip(names, pixels, strict=True) if not count]
    if not missing or not pixels.any():
        return []
    return [Finding("class_without_pixels", split, len(missing), f"No mask shows {format_names(missing)}.", missing)]
