"""Boxes around the upper or the lower half of a person, for augmentation (HRNet's code, `half_body_transform`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LOWER_BODY = re.compile(r"pelvis|hip|knee|ankle|foot|feet|heel|toe")
MIN_LABELED = 9  # keypoints of a person that is halved
MIN_PREFERRED, MIN_USED = 3, 2  # keypoints of the half that was drawn, and of any half
UPPER_PROBABILITY = 0.69  # of a normal number below 0.5
PADDING = 1.5  # factor of the size of the box; the box of a whole person has its own


class HalfBody(NamedTuple):
    """The keypoints of half a person: their mean, and the size (width, height) around them."""

    center: np.ndarray
    size: np.ndarray


def find_upper_body(names: Sequence[str]) -> tuple[int, ...]:
    """Returns the indices of the keypoints that are not of the pelvis, legs and feet by their names.

    Empty if all or none are.
    """
    upper = tuple(index for index, name in enumerate(names) if not LOWER_BODY.search(name.lower()))
    return upper if len(upper) < len(names) else ()


def choose_half(keypoints: np.ndarray, upper_body: Sequence[int], rng: np.random.Generator) -> HalfBody | None:
    """Returns the upper or the lower half of the labeled keypoints (K, 3), the upper one more often.

    `upper_body`: indices of its keypoints. None if too few keypoints are labeled.
    """
    prefer_upper = rng.random() < UPPER_PROBABILITY
    labeled, is_upper = keypoints[:, 2] > 0, np.isin(np.arange(len(keypoints)), upper_body)
    if labeled.sum() < MIN_LABELED:
        return None
    upper, lower = keypoints[labeled & is_upper, :2], keypoints[labeled & ~is_upper, :2]
    if prefer_upper and len(upper) >= MIN_PREFERRED:
        chosen = upper
    else:
        chosen = lower if len(lower) >= MIN_PREFERRED else upper
    if len(chosen) < MIN_USED:
        return None
    return HalfBody(chosen.mean(0), np.maximum(np.ptp(chosen, axis=0), 1.0))
