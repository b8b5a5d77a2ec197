"""Loading, training, resuming and predicting on a GPU. Run by `pytest -m gpu`."""

import csv
import json
from functools import partial

import numpy as np
import pytest
import torch
from command_line import run_command
from interruptions import at_call
from predictable import write_checkpoint, write_images
from test_configs import composed
from test_half_precision import CASES, TASKS
from test_resume import assert_equal_outcome
from tokenizer_file import for_task
from trainers import fake_trainer

import spine
from spine.commands import train
from spine.data.data_module import DataModule
from spine.data.formats.shapes import Shapes
from spine.data.transforms import HorizontalFlip, RandomResizedCrop
from spine.models.masked import MaskedModel
from spine.tasks.cls.task import Classification
from spine.training.precision import resolve_precision
from spine.training.run_folder import RunFolder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]

SMALL = (
    "dataset.length={train: 24, val: 8, test: 4}", "dataset.batch_size=4", "trainer.max_epochs=3", "trainer.accelerator=gpu",
    "trainer.num_sanity_val_steps=0", "trainer.log_every_n_steps=1",
)  # fmt: skip


def small(*overrides):
    return composed(*SMALL, *overrides)


def outputs(net, image):
    arguments = [image]
    if isinstance(net, MaskedModel):
        arguments.append(torch.arange(net.grid[0] * net.grid[1], device=image.device).expand(2, -1) % 4 > 0)
    out = net(*arguments)
    return getattr(out, "logits", out)


def test_precision_auto_is_what_the_gpu_computes():
    expected = "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "16-mixed"
    assert resolve_precision("auto", "auto") == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_arrive_normalized_and_equal_those_of_the_cpu(workers):
    batches = {}
    for device in ("cpu", "cuda"):
        data = DataModule(
            partial(Shapes, size=(96, 128), length={"train": 16}),
            [RandomResizedCrop((64, 64), interpolation="bilinear", fast=True), HorizontalFlip()],
            needs={"image", "label"},
            batch_size=8,
            num_workers=workers,
        )
        data.trainer = fake_trainer()
        data.trainer.strategy.root_device = torch.device(device, *([0] if device == "cuda" else []))
        batches[device] = [batch["image"] for batch in data.loader("train", training=True)]
    for on_cpu, on_gpu in zip(batches["cpu"], batches["cuda"], strict=True):
        assert on_gpu.is_cuda and on_gpu.dtype == torch.float32
        assert on_gpu.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(on_cpu, on_gpu.cpu())


@pytest.mark.parametrize(("backbone", "task", "head"), CASES)
def test_outputs_and_gradients_are_those_of_the_cpu(backbone, task, head, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    count = None if TASKS[task].head_input == "tokens" else 4
    options = {"channels": 32} if head == "upernet" else {}
    net = spine.create_model(
        backbone, variant="micro", task=task, head=head, num_outputs=count, image_size=64, head_options=options
    ).double()
    net.eval()
    image, results = torch.randn(2, 3, 64, 64, dtype=torch.float64), []
    for device in ("cpu", "cuda"):
        net.to(device).zero_grad()
        out = outputs(net, image.to(device))
        out.square().mean().backward()
        results.append([each.detach().cpu().clone() for each in (out, *(p.grad for p in net.parameters() if p.grad is not None))])
    for on_cpu, on_gpu in zip(*results, strict=True):
        torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("task", list(TASKS))
def test_every_task_trains_and_evaluates(tmp_path, task, precision):
    train.train_run(small(*for_task(task), f"trainer.precision={precision}", "dataset.num_workers=2"), RunFolder(tmp_path))
    content = json.loads((tmp_path / "metrics.json").read_text())
    costs = content["costs"]
    assert content["metrics"] and costs["peak_memory_mb"] > 0 and 0 <= costs["data_wait"] <= 1
    with (tmp_path / "metrics.csv").open(newline="") as file:
        assert all(np.isfinite(float(row["train/loss"])) for row in csv.DictReader(file) if row.get("train/loss"))


@pytest.mark.parametrize("backbone", ["vit", "convnext", "mobilenet_v3", "swin"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_crashed_and_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch, backbone, precision):
    config = partial(small, "task=cls", f"backbone={backbone}", f"trainer.precision={precision}", "trainer.deterministic=true")
    whole, crashed = tmp_path / "whole", tmp_path / "crashed"
    whole.mkdir()
    crashed.mkdir()
    train.train_run(config(), RunFolder(whole))
    at_call(monkeypatch, Classification, 9)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        train.train_run(config(), RunFolder(crashed))
    monkeypatch.undo()
    train.train_run(config(), RunFolder(crashed))
    assert_equal_outcome(whole, crashed)


def test_a_compiled_network_trains(tmp_path):
    train.train_run(small("task=cls", "backbone=vit", "compile=true"), RunFolder(tmp_path))
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]


def test_predictions_are_those_of_the_cpu(tmp_path):
    checkpoint = write_checkpoint(tmp_path, "task=cls", "backbone=convnext")
    images = sorted(write_images(tmp_path / "images").iterdir())
    scores = [
        np.array([answer.probabilities for answer in spine.load(checkpoint, device=device, precision="32-true").predict(images)])
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-2, atol=1e-3)


def test_jobs_of_a_sweep_get_a_gpu_each(tmp_path):
    result = run_command(
        "train.py", "-m", "task=cls", "backbone=vit,mobilenet_v2", "sweep.gpus_per_job=1", "dataset.num_workers=0",
        *SMALL, "trainer.max_epochs=1", folder=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.rglob("metrics.json"))) == 2
