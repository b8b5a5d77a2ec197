"""Finds the keypoints that swap in a horizontally flipped image by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l", "lt": "rt", "rt": "lt"}
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of snake_case, camelCase and LEye
NUMBER = re.compile(r"\d+")


def find_flip_pairs(names: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Finds flip pairs by the sides in the names of keypoints.

    Returns pairs of indices, and the names for which the partner is not known.

    A side is one of the words left and right, l and r, lt and rt, in any case and at any position
    (`left_eye`, `eyeLeft`, `LEye`, `l_eye`, `eye_r`), or a first letter (`lhip`, `rhip`). The
    partner is not known if a name has a side but no counterpart, and if names differ in a number
    only (`right_brow_0`, `right_brow_1`: the counterpart among `left_brow_*` depends on the
    direction of counting).
    """
    patterns = Counter(NUMBER.sub("#", name) for name in names)
    pairs, unknown = set(), []
    for index, name in enumerate(names):
        partner = _partner(name, names)
        if patterns[NUMBER.sub("#", name)] > 1 or partner == "":
            unknown.append(name)
        elif partner is not None:
            pairs.add((min(index, names.index(partner)), max(index, names.index(partner))))
    return tuple(sorted(pairs)), tuple(unknown)


def find_side(name: str, partner: str) -> Literal["left", "right"] | None:
    """Returns the side of a keypoint by the first word in which its name differs from that of its partner. None if it has no side."""
    for word, other in zip(WORD.findall(name), WORD.findall(partner), strict=False):
        if word != other:
            sides: dict[str, Literal["left", "right"]] = {"lr": "left", "rl": "right"}
            return sides.get(word[0].lower() + other[0].lower())
    return None


def _partner(name: str, names: Sequence[str]) -> str | None:
    """Returns the name with its sides swapped, "" if it does not exist, None if it has no side."""
    swapped = WORD.sub(lambda word: _swap_side(word[0]), name)
    if swapped != name:
        return swapped if swapped in names else ""
    by_letter = {"l": "r", "r": "l", "L": "R", "R": "L"}.get(name[:1], "") + name[1:]
    is_pair = len(name) > 2 and by_letter != name and len(by_letter) == len(name) and by_letter in names
    return by_letter if is_pair else None


def _swap_side(word: str) -> str:
    """Returns a word with left and right swapped, in the same case.

    Also for words that start with a side, such as `lefteye`.
    """
    lower = word.lower()
    side = lower if lower in OTHER_SIDE else next((s for s in ("left", "right") if lower.startswith(s)), None)
    if side is None:
        return word
    other = OTHER_SIDE[side]
    head = word[: len(side)]
    cased = other.upper() if head.isupper() else other.capitalize() if head[0].isupper() else other
    return cased + word[len(side) :]
