"""Losses that are not finite and spikes: what is stopped, skipped, reported and made again."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from command_line import run_command
from test_configs import composed
from test_resume import last, rows

import spine
from spine.commands import train
from spine.errors import InputError
from spine.reporting.bad_batches import read_record
from spine.tasks.cls.task import Classification
from spine.tasks.mae.task import MaskedAutoencoding
from spine.training.divergence import LossCheck, LossLevel
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

ROOT = Path(__file__).parents[1]
SMALL = (
    "backbone=mobilenet_v2", "dataset.length={train: 24, val: 4, test: 4}", "dataset.batch_size=4", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1",
    "dataset.num_workers=0",
)  # fmt: skip
SKIP = "callbacks.on_nan=skip"


@pytest.fixture
def poison(monkeypatch):
    """Makes the images of some training batches NaN, counted from 1, and keeps the batches as they were."""
    seen = []

    def install(*numbers, task=Classification):
        original = task.evaluate_batch

        def evaluate_batch(self, batch):
            if self.training:
                seen.append({key: value.clone() for key, value in batch.items()})
                if len(seen) in numbers:
                    batch = {**batch, "image": batch["image"] * float("nan")}
            return original(self, batch)

        monkeypatch.setattr(task, "evaluate_batch", evaluate_batch)
        return seen

    return install


@pytest.mark.parametrize("task", ["cls", pytest.param("mae", marks=pytest.mark.slow)])
def test_the_batch_that_stopped_a_run_is_made_again(tmp_path, poison, task):
    seen = poison(8, task={"cls": Classification, "mae": MaskedAutoencoding}[task])
    with pytest.raises(InputError, match=r"in step 8, epoch 2.*The batch is in .*bad_batch\.json"):
        train.train_run(composed(f"task={task}", *SMALL), RunFolder(tmp_path))
    _, record = read_record(tmp_path)
    assert record["indices"] == seen[-1]["index"].tolist() and record["loss"] is None and record["reason"] == "the loss is nan"
    assert (record["step"], record["epoch"], record["rank"], record["seed"]) == (8, 2, 0, 0)
    batch = eval(record["replay"], {"spine": spine})  # as a user would paste it
    assert batch.keys() == seen[-1].keys()
    assert all(torch.equal(value, seen[-1][key]) for key, value in batch.items())


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_skipped_step_changes_neither_weights_nor_state(tmp_path, poison, monkeypatch, accumulate):
    seen = poison(3)
    states = []
    original = LossCheck.on_train_batch_end

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        states.append({key: value.clone() for key, value in module.state_dict().items()})
        original(self, trainer, module, outputs, batch, batch_idx)

    monkeypatch.setattr(LossCheck, "on_train_batch_end", on_train_batch_end)
    train.train_run(composed("task=cls", *SMALL, SKIP, f"trainer.accumulate_grad_batches={accumulate}"), RunFolder(tmp_path))
    before, after = states[1], states[2 + accumulate - 1]  # of the step with batch 3
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    state, steps = last(tmp_path), 12 // accumulate
    assert state["global_step"] == steps and state["lr_schedulers"][0]["last_epoch"] == steps
    assert {int(one["step"]) for one in state["optimizer_states"][0]["state"].values()} == {steps - 1}
    assert all(value.isfinite().all() for value in state["state_dict"].values())
    logged = [row["train/skipped_steps"] for row in rows(tmp_path) if row["train/skipped_steps"]]
    assert logged == ["1"] and all(row["train/loss"] != "nan" for row in rows(tmp_path))
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["indices"] == seen[2]["index"].tolist() and json.loads(line)["step"] == 1 + 2 // accumulate
    assert not (tmp_path / "bad_batch.json").exists()


@pytest.mark.slow
def test_gradients_that_are_not_finite_are_skipped_too(tmp_path, monkeypatch):
    original, count = Classification.evaluate_batch, [0]

    def evaluate_batch(self, batch):
        loss, output = original(self, batch)
        count[0] += self.training
        if self.training and count[0] == 2:
            loss.register_hook(lambda gradient: gradient * float("inf"))  # the loss itself is finite
        return loss, output

    monkeypatch.setattr(Classification, "evaluate_batch", evaluate_batch)
    train.train_run(composed("task=cls", *SMALL, SKIP, "trainer.max_epochs=1"), RunFolder(tmp_path))
    (line,) = (tmp_path / "skipped.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "the gradients are not finite" and json.loads(line)["step"] == 2


@pytest.mark.slow
def test_a_run_that_skips_too_many_steps_in_a_row_stops(tmp_path, poison):
    poison(*range(2, 100))
    config = composed("task=cls", *SMALL, SKIP, "trainer.max_epochs=8")
    with pytest.raises(InputError, match=r"The last 21 steps were skipped.*stopped in step 22"):
        train.train_run(config, RunFolder(tmp_path))


@pytest.fixture
def change_losses(monkeypatch):
    """Multiplies the training losses of some steps, and crashes in step 9 if asked. Steps count from 1."""
    original, state = Classification.evaluate_batch, {"crash": False, "factors": {}}

    def evaluate_batch(self, batch):
        loss, output = original(self, batch)
        step = self.trainer.global_step + 1
        if self.training and step == 9 and state["crash"]:
            raise RuntimeError("the machine is gone")
        return loss * state["factors"].get(step, 1.0) if self.training else loss, output

    monkeypatch.setattr(Classification, "evaluate_batch", evaluate_batch)
    return state


def whole_and_resumed(folder, state, config):
    """Trains a run, and another one that crashes in step 9 and is resumed. Returns their folders."""
    folders = folder / "whole", folder / "killed"
    for one in folders:
        one.mkdir()
    train.train_run(config, RunFolder(folders[0]))
    state["crash"] = True
    with pytest.raises(RuntimeError):
        train.train_run(config, RunFolder(folders[1]))
    state["crash"] = False
    train.train_run(config, RunFolder(folders[1]))
    return folders


@pytest.mark.slow
def test_skipping_is_resumed_with_its_counts_and_files(tmp_path, change_losses):
    change_losses["factors"] = {3: float("nan"), 8: float("inf")}  # the checkpoint is of step 6
    whole, killed = whole_and_resumed(tmp_path, change_losses, composed("task=cls", *SMALL, SKIP))
    assert rows(killed) == rows(whole)
    for folder in (whole, killed):
        lines = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
        assert [(line["step"], line["reason"]) for line in lines] == [(3, "the loss is nan"), (8, "the loss is inf")]
        assert last(folder)["callbacks"]["SkipBadSteps"] == {"total": 2, "consecutive": 0}


def test_a_level_reports_spikes_and_neither_noise_nor_the_fall_at_the_start():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4000, generator=generator).tolist()
    level = LossLevel(6.0)
    reported = []
    for step, value in enumerate(noise):
        loss = 0.5 + 6 * 0.99**step + 0.1 * value + (3.0 if step == 2500 else 0.0)
        if level.is_spike(loss):
            reported.append(step)
        level.update(loss)
    assert reported == [2500]
    for _ in range(300):  # a lasting change is reported at first, and becomes the level
        level.update(5.0)
    assert not level.is_spike(5.0)
    assert not LossLevel(None, count=1000, mean=1.0).is_spike(1e9)


@pytest.mark.slow
def test_a_spike_is_reported_once_and_survives_a_resume(tmp_path, change_losses, monkeypatch, caplog):
    monkeypatch.setattr(LossLevel, "MIN_COUNT", 4)
    change_losses["factors"] = {8: 50.0}
    whole, killed = whole_and_resumed(tmp_path, change_losses, composed("task=cls", *SMALL))
    assert "The loss of step 8 is" in caplog.text
    ((spike,), (again,)) = [(folder / "spikes.jsonl").read_text().splitlines() for folder in (whole, killed)]
    assert json.loads(spike)["step"] == 8 and json.loads(spike)["indices"] == json.loads(again)["indices"]
    states = [next(v for k, v in last(folder)["callbacks"].items() if "LossCheck" in k) for folder in (whole, killed)]
    assert states[0] == states[1] and states[0]["count"] == 12


def test_a_loss_on_an_accelerator_is_not_read_in_every_step(tmp_path):
    """A tensor on the meta device cannot be read."""
    check = LossCheck(tmp_path, 0, every_n_steps=5)
    progress = SimpleNamespace(is_last_batch=False)
    loop = SimpleNamespace(batch_progress=progress, _should_accumulate=lambda: False)
    trainer = SimpleNamespace(
        world_size=1, accumulate_grad_batches=1, overfit_batches=0, current_epoch=0, global_step=0,
        fit_loop=SimpleNamespace(epoch_loop=loop),
    )  # fmt: skip
    batch = {"index": torch.zeros(4, dtype=torch.int64)}
    for _ in range(4):
        check.on_train_batch_start(trainer)
        check.on_train_batch_end(trainer, None, {"loss": torch.empty((), device="meta")}, batch, 0)
    assert len(check.unchecked) == 4
    with pytest.raises(Exception, match="meta"):
        check.on_train_batch_end(trainer, None, {"loss": torch.empty((), device="meta")}, batch, 0)


@pytest.mark.parametrize(
    ("source", "number", "message"),
    [
        (".", -1, "There is no '.*bad_batch.json'"),
        ("spikes.jsonl", 3, "has 1 lines, and no line 3"),
        ("no.json", -1, "not a record"),
    ],
)
def test_mistakes_in_what_to_replay_have_a_message(tmp_path, source, number, message):
    (tmp_path / "spikes.jsonl").write_text("{}\n")
    (tmp_path / "no.json").write_text("nothing")
    with pytest.raises(InputError, match=message):
        spine.replay(tmp_path / source, number)


LOSS = """
import os
import torch

class NanOnOneProcess(torch.nn.Module):
    calls = 0

    def forward(self, logits, labels):
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.calls += self.training
        bad = self.training and self.calls == 3 and os.environ.get("LOCAL_RANK") == "1"
        return loss * float("nan") if bad else loss
"""


@pytest.mark.slow
@pytest.mark.parametrize("on_nan", ["stop", "skip"])
def test_two_processes_agree_on_a_loss_that_is_not_finite_on_one(tmp_path, on_nan):
    (tmp_path / "mine" / "losses").mkdir(parents=True)
    (tmp_path / "mine" / "losses" / "nan.py").write_text(LOSS)
    done = run_command(
            "train.py", "task=cls", *SMALL, "dataset.length={train: 32, val: 4, test: 4}", "plugins=mine",
            "task.loss={_target_: mine.losses.nan.NanOnOneProcess}", "trainer.devices=2", f"callbacks.on_nan={on_nan}",
            f"hydra.run.dir={tmp_path / 'run'}", folder=tmp_path, processes=2,
    )  # fmt: skip
    name = {"stop": "bad_batch.json", "skip": "skipped.jsonl"}[on_nan]
    if on_nan == "stop":
        assert done.returncode == 1 and "in step 3 on process 1, epoch 1" in re.sub(r"\s+", " ", done.stderr), done.stderr
    else:
        assert done.returncode == 0 and "Step 3 was skipped" in done.stderr, done.stderr
        assert last(tmp_path / "run")["callbacks"]["SkipBadSteps"] == {"total": 1, "consecutive": 0}
    _, record = read_record(tmp_path / "run" / name)
    assert record["rank"] == 1 and len(record["indices"]) == 4
