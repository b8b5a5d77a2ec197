"""A DataLoader that records its position, so that a run resumes after the last batch it trained on."""

from __future__ import annotations

import atexit
import copy
import functools
import multiprocessing
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from spine.data.sampler import Draw, EpochBatches, TrainingBatches
from spine.data.transforms.normalization import Normalization


class ResumableLoader(DataLoader):
    """A DataLoader over the batches of an EpochBatches sampler.

    Workers send images as uint8 pixels. They are normalized here, on the device that will use them:
    a quarter of the bytes goes from the workers to the device.

    An epoch starts when its first batch is requested, not when `iter` is called. Lightning creates
    the iterator of a resumed run before it sets the epoch of the sampler, and workers would
    prefetch batches of the wrong epoch.

    Workers read the first batches of the next epoch of training while the last ones of an epoch are
    used, and during the validation after it.
    """

    batch_sampler: EpochBatches

    def __init__(self, *args: Any, normalization: Normalization | None = None, device: torch.device | None = None, **kwargs: Any):
        """Takes the arguments of DataLoader; `batch_sampler` is an EpochBatches.

        `normalization`: of images that arrive as uint8. `device`: for which they are normalized; None: the CPU.
        """
        super().__init__(*args, **kwargs)
        self.normalization, self.device = normalization, device
        if self.num_workers > 0:
            _kill_workers_at_exit()
        self.batches_done = 0  # of the current epoch, including those that were skipped
        self.seconds_waited = 0.0  # for batches, since the loader was made
        # DataLoader's batches of training, over the ends of epochs. It must not refer to the loader: Python would
        # collect both as a reference cycle and close the workers' queues first, so that the workers could not be stopped.
        self.stream: Iterator[dict[str, Tensor]] | None = None
        self.upcoming: tuple[int, int] | None = None  # epoch and number of the next batch of `stream`

    @property
    def _index_sampler(self) -> Any:  # DataLoader takes the batches from here
        return _Following(self.batch_sampler) if isinstance(self.batch_sampler, TrainingBatches) else self.batch_sampler

    def __iter__(self) -> Iterator[dict[str, Tensor]]:  # type: ignore[override]
        if not isinstance(self.batch_sampler, TrainingBatches):
            self.batches_done, batches = 0, super().__iter__()
            while (batch := self._next(batches)) is not None:
                self.batches_done += 1
                yield batch
            return
        epoch, self.batches_done = self.batch_sampler.epoch, self.batch_sampler.skip
        if self.stream is None or self.upcoming != (epoch, self.batches_done):
            self.stream = super().__iter__()
        self.batch_sampler.skip = 0
        while self.batches_done < len(self.batch_sampler):
            self.upcoming = None  # if the next batch raises an error
            batch = self._next(self.stream)
            assert batch is not None  # the stream has no end
            self.batches_done += 1
            last = self.batches_done == len(self.batch_sampler)
            self.upcoming = (epoch + 1, 0) if last else (epoch, self.batches_done)
            yield batch

    def _next(self, batches: Iterator[dict[str, Tensor]]) -> dict[str, Tensor] | None:
        """Returns the next batch with normalized images, or None at the end, and measures the wait for it."""
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is not None:
            batch = self._normalized(batch)
            self.seconds_waited += time.perf_counter() - start
        return batch

    def _normalized(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Returns a batch with normalized images."""
        image = batch["image"]
        if self.normalization is None or image.dtype != torch.uint8:
            return batch
        if self.device is not None:
            image = image.to(self.device, non_blocking=True)
        return {**batch, "image": self.normalization.batch(image)}

    def state_dict(self) -> dict[str, int]:
        """Returns the epoch and the number of its samples that all processes have returned.

        Lightning saves it in every checkpoint. It does not depend on the number of processes.
        """
        if not isinstance(self.batch_sampler, TrainingBatches):
            return {}
        return {"epoch": self.batch_sampler.epoch, "samples_done": self.batch_sampler.samples_before(self.batches_done)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass start after the returned samples, if it is of the same epoch.

        Raises InputError if the batches of this loader do not end there.
        """
        if not isinstance(self.batch_sampler, TrainingBatches) or not state:
            return
        self.batch_sampler.epoch = state["epoch"]
        if "samples_done" in state:
            self.batch_sampler.skip_samples(state["samples_done"])
        else:  # a checkpoint of an earlier version
            self.batch_sampler.skip = state["batches_done"]


class _Following:
    """The batches of a sampler from its position on, and those of all following epochs."""

    def __init__(self, batches: TrainingBatches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Draw]]:
        return self._follow(copy.copy(self.batches))  # the position of now, even if the first batch is requested later

    @staticmethod
    def _follow(batches: TrainingBatches) -> Iterator[list[Draw]]:
        while len(batches):
            yield from batches
            batches.epoch, batches.skip = batches.epoch + 1, 0


@functools.cache
def _kill_workers_at_exit() -> None:
    """Registers a function that kills the workers that still run when this process exits.

    At exit, multiprocessing sends SIGTERM to its daemon processes and waits for them. The workers
    ignore SIGTERM, and after a signal in a validation those of the training loader still run.
    """

    def kill() -> None:
        for process in multiprocessing.active_children():
            if process.daemon:
                process.kill()

    atexit.register(kill)  # functions that are registered later are called earlier
