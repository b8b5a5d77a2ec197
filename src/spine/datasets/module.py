"""The one DataModule: reads, transforms and batches the splits of a data set for a task."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from spine.datasets.sampler import Draw, EpochBatches
from spine.datasets.transforms import Transform
from spine.errors import InputError
from spine.interfaces import DataSet, Sample

WITH_KEYPOINTS = frozenset({"box", "area", "image_id", "affine"})


class Samples(Dataset):
    """Transformed samples by Draw. Every random choice about one is a function of (seed, epoch, index, copy) alone."""

    def __init__(
        self,
        data: DataSet,
        transform: Transform,
        seed: int,
        needs: frozenset[str],
        patch_mask: tuple[int, float] | None = None,
    ):
        """`patch_mask`: number of patches and the ratio of hidden ones, for masked pre-training."""
        self.data, self.transform, self.seed, self.patch_mask = data, transform, seed, patch_mask
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
        if self.patch_mask is not None:
            patches, ratio = self.patch_mask
            hidden = np.ones(patches, bool)
            hidden[rng.permutation(patches)[: max(1, int(patches * (1 - ratio)))]] = False  # visible ones: int(N * (1 - ratio))
            sample["patch_mask"] = torch.from_numpy(hidden)
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
        patch_mask: tuple[int, float] | None = None,
    ):
        super().__init__()
        if batch_size < 1:
            raise InputError(f"dataset.batch_size is {batch_size}; it must be at least 1.")
        self.open_split, self.transforms, self.needs = open_split, transforms, needs
        self.batch_size, self.seed, self.patch_mask = batch_size, seed, patch_mask
        self.num_workers = min(num_workers, os.cpu_count() or 1) if num_workers >= 0 else os.cpu_count() or 1
        self.opened: dict[str, Samples] = {}

    def split(self, name: str) -> Samples:
        """The samples of a split: train, val or test."""
        if name not in self.opened:
            data = self.open_split(name)
            self.opened[name] = Samples(data, self.transforms(name, data), self.seed, self.needs, self.patch_mask)
        return self.opened[name]

    def loader(self, name: str) -> DataLoader:
        """The loader of a split: shuffled and without an incomplete batch for train, in order and complete for the others."""
        samples, train = self.split(name), name == "train"
        if train and len(samples) < self.batch_size * self._world():
            processes = f" on each of {self._world()} processes" if self._world() > 1 else ""
            raise InputError(
                f"The training split holds {len(samples)} samples, fewer than one batch of {self.batch_size}{processes}. "
                f"Set dataset.batch_size to at most {max(1, len(samples) // self._world())}."
            )
        batches = EpochBatches(len(samples), self.batch_size, self.seed, shuffle=train, rank=self._rank(), world=self._world())
        options: dict[str, Any] = {"persistent_workers": True, "prefetch_factor": 4} if self.num_workers else {}
        return DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_single_threaded,
            generator=torch.Generator(),  # else every pass would draw from the global state, and dropout would depend on the workers
            **options,
        )

    def train_dataloader(self) -> DataLoader:
        """Batches of the training split."""
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        """Batches of the validation split."""
        return self.loader("val")

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1


def _single_threaded(worker: int) -> None:
    import cv2

    cv2.setNumThreads(0)  # one thread a worker: more only get into each other's way
