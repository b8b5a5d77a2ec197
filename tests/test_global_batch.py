"""Optimizer steps on a global batch do not depend on the number of processes and of micro-batches."""

import copy
from types import SimpleNamespace

import pytest
import torch
from test_configs import composed

from spine.config import checks
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.collation import collate
from spine.data.sampler import Draw, EvaluationBatches, TrainingBatches
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX
from spine.tasks.mean_loss import MeanLoss
from spine.training import global_batch
from spine.training.batch_norm import BatchNormReport
from spine.training.fsdp import FullySharded
from spine.training.global_batch import GlobalBatch

DIVISIONS = [
    (1, 12),
    (1, 4),
    (2, 12),
    (2, 4),
    (3, 2),
    (3, 1),
    (5, 1),
]  # processes, largest micro-batch; 12 is not a multiple of 5


def all_batches(world, batch_size, size, length=40, epoch=1):
    """Batches of all processes: [step][process][micro-batch]."""
    parts = [TrainingBatches(length, batch_size, 3, rank=rank, world=world, global_batch_size=size) for rank in range(world)]
    for part in parts:
        part.set_epoch(epoch)
    count, batches = parts[0].micro_batches, [list(part) for part in parts]
    assert {len(own) for own in batches} == {len(parts[0])}
    return [[own[start : start + count] for own in batches] for start in range(0, len(parts[0]), count)]


@pytest.mark.parametrize(("world", "batch_size"), DIVISIONS)
@pytest.mark.parametrize("size", [12, 13])
def test_every_step_has_the_same_samples_for_any_number_of_processes(world, batch_size, size):
    whole = all_batches(1, size, size)
    steps = all_batches(world, batch_size, size)
    assert len(steps) == len(whole) == 40 // size
    for step, expected in zip(steps, whole, strict=True):
        flat = [draw for process in step for batch in process for draw in batch]
        assert sorted(draw for draw in flat if not draw.spare) == sorted(expected[0][0])
        sizes = [len(batch) for process in step for batch in process]
        assert min(sizes) >= 1 and max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
        assert all(len(batch) == 1 for process in step for batch in process if batch[0].spare)


def test_without_a_global_batch_size_processes_have_batches_of_the_same_size():
    whole, parts = all_batches(1, 8, None), all_batches(2, 4, None)
    assert len(whole) == len(parts) == 5
    for expected, (first, second) in zip(whole, parts, strict=True):
        assert expected[0][0][0::2] == first[0] and expected[0][0][1::2] == second[0]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 8, 31, 33])
def test_evaluation_has_the_batches_of_a_single_process_and_spare_ones(world, length):
    alone = list(EvaluationBatches(length, 8))
    parts = [list(EvaluationBatches(length, 8, rank=rank, world=world)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(EvaluationBatches(length, 8, world=world))}
    counted = [batch for batches in zip(*parts, strict=True) for batch in batches if not batch[0].spare]
    assert counted == alone and sum(alone, []) == [Draw(0, index) for index in range(length)]
    assert all(batch == [Draw(0, 0, spare=True)] for part in parts for batch in part if batch[0].spare)


def test_a_position_does_not_depend_on_the_number_of_processes():
    one, three = TrainingBatches(40, 4, 0, global_batch_size=12), TrainingBatches(40, 3, 0, world=3, global_batch_size=12)
    assert (one.micro_batches, three.micro_batches) == (3, 2)
    assert one.samples_before(6) == three.samples_before(4) == 24
    three.skip_samples(24)
    assert len(list(three)) == 2 and three.skip == 0
    with pytest.raises(InputError, match="after 16 samples of an epoch, which is not a multiple of the 12"):
        one.skip_samples(16)


def task_and_samples(name):
    config = composed(
        f"task={name}", "backbone=vit", "dataset.length={train: 40, val: 4, test: 4}", "image_size=[64,64]",
        "dataset.num_workers=0", "trainer.accelerator=cpu",
    )  # fmt: skip
    run = build_run(complete(config))
    task = run.task.double().eval()  # without dropout, and without batch statistics, which depend on the micro-batch
    return task, run.data.transformed("train", training=True)


def batch_of(samples, draws):
    batch = collate([samples[draw] for draw in draws])
    if "mask" in batch:  # a different part of each mask is not labeled
        for mask, index in zip(batch["mask"], batch["index"].tolist(), strict=True):
            mask[: index % 60] = IGNORE_INDEX
    return {key: value.double() if value.is_floating_point() else value for key, value in batch.items()}


def gradients(task, samples, step, batch_size, size, monkeypatch):
    """The gradient of one step as a vector, averaged over processes as DDP does, and the mean loss."""
    world, parts = len(step), len(step[0])
    trainer = SimpleNamespace(world_size=world, accumulate_grad_batches=parts)
    task.zero_grad()
    processes, mean = [GlobalBatch(size, batch_size) for _ in step], MeanLoss()
    weights, own = [], []
    for callback, batches in zip(processes, step, strict=True):
        local = copy.deepcopy(task)
        for draws in batches:
            batch = batch_of(samples, draws)
            callback.on_train_batch_start(trainer, local, batch, 0)
            loss, _ = local.evaluate_batch(batch)
            mean.update(loss, local.loss_weight(batch))
            local.backward(loss / parts)
        weights.append(callback.weights)
        own.append(local)
    monkeypatch.setattr(global_batch.dist, "all_reduce", lambda total: total.copy_(torch.stack(weights).sum()))
    for callback, local in zip(processes, own, strict=True):
        callback.on_before_optimizer_step(trainer, local, None)
    columns = zip(*([p for p in local.model.parameters() if p.requires_grad] for local in own), strict=True)
    return torch.cat([sum(one.grad for one in column).flatten() / world for column in columns]), mean.compute()


@pytest.mark.parametrize("name", ["cls", *(pytest.param(name, marks=pytest.mark.slow) for name in ("seg", "pose", "mae"))])
def test_the_gradient_of_a_step_equals_that_of_one_batch(name, monkeypatch):
    task, samples = task_and_samples(name)
    expected, mean = gradients(task, samples, all_batches(1, 12, 12)[0], 12, 12, monkeypatch)
    for world, batch_size in DIVISIONS[1:]:
        found, other_mean = gradients(task, samples, all_batches(world, batch_size, 12)[0], batch_size, 12, monkeypatch)
        assert (found - expected).norm() < 1e-6 * expected.norm()  # losses are computed in float32
        torch.testing.assert_close(other_mean, mean, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["cls", "mae"])
def test_equal_micro_batches_are_not_weighted(name):
    task, samples = task_and_samples(name)
    callback = GlobalBatch(8, 2)
    trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=2)
    callback.on_train_batch_start(trainer, task, batch_of(samples, [Draw(0, 0), Draw(0, 1)]), 0)
    assert task.step_weight is None and callback.weights is None


def test_fully_labeled_micro_batches_of_a_segmentation_have_weight_one():
    task, samples = task_and_samples("seg")
    callback, trainer = GlobalBatch(4, 2), SimpleNamespace(world_size=1, accumulate_grad_batches=2)
    for _ in range(2):
        batch = collate([samples[Draw(0, 0)], samples[Draw(0, 1)]])
        batch["mask"].clamp_(max=2)
        callback.on_train_batch_start(trainer, task, batch, 0)
        assert task.step_weight == 1.0
    for parameter in task.parameters():
        parameter.grad = torch.rand_like(parameter)
    before = [parameter.grad.clone() for parameter in task.parameters()]
    callback.on_before_optimizer_step(trainer, task, None)
    assert all(torch.equal(parameter.grad, value) for parameter, value in zip(task.parameters(), before, strict=True))


def test_a_step_without_any_label_has_zero_gradients():
    task, _ = task_and_samples("seg")
    callback, trainer = GlobalBatch(4, 2), SimpleNamespace(world_size=1, accumulate_grad_batches=2)
    for parameter in task.parameters():
        parameter.grad = torch.zeros_like(parameter)
    callback.weights = torch.zeros(())
    callback.on_before_optimizer_step(trainer, task, None)
    assert all((parameter.grad == 0).all() for parameter in task.parameters())


def test_a_mean_loss_continues_with_another_number_of_processes():
    first = MeanLoss()
    first.update(torch.tensor(2.0), 3.0)
    states = [*first.state(), [5.0, 1.0]]
    continued = MeanLoss()
    continued.load(states, 0, 1)
    assert float(continued.compute()) == (2 * 3 + 5) / 4
    continued.load(states, 1, 2)
    assert continued.state() == [[5.0, 1.0]]
    continued.load(states, 1, 3)
    assert continued.state() == [[0.0, 0.0]]


class Loader:
    def __init__(self, length):
        self.length = length

    def transformed(self, name, training):
        return range(self.length)


def fake_trainer(world=1, accumulate=1, length=100, limit=1.0, interval=1.0):
    return SimpleNamespace(
        world_size=world, accumulate_grad_batches=accumulate, limit_train_batches=limit, val_check_interval=interval,
        datamodule=Loader(length), state=SimpleNamespace(fn="fit"),
    )  # fmt: skip


def test_accumulation_and_limits_follow_from_the_global_batch_size():
    trainer = fake_trainer(world=2, limit=0.55, interval=0.5)
    GlobalBatch(10, 2).setup(trainer, None, "fit")
    assert trainer.accumulate_grad_batches == 3
    assert trainer.limit_train_batches == 5 * 3 and trainer.val_check_interval == 2 * 3
    trainer = fake_trainer(limit=2, interval=1)
    GlobalBatch(10, 5).setup(trainer, None, "fit")
    assert (trainer.accumulate_grad_batches, trainer.limit_train_batches, trainer.val_check_interval) == (2, 4, 2)
    with pytest.raises(InputError, match="is 2, fewer than one sample for each of 3 processes"):
        GlobalBatch(2, 5).setup(fake_trainer(world=3), None, "fit")
    with pytest.raises(InputError, match="has 100 samples, fewer than dataset.global_batch_size=101. Set it to at most 100"):
        GlobalBatch(101, 5).setup(fake_trainer(length=100), None, "fit")


def checkpoint_after(steps, batches_of_step, samples):
    """Saved within a step's end: Lightning has not counted the last batch as completed."""
    ready = steps * batches_of_step
    counts = {"ready": ready, "started": ready, "processed": ready, "completed": ready - 1}
    progress = {"total": dict(counts), "current": dict(counts), "is_last_batch": False}
    step = {"samples": samples, "batches": batches_of_step}
    return {"step_size": step, "loops": {"fit_loop": {"epoch_loop.batch_progress": progress}}}


def test_the_progress_of_a_checkpoint_is_converted_to_other_micro_batches():
    checkpoint = checkpoint_after(4, 3, 12)
    GlobalBatch(12, 12).on_load_checkpoint(fake_trainer(accumulate=1), None, checkpoint)
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    expected = {"ready": 4, "started": 4, "processed": 4, "completed": 3}
    assert progress["total"] == progress["current"] == expected


def test_a_checkpoint_with_steps_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"have 12 samples, those of this run 16. Resume with dataset.global_batch_size=12"):
        GlobalBatch(16, 16).on_load_checkpoint(fake_trainer(), None, checkpoint_after(4, 1, 12))
    with pytest.raises(InputError, match=r"have 8 samples, those of this run 16"):
        GlobalBatch(None, 8).on_load_checkpoint(fake_trainer(world=2), None, checkpoint_after(4, 1, 8))
    with pytest.raises(InputError, match=r"accumulates 2 batches in an optimizer step, this run 1"):
        GlobalBatch(None, 8).on_load_checkpoint(fake_trainer(), None, checkpoint_after(4, 2, 8))


def test_two_sizes_of_a_step_are_refused():
    config = composed("task=cls", "dataset.global_batch_size=32", "trainer.accumulate_grad_batches=2")
    with pytest.raises(InputError, match=r"accumulate_grad_batches is 2 and dataset.global_batch_size is 32"):
        checks.prepare(config)


def test_batch_norm_on_several_processes_is_reported(caplog):
    caplog.set_level("INFO", logger="spine")
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3))
    for world, synchronized, layers in ((1, False, network), (2, True, network), (2, False, torch.nn.Linear(2, 2))):
        BatchNormReport(synchronized).setup(SimpleNamespace(world_size=world, strategy=None), layers, "fit")
    assert not caplog.text
    BatchNormReport(False).setup(SimpleNamespace(world_size=2, strategy=None), network, "fit")
    assert "each of the 2 processes normalizes with the statistics of its own batch" in caplog.text
    with pytest.raises(InputError, match="has batch norm, which trainer.strategy=fsdp does not support"):
        BatchNormReport(False).setup(SimpleNamespace(world_size=2, strategy=FullySharded()), network, "fit")


def test_synchronized_batch_norm_is_refused_on_the_cpu():
    config = composed("task=cls", "trainer.sync_batchnorm=true", "trainer.accelerator=cpu")
    with pytest.raises(InputError, match="sync_batchnorm is true, which needs GPUs"):
        checks.prepare(config)
