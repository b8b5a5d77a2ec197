"""Which keypoints change places in a mirrored image, read from their names."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIDES = {"left": "right", "right": "left", "l": "r", "r": "l", "lt": "rt", "rt": "lt"}
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")  # of snake_case, camelCase and LEye
NUMBER = re.compile(r"\d+")


def find_flip_pairs(names: Sequence[str]) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...]]:
    """Pairs of keypoints by the sides in their names, and the names whose place in a mirrored image is not known.

    Sides are the words left and right, l and r, lt and rt in any case, at any place (`left_eye`, `eyeLeft`, `LEye`, `l_eye`, `eye_r`), or
    a first letter (`lhip`, `rhip`). Not known are a side without its partner, and points that are told apart by a number alone
    (`right_brow_0`, `right_brow_1`: which of `left_brow_*` lies opposite depends on the direction of the numbers).
    """
    chains: dict[str, int] = {}
    for name in names:
        chains[NUMBER.sub("#", name)] = chains.get(NUMBER.sub("#", name), 0) + 1
    pairs, unknown = set(), []
    for place, name in enumerate(names):
        partner = _partner(name, names)
        if chains[NUMBER.sub("#", name)] > 1 or partner == "":
            unknown.append(name)
        elif partner is not None:
            pairs.add((min(place, names.index(partner)), max(place, names.index(partner))))
    return tuple(sorted(pairs)), tuple(unknown)


def _partner(name: str, names: Sequence[str]) -> str | None:
    """The name with its sides exchanged where it is among `names`, "" where it is not, None for a name without a side."""
    swapped = WORDS.sub(lambda word: _other_side(word[0]), name)
    if swapped != name:
        return swapped if swapped in names else ""
    first = {"l": "r", "r": "l", "L": "R", "R": "L"}.get(name[:1], "") + name[1:]
    return first if len(name) > 2 and first != name and len(first) == len(name) and first in names else None


def _other_side(word: str) -> str:
    """A word with left for right and the reverse, in its own case; `lefteye` too."""
    lower = word.lower()
    side = lower if lower in SIDES else next((s for s in ("left", "right") if lower.startswith(s)), None)
    if side is None:
        return word
    other = SIDES[side]
    head = word[: len(side)]
    cased = other.upper() if head.isupper() else other.capitalize() if head[0].isupper() else other
    return cased + word[len(side) :]
