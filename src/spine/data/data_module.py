"""The DataModule of every data set: loads, transforms and batches the splits for a task."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Literal, TypedDict, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from spine.checkpoints.input_settings import IMAGENET_MEAN, IMAGENET_STD
from spine.data.cache import FORK, Cached, CacheKind, SharedMemory
from spine.data.collation import collate
from spine.data.loader import ResumableLoader
from spine.data.sampler import Draw, EpochBatches, EvaluationBatches, TrainingBatches
from spine.data.sampling import Sampling, weighted_order
from spine.data.skipping import Skipping
from spine.data.transforms import Step, Transform
from spine.data.transforms.pipeline import Resolution
from spine.data.workers import count_workers, prepare_worker
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, Labels, RawSample, Sample, SampleExtra

WITH_KEYPOINTS = frozenset(
    {"box", "area", "image_id", "affine", "box_score", "head_size"}
)  # sample keys that belong to keypoints


class Samples(Dataset):
    """Transformed samples of a split, by Draw.

    Randomness is a function of (seed, epoch, index, copy) only.
    """

    def __init__(
        self,
        data: DataSet,
        transform: Transform,
        seed: int,
        needs: frozenset[str],
        extras: Mapping[str, SampleExtra] | None = None,
        repeated: bool = False,
        skipping: Skipping | None = None,
    ):
        """`needs`: sample keys of the data set that are used. `extras`: functions of the sample's
        generator that give further keys. `repeated`: adds the number of the draw, `copy`. `skipping`:
        replaces samples with unreadable files; None: they raise UnreadableFileError.

        Raises InputError if the data set does not provide a key, or if the data or the transform do
        not fit.
        """
        if missing := sorted(needs - data.provides):
            raise InputError(
                f"The data set does not provide {', '.join(missing)}; it provides {', '.join(sorted(data.provides))}."
            )
        self.data, self.transform, self.seed = data, transform, seed
        self.extras = {} if extras is None else extras
        self.repeated, self.skipping = repeated, skipping
        self.keys = needs | (WITH_KEYPOINTS if "keypoints" in needs else frozenset())
        with nullcontext() if skipping is None else suppress(UnreadableFileError):  # it is found again when it is drawn
            data.check(self.keys)
        transform.prepare(data.labels, self.keys)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.data)

    def __getitem__(self, draw: Draw) -> Sample:
        """Returns the sample of one draw."""
        return self.draw(draw)

    def draw(self, draw: Draw, normalize: bool = True) -> Sample:
        """Returns the sample of one draw. `normalize`: see `Transform`."""
        make = partial(self._make, normalize=normalize)
        return make(draw) if self.skipping is None else self.skipping.sample(draw, make)

    def _make(self, draw: Draw, normalize: bool) -> Sample:
        encoded = self.data.encoded_image(draw.index) if self.transform.reads_encoded else None
        loaded = self.data.load(draw.index) if encoded is None else self.data.load_annotations(draw.index)
        raw = cast(RawSample, {key: value for key, value in loaded.items() if key in self.keys})
        sample = make_sample(raw, draw, self.transform, self.seed, self.extras, encoded, normalize)
        if self.repeated:
            sample["copy"] = torch.tensor(draw.copy)
        if draw.spare:
            sample["spare"] = torch.tensor(True)
        return sample


class PixelSamples(Dataset):
    """The samples of a loader, which normalizes whole batches: images stay uint8 pixels where that is possible."""

    def __init__(self, samples: Samples):
        self.samples, self.data = samples, samples.data

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def __getitem__(self, draw: Draw) -> Sample:
        """Returns the sample of one draw."""
        return self.samples.draw(draw, normalize=False)


def make_sample(
    raw: RawSample,
    draw: Draw,
    transform: Transform,
    seed: int,
    extras: Mapping[str, SampleExtra],
    encoded: EncodedImage | None = None,
    normalize: bool = True,
) -> Sample:
    """Returns the transformed sample of one draw, with its index and the keys that `extras` add.

    Everything random is a function of the seed and the draw. `encoded`, `normalize`: see `Transform`.
    """
    rng = np.random.default_rng((seed, draw.epoch, draw.index, draw.copy))
    sample = transform(raw, rng, encoded=encoded, normalize=normalize)
    sample["index"] = torch.tensor(draw.index)
    for key, draw_extra in extras.items():
        sample[key] = draw_extra(rng)  # type: ignore[literal-required]
    return sample


def check_step_size(length: int, global_batch_size: int) -> None:
    """Raises InputError if `length` training samples are fewer than an optimizer step has."""
    if length < global_batch_size:
        raise InputError(
            f"The training split has {length} samples, fewer than dataset.global_batch_size={global_batch_size}. "
            f"Set it to at most {length}."
        )


class WorkerOptions(TypedDict, total=False):
    """Arguments of DataLoader that need worker processes."""

    persistent_workers: bool
    prefetch_factor: int
    multiprocessing_context: BaseContext | None


class DataModule(pl.LightningDataModule):
    """Loaders for the splits of a data set, for spine's commands and for a plain `pl.Trainer`.

        data = DataModule(
            partial(ImageFolder, root="photos"),
            train_steps=[RandomResizedCrop((224, 224), interpolation="bilinear", fast=True), HorizontalFlip()],
            eval_steps=[CenterCrop((224, 224))],
            needs={"image", "label"},
        )
        pl.Trainer(max_epochs=5).fit(task, data)

    A split is opened when it is first used. The batches depend on the seed only, not on the number
    of workers. For several processes, pass `use_distributed_sampler=False` to the Trainer: the
    loaders divide the samples themselves.
    """

    def __init__(
        self,
        open_split: Callable[[str], DataSet],
        train_steps: Sequence[Step] = (),
        eval_steps: Sequence[Step] = (),
        *,
        needs: Iterable[str],
        batch_size: int = 32,
        global_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        pad_multiple: int = 1,
        channels: str = "rgb",
        repeats: int = 1,
        sampling: Sampling = "shuffle",
        on_error: Literal["raise", "skip"] = "raise",
        max_error_share: float = 0.01,
        resolution: Resolution | None = None,
        evaluated: Callable[[DataSet], DataSet] | None = None,
        cache: CacheKind = "none",
        cache_gb: float = 4.0,
    ):
        """`open_split`: the data set of split "train", "val" or "test", for example
        `partial(ImageFolder, root="photos")`.
        `train_steps`, `eval_steps`: transforms of `spine.data.transforms` and of albumentations,
        before normalization.
        `needs`: sample keys of the data set that the task needs, such as {"image", "mask"}.
        `batch_size`: samples of a batch on each process. `global_batch_size`: samples of an optimizer
        step on all processes together; `batch_size` is then the largest size of a micro-batch, and the
        Trainer needs the callback `spine.training.global_batch.GlobalBatch`.
        `num_workers`: processes per loader, see `count_workers`; None for a number that fits the cores.
        `mean`, `std`: of red, green and blue pixels in 0..1. `pad_multiple`, `channels`: images are
        padded to a multiple, and have their channels in the order "rgb" or "bgr"; see `Transform`.
        `repeats`: draws of each training sample in an epoch, see `TrainingBatches`. `sampling`: how often
        each is drawn, see `weighted_order`.
        `on_error`: whether a sample with an unreadable file raises an error or is skipped, see `Skipping`;
        `max_error_share`: of the samples, above which skipping raises one.
        `resolution`: at which masks are evaluated, "original" or "input"; see `Transform`.
        `evaluated`: replaces the data set of a split in evaluations, for example by `DetectedObjects`.
        `cache`: what is kept in memory of each image, "none", "encoded" or "decoded", up to `cache_gb` GiB for all splits and all
        processes on a machine together; see `Cached`.
        """
        super().__init__()
        if batch_size < 1:
            raise InputError(f"dataset.batch_size is {batch_size}; it must be at least 1.")
        self.open_split, self.needs = open_split, frozenset(needs)
        self.train_steps, self.eval_steps = list(train_steps), list(eval_steps)
        self.mean, self.std, self.pad_multiple, self.channels = mean, std, pad_multiple, channels
        self.repeats, self.sampling, self.resolution, self.evaluated = repeats, sampling, resolution, evaluated
        self.on_error, self.max_error_share = on_error, max_error_share
        self.batch_size, self.global_batch_size, self.seed = batch_size, global_batch_size, seed
        self.num_workers, self.cache, self.cache_gb = num_workers, cache, cache_gb
        self.memory: SharedMemory | None = None  # of the cache
        self.extras: dict[str, SampleExtra] = {}
        self.opened: dict[str, DataSet] = {}
        self.samples: dict[tuple[str, bool], Samples] = {}
        self.training_loader: ResumableLoader | None = None
        self.position: dict[str, int] | None = None  # of a checkpoint, until the training loader is made

    @property
    def labels(self) -> Labels:
        """Labels of a split that is open, otherwise of the training split."""
        data = next(iter(self.opened.values())) if self.opened else self.split("train")
        return data.labels

    def split(self, name: str) -> DataSet:
        """Returns the data set of a split: train, val or test."""
        if name not in self.opened:
            self.opened[name] = self.open_split(name)
        return self.opened[name]

    def transformed(self, name: str, training: bool = False) -> Samples:
        """Returns the samples of a split, with the training steps or the evaluation steps."""
        if (name, training) not in self.samples:
            data = self.split(name)
            if not training and self.evaluated is not None:
                data = self.evaluated(data)
            if self.cache != "none":
                data = self._cached(data)
            steps = copy.deepcopy(self.train_steps if training else self.eval_steps)  # `prepare` changes them
            resolution = None if training else self.resolution
            transform = Transform(steps, self.mean, self.std, self.pad_multiple, self.channels, resolution)
            skips = self.on_error == "skip"
            skipping = Skipping(name, training, len(data), self.seed, self.max_error_share) if skips else None
            repeated = training and (self.repeats > 1 or self.sampling != "shuffle" or skips)
            self.samples[name, training] = Samples(data, transform, self.seed, self.needs, self.extras, repeated, skipping)
        return self.samples[name, training]

    def _cached(self, data: DataSet) -> DataSet:
        """Returns a data set whose images are kept in memory."""
        if self.memory is None:
            self.memory = SharedMemory(int(self.cache_gb * 2**30) // self._processes_here())
        assert self.cache != "none"
        return Cached(data, self.memory, self.cache)

    def _processes_here(self) -> int:
        """Returns the number of processes of the run on this machine."""
        return 1 if self.trainer is None else self.trainer.num_devices

    def add_extras(self, extras: Mapping[str, SampleExtra]) -> None:
        """Adds keys to every sample: functions of the sample's random generator, by sample key.

        A Trainer does this for the `sample_extras` of its task. Call it to use `loader` without a
        Trainer.
        """
        self.extras.update(extras)

    def setup(self, stage: str) -> None:
        """Adds the `sample_extras` of the Trainer's task, such as patch masks.

        Lightning calls this before it requests loaders.
        """
        task = self.trainer.lightning_module if self.trainer is not None else None
        sample_extras: Callable[[], Mapping[str, SampleExtra]] = getattr(task, "sample_extras", dict)
        self.add_extras(sample_extras())

    def loader(self, name: str, training: bool = False) -> ResumableLoader:
        """Returns the loader of a split.

        By default it evaluates: in order, complete, with the evaluation steps. With `training`:
        shuffled, with the training steps, and without an incomplete last batch. Raises InputError
        if the training split is smaller than one batch per process, or than the global batch size.
        """
        samples = self.transformed(name, training)
        if samples.skipping is not None and self.trainer is not None:
            samples.skipping.files.folder = Path(self.trainer.default_root_dir)
        batches = self._training_batches(len(samples)) if training else self._evaluation_batches(len(samples))
        device = None if self.trainer is None else self.trainer.strategy.root_device
        accelerated = device is not None and device.type != "cpu"
        workers = count_workers(self.num_workers, self._processes_here(), accelerated)
        options: WorkerOptions = {"persistent_workers": True, "prefetch_factor": 4} if workers else {}
        if workers and self.memory is not None:
            options["multiprocessing_context"] = FORK  # others do not share the memory
        return ResumableLoader(
            PixelSamples(samples),
            normalization=samples.transform.normalization,
            device=device,
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=prepare_worker,
            generator=torch.Generator(),  # with the global one, dropout would depend on the number of workers
            **options,
        )

    def _evaluation_batches(self, length: int) -> EpochBatches:
        rank, world = self._rank_and_world()
        return EvaluationBatches(length, self.batch_size, rank=rank, world=world)

    def _training_batches(self, length: int) -> EpochBatches:
        """Returns the batches of `length` training samples. Raises InputError if these are too few."""
        rank, world = self._rank_and_world()
        if self.global_batch_size is not None:
            check_step_size(length, self.global_batch_size)
        if self.global_batch_size is None and length < self.batch_size * world:
            processes = f" on each of {world} processes" if world > 1 else ""
            raise InputError(
                f"The training split has {length} samples, fewer than one batch of {self.batch_size}{processes}. "
                f"Set dataset.batch_size to at most {max(1, length // world)}."
            )
        step = self.global_batch_size or self.batch_size * world
        if self.repeats > step:
            raise InputError(
                f"dataset.repeats is {self.repeats}, more than the {step} samples of a batch, in which all draws of a sample should be. "
                f"Set it to at most {step}."
            )
        overfit = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return TrainingBatches(
            length,
            self.batch_size,
            self.seed,
            rank=rank,
            world=world,
            global_batch_size=self.global_batch_size,
            repeats=self.repeats,
            shuffle=not overfit,  # overfitting needs the same batches in every epoch
            weighted=weighted_order(self.split("train"), self.sampling),
            order=getattr(self.split("train"), "order", None),  # of shards that are read in windows
        )

    def _rank_and_world(self) -> tuple[int, int]:
        """Returns the index and the number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def train_dataloader(self) -> ResumableLoader:
        """Returns the batches of the training split.

        In a resumed run, they start after the last batch that was trained on.
        """
        self.training_loader = self.loader("train", training=True)
        if self.position is not None:
            self.training_loader.load_state_dict(self.position)
            self.position = None
        return self.training_loader

    def val_dataloader(self) -> ResumableLoader:
        """Returns the batches of the validation split."""
        return self.loader("val")

    def test_dataloader(self) -> ResumableLoader:
        """Returns the batches of the test split."""
        return self.loader("test")

    def state_dict(self) -> dict[str, int]:
        """Returns the position of training in its epoch, for the checkpoint.

        Lightning saves the states of loaders as well, but restores them only if the loaders are
        made after the checkpoint is read. A schedule that needs the number of steps has them made
        before.
        """
        return self.training_loader.state_dict() if self.training_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Moves the training loader to the position of a checkpoint, or keeps it until the loader is made.

        With trainer=fsdp, Lightning reads the checkpoint after it has made the loader.
        """
        if self.training_loader is not None:
            self.training_loader.load_state_dict(state_dict)
        else:
            self.position = state_dict or None
