"""Training that is counted in optimizer steps: limits, validations, and resuming."""

import csv
import json
import signal

import pytest
import torch
from interruptions import at_call
from test_configs import composed

from spine.commands import train
from spine.config.checks import prepare
from spine.errors import InputError, RunStopped
from spine.tasks.cls.task import Classification
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = (
    "dataset.length={train: 24, val: 8, test: 4}", "dataset.batch_size=4", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.num_sanity_val_steps=0", "dataset.num_workers=0", "backbone=mobilenet_v2",
)  # fmt: skip


def config(*overrides):
    return composed("task=cls", *SMALL, *overrides)


def validated_steps(folder):
    """Steps, counted from 1, after which the validation split was evaluated."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) + 1 for row in csv.DictReader(file) if row.get("val/loss")]


def test_a_number_of_steps_replaces_the_default_number_of_epochs():
    assert config()["trainer"]["max_epochs"] == 6
    assert config("trainer.max_steps=160000")["trainer"]["max_epochs"] is None
    both = config("trainer.max_steps=160000", "trainer.max_epochs=3")["trainer"]
    assert (both["max_epochs"], both["max_steps"]) == (3, 160000)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.val_every_n_steps=0"], "a whole number of optimizer steps, 1 or more"),
        (["trainer.val_every_n_steps=4", "+trainer.val_check_interval=2"], "Give one of them"),
        (["trainer.val_every_n_steps=4", "trainer.accumulate_grad_batches=2"], "Set dataset.global_batch_size instead"),
    ],
)
def test_mistakes_in_intervals_are_explained(overrides, message):
    with pytest.raises(InputError, match=message):
        prepare(config(*overrides))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["dataset.batch_size=4", "dataset.global_batch_size=4 dataset.batch_size=2"])
def test_validations_are_counted_in_steps_across_epochs(tmp_path, size):
    """An epoch has 6 steps."""
    train.train_run(config("trainer.max_steps=16", "trainer.val_every_n_steps=4", *size.split()), RunFolder(tmp_path))
    assert validated_steps(tmp_path) == [4, 8, 12, 16]
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert (results["steps"], results["max_steps"]) == (16, 16)


@pytest.mark.slow
def test_a_run_without_a_full_interval_is_validated_at_its_end(tmp_path):
    train.train_run(config("trainer.max_steps=3", "trainer.val_every_n_steps=4"), RunFolder(tmp_path))
    assert validated_steps(tmp_path) == [3]


@pytest.mark.slow
@pytest.mark.parametrize("step", [8, 10])
def test_a_run_killed_after_a_checkpoint_repeats_no_validation_and_leaves_out_none(tmp_path, monkeypatch, step):
    """Step 8 is saved before its validation."""
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = ("trainer.max_steps=16", "trainer.val_every_n_steps=4", f"callbacks.checkpoint_every_steps={step}")
    for folder in (whole, part):
        folder.mkdir()
    train.train_run(config(*options), RunFolder(whole))

    def kill(task):
        raise RunStopped(signal.SIGTERM)  # in contrast to an error, nothing is saved

    calls = step + 2 * (step // 4 - (step == 8)) + 1  # training batches and validation batches until the interruption
    at_call(monkeypatch, Classification, calls, kill)
    with pytest.raises(RunStopped):
        train.train_run(config(*options), RunFolder(part))
    monkeypatch.undo()
    train.train_run(config(*options), RunFolder(part))
    assert validated_steps(whole) == validated_steps(part) == [4, 8, 12, 16]
    first, second = (torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in (whole, part))
    assert all(torch.equal(value, second["state_dict"][key]) for key, value in first["state_dict"].items())
    assert (
        json.loads((whole / "metrics.json").read_text())["metrics"] == json.loads((part / "metrics.json").read_text())["metrics"]
    )


@pytest.mark.slow
def test_a_finished_run_continues_with_more_steps(tmp_path):
    train.train_run(config("trainer.max_steps=4"), RunFolder(tmp_path))
    train.train_run(config("trainer.max_steps=7"), RunFolder(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 7
