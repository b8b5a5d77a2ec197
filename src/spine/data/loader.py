"""A DataLoader that knows how far it got, so that a run is resumed behind its last trained batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from spine.data.sampler import EpochBatches


class ResumableLoader(DataLoader):
    """Batches of an EpochBatches sampler.

    A pass starts when its first batch is asked for, not when `iter` is called: Lightning creates the iterator of a
    resumed run before it tells the sampler the epoch, and workers would prefetch batches of the wrong one.
    """

    batch_sampler: EpochBatches

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.batches_done = 0  # of the current pass, with those that were skipped
        self.seconds_waited = 0.0  # for batches, since the loader was made

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self.batches_done = self.batch_sampler.skip
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.seconds_waited += time.perf_counter() - start
            self.batches_done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Epoch and number of batches that were handed out in it; Lightning puts this into every checkpoint."""
        return {"epoch": self.batch_sampler.epoch, "batches_done": self.batches_done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next pass, if it is of the same epoch, starts behind the batches that were handed out."""
        self.batch_sampler.epoch, self.batch_sampler.skip = state["epoch"], state["batches_done"]
