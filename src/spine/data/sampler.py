"""The order of samples as a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Draw(NamedTuple):
    """One request for a sample.

    The seed and these numbers determine everything random about the sample.
    """

    epoch: int
    index: int  # type: ignore[assignment]
    copy: int = 0  # number of earlier draws of the same sample in the epoch


class EpochBatches(Sampler[list[Draw]]):
    """Batches of draws for one process.

    All processes compute the same order and take every `world`-th sample of it. No global random
    state is used. Training drops the last incomplete batch. Evaluation keeps the order of the data
    set and every sample; the last ranks may have one sample fewer.
    """

    def __init__(self, length: int, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1):
        """`length`: number of samples; `shuffle`: True for training; `rank`, `world`: index and
        number of processes.
        """
        self.length, self.batch_size, self.seed, self.shuffle = length, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0  # batches that the next pass leaves out, for a run that resumes within an epoch
        self.sampler = self  # Lightning calls set_epoch on batch_sampler.sampler only

    @property
    def spare(self) -> bool:
        """Whether there are fewer samples to evaluate than processes, and none for this process.

        The process then draws a copy of the first sample, which metrics do not count. If it
        evaluated nothing, the others would wait for it in collective operations, such as the
        broadcast of batch norm statistics.
        """
        return not self.shuffle and self.rank >= self.length > 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next pass.

        Lightning calls this before every epoch; a new epoch starts at its first batch.
        """
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    def __len__(self) -> int:
        """Number of batches per epoch."""
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
