"""Whole runs with the augmentation of recipes: exact resume, workers, processes, ready files."""

import csv
import json

import pytest
import torch
from command_line import run_command
from interruptions import at_call
from test_augmentation import MIXED
from test_configs import composed
from test_resume import SMALL, assert_equal_outcome

import spine
from spine.commands import train
from spine.config import checks
from spine.config.building import build_run
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.tasks.cls.task import Classification
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")


def recipe(*overrides):
    return composed(
        "task=cls", *MIXED, "backbone=mobilenet_v2", "task.bce_loss=true", "task.class_weights=balanced", *SMALL,
        "trainer.max_epochs=2", *overrides,
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train.train_run(recipe(), RunFolder(folder))
    return folder


@pytest.mark.slow
def test_a_recipe_resumes_exactly_inside_an_epoch(tmp_path, uninterrupted, monkeypatch):
    at_call(monkeypatch, Classification, 11)
    saving = ("callbacks.checkpoint_every_steps=1",)
    with pytest.raises(RuntimeError):
        train.train_run(recipe(*saving), RunFolder(tmp_path))
    monkeypatch.undo()
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 8  # of 12; an epoch has 6
    train.train_run(recipe(*saving), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_recipe_does_not_depend_on_the_number_of_workers(tmp_path, uninterrupted):
    train.train_run(recipe("dataset.num_workers=2"), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


def test_a_mixed_batch_of_repeated_samples_is_made_again(tmp_path, monkeypatch):
    original, kept = Classification.evaluate_batch, []

    def evaluate_batch(self, batch):
        loss, output = original(self, batch)
        if self.training:
            kept.append({key: value.clone() for key, value in batch.items()})
        return (loss * float("nan") if len(kept) == 8 else loss), output

    monkeypatch.setattr(Classification, "evaluate_batch", evaluate_batch)
    with pytest.raises(InputError, match="The training loss is not finite"):
        train.train_run(recipe(), RunFolder(tmp_path))
    monkeypatch.undo()
    made = spine.replay(tmp_path)
    assert set(made) == {"image", "label", "index", "copy", "target"}
    assert all(torch.equal(made[key], kept[7][key]) for key in made)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["protocol=linear", "protocol=finetune"])
def test_a_recipe_trains_with_two_processes(tmp_path, task):
    done = run_command(
        "train.py", "task=cls", task, *MIXED, "backbone=mobilenet_v2", *SMALL, "trainer.max_epochs=1",
        "trainer.devices=2", "trainer.strategy=ddp", "dataset.global_batch_size=8", "dataset.batch_size=2", folder=tmp_path, processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    with (folder / "metrics.csv").open(newline="") as file:
        assert any(float(row["train/loss"] or 0) > 0 for row in csv.DictReader(file))
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["val/loss"] > 0


@pytest.mark.parametrize("augment", ["imagenet_basic", "imagenet_strong", "three_augment", "trivial_augment"])
def test_ready_augmentations_make_samples(augment):
    run = build_run(
        checks.prepare(composed("task=cls", f"augment={augment}", "backbone=mobilenet_v2", "trainer.accelerator=cpu"))
    )
    assert run.data.transformed("train", training=True)[Draw(0, 1)]["image"].shape == (3, 64, 64)
    assert run.data.transformed("val")[Draw(0, 1)]["image"].shape == (3, 64, 64)
