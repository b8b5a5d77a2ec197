"""An interrupted and resumed run has the results of an uninterrupted one, and files of an earlier run are kept."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from interruptions import at_call
from test_configs import composed

from spine.commands import train
from spine.errors import InputError, RunStopped
from spine.tasks.cls.task import Classification
from spine.training import run_folder
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SMALL = (
    "dataset.length={train: 24, val: 8, test: 4}", "dataset.batch_size=4", "trainer.max_epochs=3", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1", "dataset.num_workers=0",
)  # fmt: skip
RANDOM = ("backbone=vit", "backbone.drop_path_rate=0.1", "backbone.dropout=0.1")
TIMINGS = ("train/images_per_s", "train/data_wait")


def config(*overrides):
    return composed("task=cls", *RANDOM, *SMALL, *overrides)


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


def assert_equal_outcome(one, two):
    first, second = last(one), last(two)
    assert first["global_step"] == second["global_step"] and first["epoch"] == second["epoch"]
    for key, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][key]), key
    for a, b in zip(first["optimizer_states"][0]["state"].values(), second["optimizer_states"][0]["state"].values(), strict=True):
        assert torch.equal(a["exp_avg"], b["exp_avg"])
    assert rows(one) == rows(two)
    results = [json.loads((folder / "metrics.json").read_text())["metrics"] for folder in (one, two)]
    assert results[0] == results[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train.train_run(config(), RunFolder(folder))
    return folder


# an epoch has 6 steps of training and 2 of validation
@pytest.mark.parametrize("call", [9, *(pytest.param(call, marks=pytest.mark.slow) for call in (3, 14, 15, 22))])
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, uninterrupted, monkeypatch, call):
    at_call(monkeypatch, Classification, call)
    with pytest.raises(RuntimeError):
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    if call == 15:  # in a validation: the epoch before it is saved
        assert last(tmp_path)["global_step"] == 12
    train.train_run(config(), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


SIGNALS = [  # signal, the call in which it arrives, the saved step
    (signal.SIGTERM, 9, 7),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            (signal.SIGINT, 15, 12),  # in a validation
            (signal.SIGTERM, 1, 1), (signal.SIGTERM, 13, 11), (signal.SIGTERM, 14, 12), (signal.SIGTERM, 15, 12),
            (signal.SIGTERM, 16, 12), (signal.SIGTERM, 23, 18), (signal.SIGINT, 9, 7),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("number", "call", "step"), SIGNALS)
def test_a_signal_saves_after_the_step_and_the_run_is_resumed_there(tmp_path, uninterrupted, monkeypatch, call, step, number):
    at_call(monkeypatch, Classification, call, lambda task: os.kill(os.getpid(), number))
    with pytest.raises(RunStopped) as stop:
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    assert stop.value.code == 128 + number
    assert f"after step {step}." in stop.value.message and "python" in stop.value.message
    assert last(tmp_path)["global_step"] == step
    assert (tmp_path / "stopped.json").is_file() and not (tmp_path / "metrics.json").exists()
    train.train_run(config(), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)
    assert not (tmp_path / "stopped.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("call", [9, 14])
def test_a_run_with_two_workers_is_resumed_in_the_same_epoch(tmp_path, uninterrupted, monkeypatch, call):
    at_call(monkeypatch, Classification, call, lambda task: os.kill(os.getpid(), signal.SIGTERM))
    workers = config("dataset.num_workers=2")
    with pytest.raises(RunStopped):
        train.train_run(workers, RunFolder(tmp_path))
    monkeypatch.undo()
    train.train_run(config("dataset.num_workers=2"), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


@pytest.mark.slow
def test_a_step_with_accumulated_gradients_is_finished_before_a_stop(tmp_path, monkeypatch):
    accumulate = "trainer.accumulate_grad_batches=4"  # 2 steps an epoch, of 4 and of 2 batches
    whole = tmp_path / "whole"
    whole.mkdir()
    train.train_run(config(accumulate), RunFolder(whole))
    for name, action in {
        "signal": lambda task: os.kill(os.getpid(), signal.SIGTERM),
        "max_time": lambda task: setattr(task.trainer, "should_stop", True),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        at_call(monkeypatch, Classification, 2, action)
        if name == "signal":
            with pytest.raises(RunStopped):
                train.train_run(config(accumulate), RunFolder(folder))
            assert last(folder)["global_step"] == 1
            monkeypatch.undo()
            train.train_run(config(accumulate), RunFolder(folder))
            assert_equal_outcome(whole, folder)
        else:
            train.train_run(config(accumulate), RunFolder(folder))
            monkeypatch.undo()
            assert last(folder)["global_step"] == 1


@pytest.mark.slow
def test_a_run_stopped_by_max_steps_is_resumed_in_the_same_epoch(tmp_path):
    constant = ("schedule=constant",)
    whole, part, longer = (tmp_path / name for name in ("whole", "part", "longer"))
    for folder in (whole, part, longer):
        folder.mkdir()
    train.train_run(config(*constant), RunFolder(whole))
    train.train_run(config(*constant, "+trainer.max_steps=8"), RunFolder(part))
    assert last(part)["global_step"] == 8 and last(part)["epoch"] == 1
    train.train_run(config(*constant, f"ckpt_path={part}/checkpoints/last.ckpt"), RunFolder(longer))
    first, second = last(whole), last(longer)
    assert second["global_step"] == 18
    assert all(torch.equal(value, second["state_dict"][key]) for key, value in first["state_dict"].items())


@pytest.mark.slow
def test_a_run_stopped_by_max_time_is_resumed_with_more_time(tmp_path, uninterrupted, monkeypatch):
    at_call(
        monkeypatch, Classification, 9, lambda task: setattr(task.trainer, "should_stop", True)
    )  # what Lightning's timer does
    limited = "trainer.max_time=00:00:10:00"
    train.train_run(config(limited), RunFolder(tmp_path))
    monkeypatch.undo()
    assert last(tmp_path)["global_step"] == 7
    before = (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    train.train_run(config(limited), RunFolder(tmp_path))  # the same max_time again: the run is finished
    assert (tmp_path / "checkpoints" / "last.ckpt").stat().st_mtime_ns == before
    train.train_run(config(), RunFolder(tmp_path))
    first, second = last(uninterrupted), last(tmp_path)
    assert second["global_step"] == 18
    assert all(torch.equal(value, second["state_dict"][key]) for key, value in first["state_dict"].items())


def test_last_checkpoint_is_the_last_epoch_even_if_the_metric_falls(tmp_path, monkeypatch):
    original = Classification.compute_metrics

    def falling(self):
        return {**original(self), "top1": 1 / (2 + self.current_epoch)}

    monkeypatch.setattr(Classification, "compute_metrics", falling)
    train.train_run(config(), RunFolder(tmp_path))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == 0 and last(tmp_path)["epoch"] == 2 and last(tmp_path)["global_step"] == 18
    results = json.loads((tmp_path / "metrics.json").read_text())
    first = next(row for row in rows(tmp_path) if row["val/loss"])
    assert results["checkpoint"].endswith("best.ckpt")
    assert results["metrics"]["val/loss"] == float(first["val/loss"])  # the results are those of the best checkpoint


def test_the_last_checkpoint_is_evaluated_if_no_epoch_was_validated(tmp_path):
    train.train_run(config("trainer.check_val_every_n_epoch=5"), RunFolder(tmp_path))
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert last(tmp_path)["global_step"] == 18 and not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert 0 <= results["metrics"]["val/top1"] <= 1 and results["checkpoint"].endswith("last.ckpt")


def test_a_finished_run_is_not_changed(tmp_path, caplog):
    caplog.set_level("INFO")
    short = config("trainer.max_epochs=1", "optimized_metric=val/top1")
    value = train.train_run(short, RunFolder(tmp_path))
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert train.train_run(short, RunFolder(tmp_path)) == value
    assert "This run is finished; nothing was done." in caplog.text
    assert caplog.text.count("Export ") == 2  # the commands that use the run, at the end and again
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_finished_run_continues_with_more_epochs(tmp_path, caplog):
    """With a constant learning rate it equals a run that was longer from the start, its best checkpoint and curves included."""
    caplog.set_level("INFO")
    constant = ("schedule=constant", "schedule.warmup=0.0")
    whole, folder = tmp_path / "whole", tmp_path / "continued"
    whole.mkdir(), folder.mkdir()
    train.train_run(config(*constant), RunFolder(whole))
    train.train_run(config(*constant, "trainer.max_epochs=2"), RunFolder(folder))
    train.train_run(config(*constant, "trainer.max_epochs=3"), RunFolder(folder))
    assert "finished after 2 epochs and continues to 3" in caplog.text
    assert_equal_outcome(whole, folder)
    best = [torch.load(path / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] for path in (whole, folder)]
    assert best[0] == best[1]
    times = (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    train.train_run(config(*constant, "trainer.max_epochs=2"), RunFolder(folder))  # fewer epochs: finished
    assert (folder / "checkpoints" / "last.ckpt").stat().st_mtime_ns == times


def test_starting_over_keeps_the_earlier_files(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".hydra").mkdir()
    (folder / "metrics.json").write_text("{}")
    backup = RunFolder(folder).back_up()
    assert backup == tmp_path / "run_before_1" and (backup / "metrics.json").is_file()
    assert [child.name for child in folder.iterdir()] == [".hydra"]
    assert RunFolder(folder).back_up() is None
    (folder / "x").write_text("")
    assert RunFolder(folder).back_up() == tmp_path / "run_before_2"


HOLD = "import sys, time; from pathlib import Path; from spine.training.run_folder import RunFolder\n" \
       "with RunFolder(Path(sys.argv[1])).locked(): print('held', flush=True); time.sleep(60)"  # fmt: skip


def test_a_lock_excludes_a_second_run_and_ends_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "LOCK_TIMEOUT", 0.3)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(InputError, match=rf"Another process \(process {holder.pid} on .*\) is using"),
        RunFolder(tmp_path).locked(),
    ):
        pass
    holder.kill()
    holder.wait()
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").is_file()


def test_a_changed_network_or_optimizer_cannot_be_resumed(tmp_path, uninterrupted):
    other = composed("task=cls", "backbone=convnext", *SMALL, f"ckpt_path={uninterrupted}/checkpoints/last.ckpt")
    with pytest.raises(InputError, match="was trained with backbone spine.backbones.vit.vit, this run has spine"):
        train.train_run(other, RunFolder(tmp_path))
    with pytest.raises(
        InputError, match=r"this command changes them: optimizer.lr \(.*0.002.* in the checkpoint, .*0.01.* now\)"
    ):
        train.train_run(config("optimizer.lr=0.01", f"ckpt_path={uninterrupted}/checkpoints/last.ckpt"), RunFolder(tmp_path))
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((uninterrupted / "checkpoints" / "last.ckpt").read_bytes()[:2000])
    for path, message in ((broken, "cut short"), (tmp_path / "nothing.ckpt", "There is no checkpoint")):
        with pytest.raises(InputError, match=message):
            train.train_run(config(f"ckpt_path={path}"), RunFolder(tmp_path / "new"))
