"""Figures and loggers."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from test_configs import composed

from spine.commands import train
from spine.reporting.curves import curves
from spine.reporting.figures import confusion, image_rows, palette
from spine.tasks.cls.plots import classification
from spine.tasks.pose.plots import keypoints
from spine.tasks.seg.plots import class_bars, segmentation
from spine.training.figures import render
from spine.training.ranked_samples import RankedSamples
from spine.training.run_folder import RunFolder


def test_ignored_pixels_are_white_and_classes_have_distinct_colors():
    colors = palette(5)
    assert colors[255].tolist() == [1, 1, 1]
    assert len({tuple(color) for color in colors[:5].tolist()}) == 5


@pytest.mark.parametrize("count", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (3, 9))])
def test_figures_accept_any_number_of_images(count):
    images = np.random.default_rng(0).integers(0, 255, (count, 20, 30, 3), np.uint8)
    masks = np.random.default_rng(1).integers(0, 3, (count, 20, 30))
    points = np.random.default_rng(2).uniform(0, 19, (count, 4, 3))
    figures = [
        segmentation(images, masks, masks, ("a", "b", "c")),
        class_bars(torch.from_numpy(np.diag([5, 0, 0]) + np.eye(3, k=1, dtype=int)), ("a", "b", "c")),
        classification(images, [0] * count, [1] * count, ("a", "b")),
        keypoints(images, points, points, np.random.rand(count, 5, 7), ((0, 1),)),
        keypoints(images, points, points, None, ()),
        image_rows({"one": images, "two": images}),
        confusion(np.eye(3), ("a", "b", "c")),
        curves({"train/loss": [(0, 1.0), (1, 0.5)], "val/loss": [(0, 1.1)], "val/top1": [(0, 0.2), (1, 0.4)]}),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert render(figure).std() > 1


def test_curves_hide_unused_panels():
    figure = curves({f"val/m{i}": [(0, 1.0)] for i in range(4)})
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2


SMALL = (
    "task=cls", "backbone=mobilenet_v2", "dataset.length={train: 16, val: 8, test: 4}", "dataset.batch_size=4",
    "dataset.num_workers=0", "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "trainer.log_every_n_steps=1", "logger=tensorboard", "callbacks.figure_every_n_epochs=1",
)  # fmt: skip


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    content = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    content.Reload()
    return content


def columns(folder):
    """The values of metrics.csv: column -> [(step, value)]."""
    found = {}
    with (folder / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            for key in row.keys() - {"step"}:
                if row[key]:
                    found.setdefault(key, []).append((int(row["step"]), float(row[key])))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("checkpoints", ["callbacks.checkpoint_every_steps=3", "callbacks.checkpoint_every_steps=null"])
def test_tensorboard_holds_every_row_and_picture_of_a_resumed_run_once(tmp_path, crash_in_second_epoch, checkpoints):
    config = composed(*SMALL, checkpoints)
    with pytest.raises(RuntimeError, match="machine is gone"):
        train.train_run(config, RunFolder(tmp_path))
    train.train_run(config, RunFolder(tmp_path))
    content = events(tmp_path)
    for name, values in columns(tmp_path).items():
        found = [(event.step, event.value) for event in content.Scalars(name)]
        assert [step for step, _ in found] == [step for step, _ in values], name
        assert [value for _, value in found] == pytest.approx([value for _, value in values]), name
    # after each epoch, and of the best checkpoint
    assert [event.step for event in content.Images("val_predictions")] == [3, 7, 7]
    assert {"val_confusion", "val_worst_predictions"} <= set(content.Tags()["images"])
    results = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert content.Scalars("best/val/top1")[-1].value == pytest.approx(results["val/top1"])
    hyperparameters = content.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer/lr" in hyperparameters


def evaluated(losses, first=0):
    count = len(losses)
    batch = {"image": torch.zeros(count, 3, 4, 4), "index": torch.arange(first, first + count)}
    return torch.tensor(losses), torch.arange(float(count)).view(-1, 1) + first, batch


def test_worst_samples_do_not_depend_on_the_batches_and_copies_count_once():
    losses = [0.1, 5.0, 2.0, float("nan"), 2.0, 0.3, 4.0]
    found = []
    for size in (1, 2, 7):
        worst = RankedSamples(4)
        for start in range(0, len(losses), size):
            worst.update(*evaluated(losses[start : start + size], start))
        worst.update(*evaluated([5.0], 1))  # a copy
        found.append([(sample.index, sample.output.item()) for sample in worst.gather(1)])
        assert not worst.samples
    assert found[0] == found[1] == found[2] == [(3, 3.0), (1, 1.0), (6, 6.0), (2, 2.0)]


def test_the_best_samples_have_the_lowest_losses():
    best = RankedSamples(3, lowest=True)
    for start, losses in ((0, [0.1, 5.0]), (2, [float("nan"), 0.1]), (4, [0.05])):
        best.update(*evaluated(losses, start))
    assert [(sample.loss, sample.index) for sample in best.gather(1)] == [
        (pytest.approx(0.05), 4),
        (pytest.approx(0.1), 0),
        (pytest.approx(0.1), 3),
    ]


def test_worst_samples_of_all_processes_are_gathered(monkeypatch):
    parts = [RankedSamples(2), RankedSamples(2)]
    for part, (losses, first) in zip(parts, [([3.0, 1.0], 0), ([2.0, 0.5], 2)], strict=True):
        part.update(*evaluated(losses, first))
    other = [parts[1].rank(sample) for sample in parts[1].samples]

    def gather(found, own):
        found[0] = own
        found[1] = other if isinstance(own[0], tuple) and len(own[0]) == 2 else [parts[1].samples[0]]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert [(sample.loss, sample.index) for sample in parts[0].gather(2)] == [(3.0, 0), (2.0, 2)]


@pytest.mark.slow
def test_without_loggers_wandb_and_tensorboard_are_not_imported(tmp_path):
    code = (
        "import sys\n"
        "from spine.commands.train import main\n"
        "main()\n"
        "loaded = {'wandb', 'tensorboard', 'torch.utils.tensorboard'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    command = [sys.executable, "-c", code, *(key for key in SMALL if not key.startswith("logger"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
