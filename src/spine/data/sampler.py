"""Which samples make which batch, as a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """What a data set is asked for: everything random about the sample follows from the seed and these."""

    epoch: int
    index: int  # type: ignore[assignment]
    copy: int = 0  # counts the draws of one sample within an epoch


class EpochBatches(Sampler[list[Draw]]):
    """Batches of one process. All processes draw the same order and take every world-th place of it; no global state is read.

    Training drops the last incomplete batch. Evaluation keeps the order of the data set and every sample: the last ranks may have one
    fewer. `skip` batches are left out of the next pass, for a run that is resumed within an epoch.
    """

    def __init__(self, length: int, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1):
        self.length, self.batch_size, self.seed, self.shuffle = length, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0
        self.sampler = self  # Lightning calls set_epoch on batch_sampler.sampler only

    @property
    def spare(self) -> bool:
        """Whether there are fewer samples to evaluate than processes and none is left for this one.

        It then draws a copy of the first sample, which is not counted: processes that evaluate nothing would leave the others
        alone in collective operations, such as the broadcast of batch norm statistics.
        """
        return not self.shuffle and self.rank >= self.length > 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the order of the next pass. Lightning calls this before every epoch; another epoch starts at its first batch."""
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        """Batches an epoch."""
        if self.shuffle:
            return self.length // (self.batch_size * self.world)
        return 1 if self.spare else -(-len(range(self.rank, self.length, self.world)) // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        if self.spare:
            yield [Draw(0, 0, copy=1)]
            return
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
            order = order[: len(self) * self.batch_size * self.world]
        else:
            order = np.arange(self.length)
        epoch, own = self.epoch if self.shuffle else 0, order[self.rank :: self.world]
        first, self.skip = self.skip * self.batch_size, 0
        for start in range(first, len(own), self.batch_size):
            yield [Draw(epoch, int(index)) for index in own[start : start + self.batch_size]]
