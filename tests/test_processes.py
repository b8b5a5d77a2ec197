"""Runs with several processes, and signals from a scheduler or a terminal."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spine.tasks.pose.metrics import KeypointScores
from spine.training import random_state

ROOT = Path(__file__).parents[1]
SMALL = (
    "dataset.batch_size=4", "dataset.num_workers=0", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "backbone=mobilenet_v2", "trainer.log_every_n_steps=2",
)  # fmt: skip
TWO = ("trainer.devices=2", "trainer.strategy=ddp")


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def wait_for(process, condition):
    end = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert condition(), process.communicate()


def checkpoint_written(folder):
    """A condition for `wait_for`: the checkpoint of an epoch was written."""
    return lambda: bool(list(folder.glob("logs/train/**/checkpoints/last.ckpt")))


class Trainer:
    world_size, global_step = 2, 0

    def __init__(self, rank):
        self.global_rank = rank


def test_random_numbers_differ_between_processes_and_are_repeatable():
    drawn = {}
    for run in range(2):
        for rank in range(2):
            torch.manual_seed(5)  # as seed_everything does in every process
            random_state.RandomState(5).on_train_start(Trainer(rank), None)
            drawn[run, rank] = torch.rand(4)
    assert torch.equal(drawn[0, 0], drawn[1, 0]) and torch.equal(drawn[0, 1], drawn[1, 1])
    assert not torch.equal(drawn[0, 0], drawn[0, 1])


def test_keypoint_scores_are_gathered_from_a_process_without_samples():
    scores = KeypointScores(2)
    gathered = []

    def gather(value, group):
        gathered.append(tuple(value.shape))
        return [value, value]

    scores.sync(dist_sync_fn=gather, distributed_available=lambda: True)
    assert sorted(gathered) == [*[(0,)] * 6, (0, 2, 3), (0, 2, 3), (0, 4)]


@pytest.mark.slow
def test_two_processes_write_one_set_of_files_and_validate_a_single_sample(tmp_path):
    run = start(
        tmp_path, "task=pose", "logger=wandb", "dataset.length={train: 16, val: 1, test: 4}", "trainer.max_epochs=1", *SMALL, *TWO
    )
    out, errors = run.communicate(timeout=300)
    assert run.returncode == 0, errors
    assert out.count("Results after") == 1 and out.count("epoch 1/1") == 1
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert json.loads((folder / "metrics.json").read_text())["metrics"]["val/loss"] > 0
    with (folder / "metrics.csv").open(newline="") as file:
        assert sum(bool(row["val/loss"]) for row in csv.DictReader(file)) == 1
    assert len(json.loads((folder / "starts.json").read_text())["starts"]) == 1
    command = (sys.executable, ROOT / "eval.py", f"ckpt_path={folder}/checkpoints/best.ckpt", "trainer.accelerator=cpu", *TWO)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # Lightning starts the second process here, too
    assert done.returncode == 0 and done.stdout.count("Results after") == 1, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("devices", [(), TWO], ids=["one", "two"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_prints_the_state_of_the_run_and_the_command_that_resumes_it(tmp_path, number, code, devices):
    command = ("task=cls", "dataset.length={train: 64, val: 8, test: 4}", "trainer.max_epochs=40", *SMALL, *devices)
    run = start(tmp_path, *command, "restart=true")
    wait_for(run, checkpoint_written(tmp_path))
    run.send_signal(number)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == code, errors
    assert "restart" not in errors.partition("Resume with:")[2]  # it would start over
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"Stopped by {name} in epoch " in errors and "Resume with:\n    python " in errors and "Traceback" not in errors
    (folder,) = (tmp_path / "logs/train/runs").iterdir()
    stopped = json.loads((folder / "stopped.json").read_text())
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == stopped["steps"] > 0 and len(state["random_states"]) == (2 if devices else 1)
    assert (folder / "curves.png").is_file() and not (folder / "metrics.json").exists()
    run = start(tmp_path, *command, "trainer.max_time=00:00:00:01")  # the same command; the run does not finish
    out, errors = run.communicate(timeout=120)
    assert f"Resuming from {folder}/checkpoints/last.ckpt" in out, errors


@pytest.mark.slow
def test_a_signal_in_a_validation_ends_a_run_with_workers(tmp_path):
    """The workers of the training loader ignore SIGTERM, and the process must not wait for them."""
    small = tuple(argument for argument in SMALL if "num_workers" not in argument)
    run = start(
        tmp_path,
        "task=cls",
        "dataset.length={train: 16, val: 4000, test: 4}",
        "dataset.num_workers=2",
        "trainer.max_epochs=4",
        *small,
    )
    wait_for(run, lambda: bool(list(tmp_path.glob("logs/train/runs/*/starts.json"))))
    time.sleep(4)  # the four steps of training are done; the validation takes longer
    run.send_signal(signal.SIGTERM)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 143 and "Stopped by SIGTERM in epoch 1 of 4, after step " in errors


@pytest.mark.slow
def test_a_signal_stops_a_sweep_and_is_not_a_failed_job(tmp_path):
    run = start(
        tmp_path, "-m", "task=cls", "seed=1,2", "dataset.length={train: 64, val: 8, test: 4}", "trainer.max_epochs=40", *SMALL
    )
    wait_for(run, checkpoint_written(tmp_path))
    run.send_signal(signal.SIGTERM)
    out, errors = run.communicate(timeout=120)
    assert run.returncode == 143, errors
    jobs = [path for path in (tmp_path / "logs/train/multiruns").glob("*/*") if path.is_dir()]
    assert len(jobs) == 1 and not (jobs[0] / "error.txt").exists()
    table = out[out.index("Sweep ") :]
    assert table.count("│ stopped") == 1 and "1 run: 1 stopped." in table and "failed" not in table
    assert f"hydra.run.dir={jobs[0]}" in errors  # the command that resumes this job
