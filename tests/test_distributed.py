"""Runs with one, two and three processes see the same samples, and resume one another."""

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
from command_line import run_command
from tokenizer_file import for_task

ROOT = Path(__file__).parents[1]
COMMON = (
    "dataset.length={train: 64, val: 31, test: 4}", "dataset.global_batch_size=16", "dataset.batch_size=8", "dataset.num_workers=0",
    "trainer.max_epochs=3", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.log_every_n_steps=1",
    "schedule=constant", "schedule.warmup=0.0", "optimizer=sgd",  # AdamW divides the rounding errors of zero gradients by themselves
)  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
TASKS = {  # networks without batch norm and without random operations
    "cls": ("task=cls", "backbone=vit"),
    "seg": ("task=seg", "backbone=convnext", "head=parsenet"),  # parts of the masks are not labeled: the images are padded
    "mae": ("task=mae", "backbone=mae"),
    "beit": (*for_task("beit"), "backbone=beit", "image_size=[112,112]"),  # images have different numbers of masked patches
}


def command(script, folder, *arguments):
    return [sys.executable, str(ROOT / script), *arguments, f"hydra.run.dir={folder}"]


def devices(count, strategy="ddp"):
    return (f"trainer.devices={count}", f"trainer.strategy={strategy if count > 1 else 'auto'}")


def run(script, folder, *arguments, code=0):
    count = next((int(argument.partition("=")[2]) for argument in arguments if argument.startswith("trainer.devices=")), 1)
    done = run_command(script, *arguments, f"hydra.run.dir={folder}", folder=folder.parent, processes=count)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())["metrics"]


def train_losses(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [float(row["train/loss"]) for row in csv.DictReader(file) if row.get("train/loss")]


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_first_reports_results(processes):
    """Waits for the processes of one run: all end well, and only the first one prints the results."""
    texts = [process.communicate(timeout=400)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), texts
    assert texts[0].count("Results after") == 1 and all("Results after" not in text for text in texts[1:])


def assert_close_weights(one, two):
    first, second = last(one), last(two)
    assert first["global_step"] == second["global_step"] == 12
    for name, tensor in first["state_dict"].items():
        torch.testing.assert_close(
            second["state_dict"][name], tensor, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run on a single process, by task."""
    folders: dict[str, Path] = {}

    def get(task):
        if task not in folders:
            folders[task] = tmp_path_factory.mktemp(task) / "run"
            run("train.py", folders[task], *TASKS[task], *COMMON, *devices(1))
        return folders[task]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("task", list(TASKS))
def test_one_two_and_three_processes_have_the_same_losses(tmp_path, alone, task):
    expected = train_losses(alone(task))
    checkpoint = f"ckpt_path={alone(task)}/checkpoints/last.ckpt"
    run("eval.py", tmp_path / "eval_1", checkpoint, "trainer.accelerator=cpu")
    for count in (2, 3):
        folder = tmp_path / f"train_{count}"
        run("train.py", folder, *TASKS[task], *COMMON, *devices(count))
        assert train_losses(folder) == pytest.approx(expected, rel=1e-5)
        run("eval.py", tmp_path / f"eval_{count}", checkpoint, "trainer.accelerator=cpu", *devices(count))
        assert metrics(tmp_path / f"eval_{count}") == metrics(tmp_path / "eval_1")  # all digits


@pytest.mark.slow
@pytest.mark.parametrize("first", ["ddp", "fsdp"])
def test_a_checkpoint_of_two_processes_resumes_on_one_and_then_on_three(tmp_path, alone, first):
    parts = [tmp_path / name for name in ("two", "one", "three")]
    options = (*TASKS["cls"], *COMMON)
    run("train.py", parts[0], *options, *devices(2, first), "+trainer.max_steps=5")
    run("train.py", parts[1], *options, *devices(1), f"ckpt_path={parts[0]}/checkpoints/last.ckpt", "+trainer.max_steps=10")
    assert last(parts[1])["global_step"] == 10 and len(last(parts[0])["random_states"]) == 2
    run("train.py", parts[2], *options, *devices(3), f"ckpt_path={parts[1]}/checkpoints/last.ckpt")
    assert_close_weights(alone("cls"), parts[2])
    assert train_losses(parts[2])[-1] == pytest.approx(train_losses(alone("cls"))[-1], rel=1e-5)


@pytest.mark.slow
def test_a_checkpoint_of_one_process_resumes_with_fsdp_on_two(tmp_path, alone):
    one, two = tmp_path / "one", tmp_path / "two"
    options = (*TASKS["cls"], *COMMON)
    run("train.py", one, *options, *devices(1), "+trainer.max_steps=6")
    run("train.py", two, *options, *devices(2, "fsdp"), f"ckpt_path={one}/checkpoints/last.ckpt")
    assert_close_weights(alone("cls"), two)
    run("eval.py", tmp_path / "eval", f"ckpt_path={two}/checkpoints/best.ckpt", "trainer.accelerator=cpu")
    assert metrics(tmp_path / "eval") == metrics(two)
    export = [
        f"ckpt_path={two}/checkpoints/best.ckpt",
        f"out={tmp_path}/weights.safetensors",
    ]
    assert run_command("export.py", *export, folder=tmp_path).returncode == 0
    assert (tmp_path / "weights.safetensors").is_file()


@pytest.mark.slow
def test_a_run_with_another_global_batch_is_refused(tmp_path, alone):
    checkpoint = f"ckpt_path={alone('cls')}/checkpoints/last.ckpt"
    other = [option for option in COMMON if "global_batch_size" not in option]
    text = run("train.py", tmp_path / "run", *TASKS["cls"], *other, *devices(1), checkpoint, "trainer.max_epochs=4", code=1)
    assert "The optimizer steps of the checkpoint have 16 samples, those of this run 8." in text


@pytest.mark.slow
def test_a_mistake_is_one_sentence_for_each_process(tmp_path):
    text = run("train.py", tmp_path / "run", "task=cls", "backbone=mobilenet_v2", *COMMON, *devices(2, "fsdp"), code=1)
    assert text.count("The network has batch norm, which trainer.strategy=fsdp does not support") == 2 and "Process 1: " in text
    assert "Traceback" not in text and "rank1" not in text


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_one_run(tmp_path, alone):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    folder = tmp_path / "run"
    line = [*launcher, *command("train.py", folder, *TASKS["cls"], *COMMON, *devices(2))[1:]]
    done = subprocess.run(line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=500)
    out = done.stdout + done.stderr
    assert done.returncode == 0, out
    assert out.count("Results after") == 1 and out.count("epoch 3/3") == 1
    assert len(json.loads((folder / "starts.json").read_text())["starts"]) == 1
    assert_close_weights(alone("cls"), folder)


@pytest.mark.slow
def test_torchrun_starts_a_run_on_two_nodes(tmp_path, alone):
    """Both nodes are on this machine; each has one process."""
    folder, port = tmp_path / "run", 29517
    nodes = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1",
                "--master-addr", "127.0.0.1", "--master-port", str(port),
                *command("train.py", folder, *TASKS["cls"], *COMMON, *devices(1), "+trainer.num_nodes=2", "trainer.strategy=ddp")[1:],
            ],
            cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert_first_reports_results(nodes)
    assert_close_weights(alone("cls"), folder)


@pytest.mark.slow
def test_slurm_starts_the_processes_of_one_run(tmp_path, alone):
    """SLURM is simulated: `srun` starts each process with these variables."""
    folder = tmp_path / "run"
    line = command("train.py", folder, *TASKS["cls"], *COMMON, *devices(2))
    job = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "spine",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODEID": "0",
    }
    processes = [
        subprocess.Popen(
            line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={
                **ENVIRONMENT, **job, "SLURM_NODELIST": "127.0.0.1", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank),
            },
        )
        for rank in range(2)
    ]  # fmt: skip
    assert_first_reports_results(processes)
    assert_close_weights(alone("cls"), folder)


@pytest.mark.slow
def test_a_killed_run_on_two_processes_continues_on_one_in_the_same_folder(tmp_path, alone):
    """The same command with other devices finds the folder: the id has the global batch size only."""
    options = (*TASKS["cls"], *COMMON, "callbacks.checkpoint_every_steps=1")
    line = [sys.executable, str(ROOT / "train.py"), *options]
    first = subprocess.Popen(
        [*line, *devices(2)], cwd=tmp_path, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL
    )
    end = time.monotonic() + 200
    while not list(tmp_path.glob("logs/train/runs/*/checkpoints/last.ckpt")) and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = run_command("train.py", *options, *devices(1), folder=tmp_path)
    assert second.returncode == 0 and "Resuming from" in second.stdout, second.stderr
    (folder,) = tmp_path.glob("logs/train/runs/*")
    assert_close_weights(alone("cls"), folder)
