"""The one DataModule: reads, transforms and batches the splits of a data set for a task."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from spine.data.loader import ResumableLoader
from spine.data.sampler import Draw, EpochBatches
from spine.data.transforms import Transform
from spine.errors import InputError
from spine.interfaces import DataSet, Sample, SampleExtra

WITH_KEYPOINTS = frozenset({"box", "area", "image_id", "affine"})


class Samples(Dataset):
    """Transformed samples by Draw. Every random choice about one is a function of (seed, epoch, index, copy) alone."""

    def __init__(
        self,
        data: DataSet,
        transform: Transform,
        seed: int,
        needs: frozenset[str],
        extras: Mapping[str, SampleExtra],
    ):
        """`extras`: what the task adds to every sample, by sample key; drawn after the transform."""
        self.data, self.transform, self.seed, self.extras = data, transform, seed, extras
        self.keys = needs | (WITH_KEYPOINTS if "keypoints" in needs else frozenset())
        data.check(self.keys)
        transform.prepare(data.labels, self.keys)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data)

    def __getitem__(self, draw: Draw) -> Sample:
        """The sample of one draw."""
        rng = np.random.default_rng((self.seed, *draw))
        raw = self.data.load(draw.index)
        sample = self.transform({key: value for key, value in raw.items() if key in self.keys}, rng)
        sample["index"] = torch.tensor(draw.index)
        for key, draw_extra in self.extras.items():
            sample[key] = draw_extra(rng)  # type: ignore[literal-required]
        return sample


def collate(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    """Stacks samples; images (B, 3, H, W) are channels_last without a copy."""
    batch: dict[str, torch.Tensor] = {}
    for key in samples[0]:
        tensors = [sample[key] for sample in samples]  # type: ignore[literal-required]
        if key == "image":
            batch[key] = torch.stack([tensor.permute(1, 2, 0) for tensor in tensors]).permute(0, 3, 1, 2)
        else:
            batch[key] = torch.stack(tensors)
    return batch


class DataModule(pl.LightningDataModule):
    """Loaders of the splits. `open_split` makes the data set of a split; a split is opened when it is first used."""

    def __init__(
        self,
        open_split: Callable[[str], DataSet],
        transforms: Callable[[str, DataSet], Transform],
        *,
        needs: frozenset[str],
        batch_size: int,
        num_workers: int,
        seed: int,
    ):
        super().__init__()
        if batch_size < 1:
            raise InputError(f"dataset.batch_size is {batch_size}; it must be at least 1.")
        self.open_split, self.transforms, self.needs = open_split, transforms, needs
        self.batch_size, self.seed = batch_size, seed
        self.extras: dict[str, SampleExtra] = {}
        self.num_workers = min(num_workers, os.cpu_count() or 1) if num_workers >= 0 else os.cpu_count() or 1
        self.opened: dict[str, DataSet] = {}
        self.samples: dict[tuple[str, bool], Samples] = {}
        self.training_loader: ResumableLoader | None = None
        self.position: dict[str, int] | None = None  # of a checkpoint, until the loader is made

    def split(self, name: str) -> DataSet:
        """The data set of a split: train, val or test."""
        if name not in self.opened:
            self.opened[name] = self.open_split(name)
        return self.opened[name]

    def transformed(self, name: str, training: bool = False) -> Samples:
        """The samples of a split, augmented for training or as they are evaluated."""
        if (name, training) not in self.samples:
            data = self.split(name)
            transform = self.transforms("train" if training else "eval", data)
            self.samples[name, training] = Samples(data, transform, self.seed, self.needs, self.extras)
        return self.samples[name, training]

    def add_extras(self, extras: Mapping[str, SampleExtra]) -> None:
        """Adds what a task wants in every sample: functions of the sample's random generator by sample key."""
        self.extras.update(extras)

    def loader(self, name: str, training: bool = False) -> ResumableLoader:
        """The loader of a split: in order, complete and without augmentation; or, for training, shuffled, augmented and
        without an incomplete last batch.
        """
        samples = self.transformed(name, training)
        if training and len(samples) < self.batch_size * self._world():
            processes = f" on each of {self._world()} processes" if self._world() > 1 else ""
            raise InputError(
                f"The training split holds {len(samples)} samples, fewer than one batch of {self.batch_size}{processes}. "
                f"Set dataset.batch_size to at most {max(1, len(samples) // self._world())}."
            )
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]  # the same batches in every epoch
        batches = EpochBatches(
            len(samples),
            self.batch_size,
            self.seed,
            shuffle=training and not overfit,
            rank=self._rank(),
            world=self._world(),
        )
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if self.num_workers else {}
        return ResumableLoader(
            samples,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_prepare_worker,
            generator=torch.Generator(),  # else every pass would draw from the global state, and dropout would depend on the workers
            **options,
        )

    def train_dataloader(self) -> ResumableLoader:
        """Batches of the training split; in a resumed run, those behind the last one that was trained."""
        self.training_loader = self.loader("train", training=True)
        if self.position is not None:
            self.training_loader.load_state_dict(self.position)
            self.position = None
        return self.training_loader

    def state_dict(self) -> dict[str, int]:
        """How far training got in its epoch, for the checkpoint.

        Lightning keeps the state of loaders too, but restores it only where they are made after the checkpoint is read:
        a schedule that asks for the number of steps has them made before.
        """
        return self.training_loader.state_dict() if self.training_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Keeps the position of a checkpoint for the loader that will be made."""
        self.position = state_dict or None

    def val_dataloader(self) -> ResumableLoader:
        """Batches of the validation split."""
        return self.loader("val")

    def test_dataloader(self) -> ResumableLoader:
        """Batches of the test split."""
        return self.loader("test")

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _prepare_worker(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # one thread a worker: more only get into each other's way
    for number in (signal.SIGINT, signal.SIGTERM):  # a signal to the whole group of processes: the main one ends the workers
        signal.signal(number, signal.SIG_IGN)
