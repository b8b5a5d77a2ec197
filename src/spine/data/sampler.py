"""The order of samples as a function of (seed, epoch), and its division among processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from spine.data.sampling import WeightedOrder, number_draws
from spine.errors import InputError


class Draw(NamedTuple):
    """One request for a sample.

    The seed, epoch, index and copy determine everything random about the sample.
    """

    epoch: int
    index: int  # type: ignore[assignment]
    copy: int = 0  # number of this draw among those of the same sample in an epoch
    spare: bool = False  # keeps a process in step with the others and is not counted


class EpochBatches(Sampler[list[Draw]]):
    """Batches of draws for one process. No global random state is used.

    All processes have the same number of batches, because they wait for each other in every
    batch, for example in the broadcast of batch norm statistics.
    """

    def __init__(self, length: int, batch_size: int, *, rank: int = 0, world: int = 1):
        """`length`: number of samples; `rank`, `world`: index and number of processes."""
        self.length, self.batch_size = length, batch_size
        self.rank, self.world = rank, world
        self.epoch = 0
        self.skip = 0  # batches that the next pass leaves out, for a run that resumes within an epoch
        self.sampler = self  # Lightning calls set_epoch on batch_sampler.sampler only

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the next pass.

        Lightning calls this before every epoch; a new epoch starts at its first batch.
        """
        if epoch != self.epoch:
            self.epoch, self.skip = epoch, 0

    @abstractmethod
    def __len__(self) -> int:
        """Number of batches per epoch."""

    @abstractmethod
    def __iter__(self) -> Iterator[list[Draw]]: ...


class TrainingBatches(EpochBatches):
    """Batches of shuffled samples. The incomplete last batch of an epoch is dropped.

    All processes compute the same order and divide it into groups of consecutive samples. Process r
    takes the samples r, r + world, ... of each group.

    Without a global batch size, a group has `batch_size` samples for each process, which are one
    batch. With one, a group has exactly that many samples, and each process divides its part into
    `micro_batches` batches of nearly equal size, at most `batch_size`. The optimizer steps after
    each group, so that the steps do not depend on the number of processes.

    With `repeats`, each sample of an epoch is drawn that many times in a row, with different
    randomness, and an epoch has a part of the samples (repeated augmentation, Hoffer et al., arXiv
    1901.09335). Its length stays the same. As in DeiT's code, the draws of a sample are consecutive,
    so that they are on different processes.

    With a `weighted` order, an epoch has as many draws as there are samples, but some samples are
    drawn several times, with different randomness, and others not at all.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
        global_batch_size: int | None = None,
        repeats: int = 1,
        shuffle: bool = True,
        weighted: WeightedOrder | None = None,
    ):
        """`repeats`: draws of a sample in an epoch. `shuffle`: False for the same samples with the same randomness in every epoch.
        `weighted`: how often each sample is drawn; None: once.
        """
        super().__init__(length, batch_size, rank=rank, world=world)
        self.weighted = weighted
        self.seed, self.shuffle, self.repeats = seed, shuffle, repeats
        self.group_size = global_batch_size or batch_size * world
        self.micro_batches = count_micro_batches(self.group_size, batch_size, world)

    def __len__(self) -> int:
        """Number of batches per epoch."""
        return self.length // self.group_size * self.micro_batches

    def _order(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the indices of an epoch, each drawn `repeats` times in a row, and how often each occurs before (None: never)."""
        rng = np.random.default_rng((self.seed, epoch))
        if self.weighted is not None:
            order = self.weighted.draw(-(-self.length // self.repeats), rng)
            return order, number_draws(order)
        order = rng.permutation(self.length) if self.shuffle else np.arange(self.length)
        return order, None

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch = self.epoch if self.shuffle else 0
        order, earlier = self._order(epoch)
        first, self.skip = self.skip, 0
        for number in range(first, len(self)):
            group, part = divmod(number, self.micro_batches)
            own = np.arange(group * self.group_size + self.rank, (group + 1) * self.group_size, self.world)
            places = np.array_split(own, self.micro_batches)[part]
            # a process has fewer samples than batches if the batch size is 1 and the group is not a multiple of the processes
            places, spare = (places, False) if len(places) else (own[:1], True)
            numbers, copies = places // self.repeats, places % self.repeats
            if earlier is not None:
                copies = earlier[numbers] * self.repeats + copies
            yield [Draw(epoch, index, copy, spare) for index, copy in zip(order[numbers].tolist(), copies.tolist(), strict=True)]

    def samples_before(self, batch: int) -> int:
        """Returns the number of samples in the groups of all processes before a batch."""
        return batch // self.micro_batches * self.group_size

    def skip_samples(self, samples: int) -> None:
        """Makes the next pass start after `samples` samples of the order.

        Raises InputError if a group of another size ends there.
        """
        if samples % self.group_size:
            raise InputError(
                f"The checkpoint was written after {samples} samples of an epoch, which is not a multiple of the {self.group_size} "
                f"samples in a batch of this run. Resume with the batch size of the checkpoint."
            )
        self.skip = samples // self.group_size * self.micro_batches


class EvaluationBatches(EpochBatches):
    """Batches of all samples in the order of the data set.

    Process r takes the batches r, r + world, ... of a single process, so that every batch has the
    same samples for any number of processes. A process that would have one batch less than others
    gets a spare batch at the end.
    """

    def __len__(self) -> int:
        """Number of batches per pass."""
        batches = -(-self.length // self.batch_size)
        return -(-batches // self.world)

    def __iter__(self) -> Iterator[list[Draw]]:
        for number in range(len(self)):
            start = (number * self.world + self.rank) * self.batch_size
            indices = range(start, min(start + self.batch_size, self.length))
            yield [Draw(0, index) for index in indices] or [Draw(0, 0, spare=True)]


def count_micro_batches(group_size: int, batch_size: int, world: int) -> int:
    """Returns the number of batches into which the largest part of a group is divided."""
    largest_part = -(-group_size // world)
    return -(-largest_part // batch_size)
