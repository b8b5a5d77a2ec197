"""Samples, their order and their randomness are functions of seed, epoch and index only."""

import numpy as np
import pytest
import torch
from trainers import fake_trainer

from spine.data.collation import collate
from spine.data.data_module import DataModule, Samples
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw, EvaluationBatches, TrainingBatches
from spine.data.transforms import RandomScaleCrop, TopDownAffine, Transform
from spine.errors import InputError
from spine.tasks.mae.masking import RandomPatchMask

STATS = {"mean": [0.5] * 3, "std": [0.25] * 3}


def indices(batches):
    return [[draw.index for draw in batch] for batch in batches]


def test_each_epoch_has_every_sample_once_in_another_order():
    batches = TrainingBatches(24, 4, seed=0)
    orders = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        orders.append(sum(indices(batches), []))
        assert sorted(orders[-1]) == list(range(24))
    assert orders[0] != orders[1] != orders[2]
    batches.set_epoch(1)
    assert sum(indices(batches), []) == orders[1]
    assert sum(indices(TrainingBatches(24, 4, seed=1)), []) != orders[0]


def test_processes_share_one_order():
    whole = TrainingBatches(26, 8, seed=3)
    parts = [TrainingBatches(26, 4, seed=3, rank=rank, world=2) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1]) == 3
    for all_of_it, one, two in zip(indices(whole), *map(indices, parts), strict=True):
        assert all_of_it[0::2] == one and all_of_it[1::2] == two


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once_in_order(world):
    parts = [EvaluationBatches(10, 4, rank=rank, world=world) for rank in range(world)]
    for part in parts:
        part.set_epoch(5)
        assert len(indices(part)) == len(part)
        assert all(draw.epoch == 0 for batch in part for draw in batch)  # the same randomness in every epoch
    assert sorted(draw.index for part in parts for batch in part for draw in batch if not draw.spare) == list(range(10))


def test_lightning_can_reach_set_epoch():
    batches = TrainingBatches(8, 2, seed=0)
    batches.sampler.set_epoch(4)
    assert batches.epoch == 4


def samples(seed=0, extras=None):
    return Samples(Shapes("train"), Transform([RandomScaleCrop((64, 64))], **STATS), seed, frozenset({"image", "mask"}), extras)


def test_randomness_follows_seed_epoch_index_and_copy():
    data = samples()
    base = data[Draw(0, 3)]["image"]
    data[Draw(0, 5)]
    assert torch.equal(base, data[Draw(0, 3)]["image"])
    for other in (samples(seed=1)[Draw(0, 3)], data[Draw(1, 3)], data[Draw(0, 3, 1)]):
        assert not torch.equal(base, other["image"])


def test_patch_masks_have_the_same_number_of_masked_patches():
    data = samples(extras={"patch_mask": RandomPatchMask(16, 0.75)})
    masks = torch.stack([data[Draw(0, i)]["patch_mask"] for i in range(8)])
    assert masks.dtype == torch.bool and masks.sum(1).tolist() == [12] * 8
    assert len({tuple(mask.tolist()) for mask in masks}) > 4
    assert torch.equal(masks[0], data[Draw(0, 0)]["patch_mask"])
    assert not torch.equal(masks[0], data[Draw(1, 0)]["patch_mask"])


def test_samples_have_only_the_keys_that_the_task_needs():
    assert set(samples()[Draw(0, 0)]) == {"image", "mask", "index"}
    pose = Samples(Shapes("train"), Transform([TopDownAffine((64, 64))], **STATS), 0, frozenset({"image", "keypoints"}))
    assert set(pose[Draw(0, 0)]) == {"image", "keypoints", "index", "affine", "box", "area", "image_id"}


def test_batches_are_channels_last_without_a_copy():
    data = samples()
    batch = collate([data[Draw(0, i)] for i in range(4)])
    assert batch["image"].shape == (4, 3, 64, 64)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch["image"][2], data[Draw(0, 2)]["image"])


def module(workers, batch_size=8, length=32):
    return DataModule(
        lambda split: Shapes(split, length={"train": length, "val": 10}),
        [RandomScaleCrop((64, 64))],
        [RandomScaleCrop((64, 64))],
        needs=frozenset({"image", "mask"}),
        batch_size=batch_size,
        num_workers=workers,
        seed=0,
        **STATS,
    )


def test_workers_do_not_change_the_data():
    def digest(workers):
        loader, sums = module(workers).train_dataloader(), []
        state = torch.random.get_rng_state()
        for epoch in range(2):
            loader.batch_sampler.set_epoch(epoch)
            sums.extend(batch["image"].numpy().tobytes() for batch in loader)
        assert torch.equal(
            state, torch.random.get_rng_state()
        )  # the loader does not change the global state: dropout stays the same
        return sums

    alone = digest(0)
    assert len(set(alone)) == 8
    assert alone == digest(1) == digest(2)


def test_too_few_samples_for_a_batch_are_reported():
    with pytest.raises(InputError, match="has 32 samples, fewer than one batch of 64. Set dataset.batch_size to at most 32"):
        module(0, batch_size=64).train_dataloader()
    data = module(0)
    data.global_batch_size = 33
    with pytest.raises(InputError, match="has 32 samples, fewer than dataset.global_batch_size=33. Set it to at most 32"):
        data.train_dataloader()
    with pytest.raises(InputError, match="batch_size is 0"):
        module(0, batch_size=0)


def test_evaluation_keeps_the_last_small_batch():
    assert [len(batch["image"]) for batch in module(0).val_dataloader()] == [8, 2]
    assert np.concatenate([batch["index"] for batch in module(0).val_dataloader()]).tolist() == list(range(10))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pass_starts_with_the_epoch_of_its_first_batch(workers):
    """Lightning creates the iterator of a resumed run before it sets the epoch of the sampler."""
    data = module(workers)
    loader = data.loader("train", training=True)
    iterator = iter(loader)
    loader.batch_sampler.set_epoch(3)
    assert torch.equal(next(iterator)["index"], torch.tensor([draw.index for draw in next(iter(epoch_batches(loader, 3)))]))


def epoch_batches(loader, epoch):
    batches = TrainingBatches(loader.batch_sampler.length, loader.batch_sampler.batch_size, loader.batch_sampler.seed)
    batches.set_epoch(epoch)
    return batches


def test_a_loader_resumes_after_the_batches_that_were_returned():
    data = module(0)
    first = data.loader("train", training=True)
    first.batch_sampler.set_epoch(2)
    whole = [batch["index"].tolist() for batch in first]
    iterator = iter(first)
    assert [next(iterator)["index"].tolist() for _ in range(2)] == whole[:2]
    state = first.state_dict()
    assert state == {"epoch": 2, "samples_done": 16} and first.seconds_waited > 0
    second = data.loader("train", training=True)
    second.load_state_dict(state)
    second.batch_sampler.set_epoch(2)
    assert [batch["index"].tolist() for batch in second] == whole[2:] and len(second) == len(whole)
    second.load_state_dict(state)
    second.batch_sampler.set_epoch(3)  # a checkpoint of a finished epoch: the next one is complete
    assert len(list(second)) == len(whole)


def test_overfitting_a_few_batches_draws_the_same_ones_in_every_epoch():
    data = module(0)
    data.trainer = fake_trainer(overfit_batches=2)
    loader = data.train_dataloader()
    passes = []
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        passes.append([(draw.epoch, draw.index) for batch in loader.batch_sampler for draw in batch])
    assert passes[0] == passes[1]
