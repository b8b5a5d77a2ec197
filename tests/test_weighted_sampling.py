"""dataset.sampling: how often each sample is drawn, as a function of (seed, epoch)."""

import typing

import numpy as np
import pytest
import torch
from test_configs import composed
from test_limit import SIZES, Classes, Unlabeled
from trainers import fake_trainer

from spine.config import checks
from spine.config.schemas import LOADER
from spine.config.values import fits
from spine.data.building import build_data
from spine.data.data_module import DataModule
from spine.data.sampler import TrainingBatches
from spine.data.sampling import Sampling, WeightedOrder, number_draws, weighted_order
from spine.data.subset import limited
from spine.errors import InputError
from spine.interfaces import Labels, SampleTransform

SCHEMES = ("class_balanced", "square_root", "weighted")


class Weighted(Classes):
    """Sample i has the weight i % 5."""

    def load(self, index):
        rng = np.random.default_rng(index)
        return {"image": rng.integers(0, 256, (4, 4, 3), np.uint8), "label": int(self.targets[index])}

    def class_indices(self):
        return self.targets

    def sample_weights(self):
        return np.arange(len(self)) % 5


class Noise(SampleTransform):
    """Adds random numbers, so that draws of one sample differ."""

    geometric = False

    def __call__(self, sample, rng):
        return {**sample, "image": sample["image"] + rng.integers(0, 9, sample["image"].shape, np.uint8)}


def order_of(sampling, epoch=0, seed=0, length=200, **options):
    batches = TrainingBatches(length, 10, seed, weighted=weighted_order(Weighted(), sampling), **options)
    batches.set_epoch(epoch)
    return [draw for batch in batches for draw in batch]


@pytest.mark.parametrize("epoch", range(5))
def test_classes_are_drawn_equally_often_and_their_samples_as_evenly_as_possible(epoch):
    draws = order_of("class_balanced", epoch)
    times = np.bincount([draw.index for draw in draws], minlength=200)
    assert len(draws) == 200
    assert np.bincount(Weighted().targets, times).tolist() == [50, 50, 50, 50]
    for label, size in enumerate(SIZES):
        of_class = times[Weighted().targets == label]
        assert set(of_class) <= {50 // size, -(-50 // size)}


def test_square_root_lies_between_the_share_of_the_samples_and_equal_shares():
    times = np.bincount([draw.index for draw in order_of("square_root")], minlength=200)
    expected = np.sqrt(SIZES) / np.sqrt(SIZES).sum() * 200
    assert (np.abs(np.bincount(Weighted().targets, times) - expected) < 1).all()


def test_samples_are_drawn_in_proportion_to_their_weights():
    total = np.zeros(200)
    for epoch in range(20):
        times = np.bincount([draw.index for draw in order_of("weighted", epoch)], minlength=200)
        expected = Weighted().sample_weights() / Weighted().sample_weights().sum() * 200
        assert (np.floor(expected) <= times).all() and (times <= np.ceil(expected)).all()
        assert (np.abs(np.bincount(Weighted().targets, times) - np.bincount(Weighted().targets, expected)) < 1).all()
        total += times
    assert np.abs(total / 20 - expected).max() < 0.4  # the expected numbers of draws are 0, 0.5, 1, 1.5 and 2


def test_equal_weights_draw_each_sample_once():
    order = WeightedOrder(np.full(1000, 0.1)).draw(1000, np.random.default_rng(0))
    assert sorted(order) == list(range(1000)) and (order != np.arange(1000)).any()


@pytest.mark.parametrize("sampling", SCHEMES)
def test_the_order_is_a_function_of_seed_and_epoch(sampling):
    assert order_of(sampling, 1) == order_of(sampling, 1)
    assert order_of(sampling, 1) != order_of(sampling, 2) and order_of(sampling, 1) != order_of(sampling, 1, seed=1)


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("sampling", SCHEMES)
def test_draws_of_a_sample_have_different_numbers(sampling, repeats):
    draws = order_of(sampling, repeats=repeats)
    assert len(set(draws)) == len(draws) == 200
    copies = {}
    for draw in draws:
        copies.setdefault(draw.index, []).append(draw.copy)
    assert all(sorted(numbers) == list(range(len(numbers))) or repeats > 1 for numbers in copies.values())
    if repeats > 1:  # the draws of a sample are consecutive
        assert all(draws[i].index == draws[i + 1].index == draws[i + 2].index for i in range(0, 198, 3))


def test_draws_are_numbered_in_their_order():
    assert number_draws(np.array([3, 1, 3, 3, 0, 1])).tolist() == [0, 0, 1, 2, 0, 1]
    assert number_draws(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("sampling", SCHEMES)
def test_processes_divide_one_order(sampling, world):
    order = weighted_order(Weighted(), sampling)
    parts = [
        list(TrainingBatches(200, 4, 0, rank=rank, world=world, global_batch_size=12, weighted=order)) for rank in range(world)
    ]
    whole = list(TrainingBatches(200, 12, 0, weighted=order))
    micro_batches = len(parts[0]) // len(whole)
    for step, group in enumerate(whole):
        own = [sum(part[step * micro_batches : (step + 1) * micro_batches], []) for part in parts]
        assert sorted(sum(own, [])) == sorted(group)


def module(workers, sampling="class_balanced", **options):
    return DataModule(
        lambda split: Weighted(), [Noise()], [], needs={"image", "label"}, batch_size=16, num_workers=workers, sampling=sampling,
        mean=[0.5] * 3, std=[0.5] * 3, **options,
    )  # fmt: skip


def epoch_bytes(loader, epoch):
    loader.batch_sampler.set_epoch(epoch)
    return [(batch["image"].numpy().tobytes(), batch["index"].tolist(), batch["copy"].tolist()) for batch in loader]


def test_workers_do_not_change_the_samples_and_draws_of_one_sample_differ():
    expected = epoch_bytes(module(0).loader("train", training=True), 3)
    for workers in (1, 2, 4):
        assert epoch_bytes(module(workers).loader("train", training=True), 3) == expected
    rare = np.flatnonzero(Weighted().targets == 2)[0]
    samples = module(0).transformed("train", training=True)
    draws = [draw for batch in module(0).loader("train", training=True).batch_sampler for draw in batch if draw.index == rare]
    assert len(draws) >= 16 and len({samples[draw]["image"].numpy().tobytes() for draw in draws}) == len(draws)


def test_an_epoch_is_resumed_where_it_stopped():
    first = module(0, global_batch_size=32).loader("train", training=True)
    whole = epoch_bytes(first, 2)
    iterator = iter(first)
    for _ in range(6):
        next(iterator)
    second = module(2, global_batch_size=32).loader("train", training=True)
    second.load_state_dict(first.state_dict())
    assert first.state_dict() == {"epoch": 2, "samples_done": 96}
    assert epoch_bytes(second, 2) == whole[6:]


def test_overfitting_draws_the_same_samples_in_every_epoch():
    data = module(0)
    data.trainer = fake_trainer(overfit_batches=2)
    loader = data.loader("train", training=True)
    assert epoch_bytes(loader, 0) == epoch_bytes(loader, 1)


def test_the_classes_of_a_part_of_the_data_are_balanced():
    part = limited(Weighted(), 20, seed=0)  # 10, 4, 1 and 5 samples
    drawn = weighted_order(part, "class_balanced").draw(20, np.random.default_rng(0))
    assert np.bincount(part.class_indices()[drawn]).tolist() == [5, 5, 5, 5]


class Several(Classes):
    labels = Labels(classes=("a", "b"), several_classes=True)


class Stated(Classes):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def sample_weights(self):
        return self.weights


@pytest.mark.parametrize(
    ("data", "sampling", "message"),
    [
        (Unlabeled(), "class_balanced", "dataset.sampling is class_balanced, but the images of this data set have no class of their own."),
        (Several(), "square_root", "dataset.sampling is square_root, but the images of this data set may have several classes."),
        (Classes(), "weighted", "dataset.sampling is weighted, but the data set has no weights of its samples."),
        (Stated(np.array([1.0, -2.0])), "weighted", "dataset.sampling is weighted, and the weight of sample 1 is -2; weights are"),
        (Stated(np.array([np.nan, 1.0])), "weighted", "dataset.sampling is weighted, and the weight of sample 0 is nan"),
        (Stated(np.zeros(2)), "weighted", "dataset.sampling is weighted, and the weights of all samples are 0."),
    ],
)  # fmt: skip
def test_missing_classes_and_impossible_weights_are_reported(data, sampling, message):
    with pytest.raises(InputError) as error:
        weighted_order(data, sampling)
    assert str(error.value).startswith(message)


def test_the_command_line_offers_every_scheme():
    for scheme in typing.get_args(Sampling):
        assert fits(scheme, LOADER["sampling"].kind)
    with pytest.raises(InputError, match=r"^dataset\.sampling is 'balanced'; it must be shuffle, class_balanced"):
        checks.prepare(composed("dataset.sampling=balanced"))
    data = build_data(checks.prepare(composed("dataset.sampling=class_balanced", "dataset.length={train: 40, val: 4, test: 4}")))
    data.num_workers = 0
    labels = torch.cat([batch["label"] for batch in data.loader("train", training=True)])
    assert len(labels) == 32
