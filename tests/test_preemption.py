"""Signals of SLURM and submitit: the run saves its state, is requeued, and ends with the same result. SLURM is simulated."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run_command
from interruptions import at_call
from test_processes import SMALL, TWO, start, wait_for
from test_resume import assert_equal_outcome, config, last, uninterrupted  # noqa: F401  (fixtures)

from spine.commands import train
from spine.errors import RunStopped
from spine.tasks.cls.task import Classification
from spine.training import preemption
from spine.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
COMMAND = ("task=cls", "dataset.length={train: 240, val: 8, test: 4}", "trainer.max_epochs=3", *SMALL)


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A SLURM job with one task, and a command `scontrol` that writes its arguments to a file."""
    script = tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "77", "JOB_NAME": "run", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return script


def calls(tmp_path):
    log = tmp_path / "scontrol.log"
    return log.read_text().splitlines() if log.is_file() else []


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGUSR2, marks=pytest.mark.slow)])
def test_a_signal_of_slurm_saves_the_run_and_it_continues(tmp_path, uninterrupted, monkeypatch, number):  # noqa: F811
    at_call(monkeypatch, Classification, 9, lambda task: os.kill(os.getpid(), number))
    with pytest.raises(RunStopped) as stop:
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    assert stop.value.code == 128 + number and f"Stopped by {number.name}" in stop.value.message
    assert last(tmp_path)["global_step"] == 7
    train.train_run(config(), RunFolder(tmp_path))
    assert_equal_outcome(uninterrupted, tmp_path)


def test_a_requeue_names_the_job_or_the_task_of_an_array(tmp_path, slurm, monkeypatch):
    assert preemption.hand_over(signal.SIGUSR1, requeue=True) == "SLURM job 77 was requeued, and continues this run."
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    preemption.hand_over(signal.SIGUSR2, requeue=True)
    assert calls(tmp_path) == ["requeue 77", "requeue 70_3"]


def test_only_the_first_process_requeues_after_a_signal_of_preemption_if_asked(tmp_path, slurm, monkeypatch):
    assert preemption.hand_over(signal.SIGUSR1, requeue=False) == ""
    assert preemption.hand_over(signal.SIGTERM, requeue=True) == ""  # scancel sends it too
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert preemption.hand_over(signal.SIGUSR1, requeue=True) == ""
    assert calls(tmp_path) == []


def test_a_job_that_cannot_be_requeued_has_a_reason(slurm, monkeypatch):
    slurm.write_text("#!/bin/sh\necho 'slurm_requeue error: Job is disabled' >&2\nexit 1\n")
    assert "failed (slurm_requeue error: Job is disabled)" in preemption.hand_over(signal.SIGUSR1, requeue=True)
    slurm.unlink()
    assert "there is no command 'scontrol'" in preemption.hand_over(signal.SIGUSR1, requeue=True)
    monkeypatch.delenv("SLURM_JOB_ID")
    assert "not in a SLURM job" in preemption.hand_over(signal.SIGUSR1, requeue=True)


class Submitit:
    """A handler as submitit installs it."""

    def __init__(self):
        self.calls = []

    def handle(self, number, frame):
        self.calls.append(number)


Submitit.__module__ = "submitit.core.job_environment"


def test_the_handler_of_submitit_is_deferred_and_called_after_saving(monkeypatch):
    submitit = Submitit()
    previous = signal.signal(signal.SIGUSR2, submitit.handle)
    try:
        with preemption.deferred() as received:
            os.kill(os.getpid(), signal.SIGUSR2)
            assert received == [signal.SIGUSR2] and submitit.calls == []
        preemption.hand_over(signal.SIGUSR2, requeue=True)
        assert submitit.calls == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, previous)


@pytest.mark.slow
def test_a_run_in_slurm_requeues_itself_and_continues(tmp_path, slurm):
    run = start(tmp_path, *COMMAND, "callbacks.on_preemption=requeue", "hydra.run.dir=run")
    wait_for(run, lambda: (tmp_path / "run/checkpoints/last.ckpt").is_file())
    run.send_signal(signal.SIGUSR1)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGUSR1, errors
    assert "SLURM job 77 was requeued" in errors and "Traceback" not in errors
    assert calls(tmp_path) == ["requeue 77"] and not list((tmp_path / "run").glob("hpc_ckpt*"))
    for folder in ("run", "whole"):
        done = run_command("train.py", *COMMAND, f"hydra.run.dir={folder}", folder=tmp_path, OMP_NUM_THREADS="1")
        assert done.returncode == 0, done.stderr
    assert_equal_outcome(tmp_path / "whole", tmp_path / "run")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


@pytest.mark.slow
def test_a_signal_to_one_of_two_tasks_of_slurm_stops_both_and_requeues_once(tmp_path, slurm):
    port, runs = free_port(), []
    for rank in (0, 1):
        tasks = {
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank),
            "MASTER_ADDR": "127.0.0.1",
        }
        runs.append(
            subprocess.Popen(
                [
                    sys.executable, str(ROOT / "train.py"), *COMMAND, "trainer.max_epochs=40", *TWO, "hydra.run.dir=run",
                    "callbacks.on_preemption=requeue",
                ], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**os.environ, **tasks, "MASTER_PORT": port, "OMP_NUM_THREADS": "1"},
            )
        )  # fmt: skip
    wait_for(runs[0], lambda: (tmp_path / "run/checkpoints/last.ckpt").is_file())
    runs[1].send_signal(signal.SIGUSR1)
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [128 + signal.SIGUSR1] * 2, outputs
    assert calls(tmp_path) == ["requeue 77"] and "SLURM job 77 was requeued" in outputs[0][1]


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_of_lightning_stops_both(tmp_path):
    run = start(tmp_path, *COMMAND, "trainer.max_epochs=40", *TWO, "hydra.run.dir=run")
    wait_for(run, lambda: (tmp_path / "run/checkpoints/last.ckpt").is_file())
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    (other,) = [int(pid) for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(other, signal.SIGUSR2)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 128 + signal.SIGUSR2 and "Stopped by SIGUSR2 in epoch" in errors, errors


def task_of_submitit(folder):
    """Returns the id of the process in which submitit runs a task, or None."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "submitit.core._submit" in text and str(folder) in text:
            return int(path.parent.name)
    return None


@pytest.mark.slow
def test_a_preempted_task_of_submitit_is_requeued_and_continues_in_the_same_folder(tmp_path):
    run = start(tmp_path, "-m", "hydra/launcher=submitit_local", "seed=1", *COMMAND)
    found = "logs/train/multiruns/*/*/checkpoints/last.ckpt"
    wait_for(run, lambda: bool(list(tmp_path.glob(found))))
    first = task_of_submitit(tmp_path)
    os.kill(first, signal.SIGUSR2)  # what submitit sends before the time limit
    out, errors = run.communicate(timeout=400)
    assert run.returncode == 0, (out, errors)
    (checkpoint,) = tmp_path.glob(found)
    folder = checkpoint.parents[1]
    assert (folder / "metrics.json").is_file() and len(RunFolder(folder).starts()) == 2
    assert "Resuming from" in (folder / "train.log").read_text()
    done = run_command("train.py", *COMMAND, "seed=1", "hydra.run.dir=whole", folder=tmp_path, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert_equal_outcome(tmp_path / "whole", folder)
