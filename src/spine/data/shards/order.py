"""The order of an epoch that reads shards one after the other: shuffled shards, and shuffled samples within windows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import numpy as np

KEY = 0x5AD5  # distinguishes these random numbers from others of the same seed


class WindowOrder:
    """A permutation of the samples as a function of (seed, epoch). It is computed where it is read, in little memory.

    The shards are shuffled, and their samples, one shard after the other, are divided into `streams` parts of nearly equal size.
    The windows of each part, of `window` samples in a row, are shuffled. Place p of the order is of part p % streams. A process
    of `world` takes the places r, r + world, ... if the samples of a step are a multiple of `world`. If `streams` is a multiple of
    `world` too, it reads `streams` / `world` parts, which no other process reads. The order is the same for every `world`.
    """

    def __init__(
        self,
        counts: np.ndarray,
        window: int,
        streams: int,
        key: tuple[int, int],
        announce: Callable[[list[int]], None] | None = None,
    ):
        """`counts` (S,): samples of each shard. `key`: seed and epoch. `announce`: called with the numbers of the shards of
        the next window of a part when a window of it begins.
        """
        self.shards = np.random.default_rng((*key, KEY)).permutation(len(counts))
        self.ends = np.cumsum(counts[self.shards])  # of the shards, in places of the shuffled sequence
        self.firsts = np.concatenate([[0], np.cumsum(counts)])  # the first sample of each shard, in the order of the data set
        self.length = int(self.ends[-1]) if len(counts) else 0
        self.window, self.streams, self.key = window, max(1, min(streams, self.length)), key
        self.announce = announce
        self.opened: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()  # the windows that were used last

    def __len__(self) -> int:
        """Number of samples."""
        return self.length

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """Returns the samples (M,) int64 at places (M,) of the order, or at one place."""
        if np.any((places < 0) | (places >= self.length)):
            raise IndexError(places)
        steps, streams = np.divmod(places, self.streams)
        numbers, within = np.divmod(steps, self.window)
        found = [
            self._window(int(stream), int(number))[place]
            for stream, number, place in zip(np.ravel(streams), np.ravel(numbers), np.ravel(within), strict=True)
        ]
        return np.array(found, np.int64).reshape(np.shape(places))

    def _range(self, stream: int, number: int) -> tuple[int, int]:
        """Returns where a window begins and ends in the shuffled sequence."""
        size, longer = divmod(self.length, self.streams)
        begin = stream * size + min(stream, longer)
        end = begin + size + (stream < longer)
        return min(begin + number * self.window, end), min(begin + (number + 1) * self.window, end)

    def _window(self, stream: int, number: int) -> np.ndarray:
        """Returns the samples of a window in their order."""
        if (found := self.opened.get((stream, number))) is not None:
            return found
        begin, end = self._range(stream, number)
        places = begin + np.random.default_rng((*self.key, KEY, stream, number)).permutation(end - begin)
        positions = np.searchsorted(self.ends, places, side="right")
        shards = self.shards[positions]
        samples = self.firsts[shards + 1] - (self.ends[positions] - places)
        self.opened[stream, number] = samples
        if len(self.opened) > 2 * self.streams:
            self.opened.popitem(last=False)
        if self.announce is not None:
            self.announce(self.shards_of(stream, number + 1))
        return samples

    def shards_of(self, stream: int, number: int) -> list[int]:
        """Returns the numbers of the shards that a window reads. Empty after the last window."""
        begin, end = self._range(stream, number)
        if begin == end:
            return []
        first, last = np.searchsorted(self.ends, [begin, end - 1], side="right")
        return self.shards[first : last + 1].tolist()
