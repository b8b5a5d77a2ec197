"""Finds equal and nearly equal images among many, without comparing every pair."""

from __future__ import annotations

import numpy as np

DISTANCE = 3  # bits in which the hashes of near-duplicates differ at most
BANDS = 4  # of 16 bits: hashes that differ in DISTANCE < BANDS bits are equal in one band
DIFFERENCE = 3.0  # mean difference of gray thumbnails in 0..255
REACH = 256  # neighbors in a band that are compared with each other; more are in a band only if images hardly differ


def equal_groups(digests: np.ndarray) -> list[np.ndarray]:
    """Returns the positions of rows of digests (N, 2) uint64 that occur several times, one array (M,) for each."""
    order = np.lexsort(digests.T)
    ordered = digests[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(1)]) if len(order) else np.zeros(0, int)
    return [np.sort(group) for group in np.split(order, starts[1:]) if len(group) > 1]


def near_groups(hashes: np.ndarray, thumbs: np.ndarray) -> list[np.ndarray]:
    """Returns groups of positions of images that look alike, from their hashes (N,) uint64 and thumbnails (N, h, w) uint8.

    Two images are alike if their hashes differ in at most DISTANCE bits and their thumbnails by at most DIFFERENCE on average;
    groups are connected by such pairs. Time grows as N log N, times the images that share 16 bits of their hash.
    """
    parents = np.arange(len(hashes))
    pairs = [_pairs_of_band(hashes, thumbs, hashes >> np.uint64(16 * band) & np.uint64(0xFFFF)) for band in range(BANDS)]
    for a, b in np.concatenate(pairs).tolist() if len(hashes) else ():
        _join(parents, a, b)
    members: dict[int, list[int]] = {}
    for i in np.flatnonzero(parents != np.arange(len(parents))).tolist():
        root = _root(parents, i)
        members.setdefault(root, [root]).append(i)
    return [np.array(sorted(group)) for group in members.values()]


def _pairs_of_band(hashes: np.ndarray, thumbs: np.ndarray, band: np.ndarray) -> np.ndarray:
    """Returns the pairs (P, 2) of images that are alike among those with an equal band (N,)."""
    order = np.lexsort((hashes, band))
    found = [np.zeros((0, 2), int)]
    for offset in range(1, min(REACH, len(order) - 1) + 1):
        near = np.flatnonzero(band[order[offset:]] == band[order[:-offset]])
        if not len(near):
            break
        a, b = order[near], order[near + offset]
        close = np.bitwise_count(hashes[a] ^ hashes[b]) <= DISTANCE
        a, b = a[close], b[close]
        alike = [
            np.abs(thumbs[x].astype(np.int16) - thumbs[y]).mean((1, 2)) <= DIFFERENCE
            for x, y in zip(_blocks(a), _blocks(b), strict=True)
        ]
        keep = np.concatenate(alike) if alike else np.zeros(0, bool)
        found.append(np.stack([a[keep], b[keep]], 1))
    return np.concatenate(found)


def _blocks(indices: np.ndarray, size: int = 1 << 16) -> list[np.ndarray]:
    return [indices[i : i + size] for i in range(0, len(indices), size)]


def _root(parents: np.ndarray, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = int(parents[i])
    return i


def _join(parents: np.ndarray, a: int, b: int) -> None:
    first, second = sorted((_root(parents, a), _root(parents, b)))
    parents[second] = first
