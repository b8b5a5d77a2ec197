"""Metrics of classification for few and for many classes, of each class and of the calibration, and other image sizes."""

import csv
import json
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from test_configs import composed
from test_evaluate import evaluated
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassCalibrationError

import spine
from spine.commands import eval as evaluate
from spine.commands import train
from spine.errors import InputError
from spine.interfaces import Labels
from spine.reporting.tables import print_results
from spine.tasks.cls import plots
from spine.tasks.cls.metrics import BINS, Calibration, ClassCounts, expected_calibration_error
from spine.tasks.cls.task import Classification
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")


def task_of(count):
    labels = Labels(classes=tuple(map(str, range(count))))
    return Classification(model=nn.Identity(), optimizer=partial(dict), schedule=partial(dict), labels=labels)


def state_bytes(task):
    metrics = [module for module in task.modules() if isinstance(module, Metric)]
    assert metrics
    return sum(x.numel() * x.element_size() for metric in metrics for x in metric.metric_state.values())


@pytest.mark.parametrize("count", [7, 1000, pytest.param(21841, marks=pytest.mark.slow)])
def test_top1_and_top5_are_exact_and_metrics_stay_small(count):
    task = task_of(count)
    hits1 = hits5 = 0
    for _ in range(2):
        output, label = torch.randn(64, count), torch.randint(count, (64,))
        output[torch.arange(32), label[:32]] += 4.0
        task.update_metrics(output, {"label": label})
        ranks = (output > output.gather(1, label[:, None])).sum(1)
        hits1, hits5 = hits1 + (ranks < 1).sum().item(), hits5 + (ranks < 5).sum().item()
    assert state_bytes(task) < 9e6  # the confusion matrix of ImageNet-22k would take 3.8e9
    assert bool(task.draw_summary()) == (count <= 1000)
    values = task.compute_metrics()
    assert values == {"top1": pytest.approx(hits1 / 128), "top5": pytest.approx(hits5 / 128)}
    assert 0 < hits1 < hits5 < 128
    task.update_metrics(torch.eye(count)[:2], {"label": torch.tensor([0, 1])})
    assert task.compute_metrics()["top1"] == 1.0  # compute_metrics resets the metrics


# ---- calibration ----


def calibrated_logits(count=4000, temperature=1.0, classes=10):
    """Logits whose labels are drawn from their softmax, divided by `temperature`."""
    logits = 2.0 * torch.randn(count, classes)
    return logits * temperature, torch.multinomial(logits.softmax(1), 1)[:, 0]


def measured(logits, label, batch=97):
    calibration, index = Calibration(), torch.arange(len(label))
    for rows in index.split(batch):
        calibration.update(logits[rows], label[rows], index[rows])
    return calibration.compute()


def test_the_calibration_error_is_that_of_torchmetrics():
    logits, label = calibrated_logits(temperature=2.5)
    expected = MulticlassCalibrationError(10, n_bins=BINS, norm="l1")(logits, label)
    assert expected_calibration_error(measured(logits, label).unscaled) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_scaling_finds_the_temperature_and_lowers_the_error(temperature):
    logits, label = calibrated_logits(temperature=temperature)
    found = measured(logits, label)
    assert float(found.temperature) == pytest.approx(temperature, rel=0.06)
    before, after = (expected_calibration_error(bins) for bins in (found.unscaled, found.scaled))
    assert after < 0.03 and (temperature == 1.0 or after < before / 3)
    assert found.unscaled[0].sum() == found.scaled[0].sum() == len(label)
    fitted = torch.tensor(
        [F.cross_entropy(logits / t, label) for t in (0.9 * found.temperature, found.temperature, 1.1 * found.temperature)]
    )
    assert fitted.argmin() == 1


def test_each_half_is_measured_with_the_temperature_of_the_other_half():
    logits, label = calibrated_logits()
    logits[::2] *= 5.0  # even samples are overconfident
    found = measured(logits, label)
    one, two = (measured(logits[half::2], label[half::2]) for half in (0, 1))
    assert float(one.temperature) == pytest.approx(5.0, rel=0.06) and float(two.temperature) == pytest.approx(1.0, rel=0.06)
    confidence = (
        torch.cat([(logits[::2] / two.temperature).softmax(1), (logits[1::2] / one.temperature).softmax(1)]).max(1).values
    )
    assert float(found.scaled[1].sum()) == pytest.approx(float(confidence.sum()), rel=1e-3)


def test_a_single_sample_is_not_scaled():
    found = measured(torch.tensor([[3.0, 1.0]]), torch.tensor([0]))
    assert torch.equal(found.scaled, found.unscaled)
    assert plots.reliability(found).axes


def test_sums_of_two_processes_are_those_of_one():
    logits, label = calibrated_logits(200)
    index = torch.arange(200)
    parts = [Calibration(), Calibration()]
    for rank, calibration in enumerate(parts):
        for rows in index.split(10)[rank::2]:
            calibration.update(logits[rows], label[rows], index[rows])
    for name in ("losses", "bins"):
        total = getattr(parts[0], name) + getattr(parts[1], name)
        whole = Calibration()
        whole.update(logits, label, index)
        assert torch.allclose(total, getattr(whole, name), rtol=1e-5, atol=1e-4)


# ---- classes ----


def test_counts_of_classes():
    counts = ClassCounts(4)
    label, predicted = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 2, 0, 2])
    for rows in (slice(0, 4), slice(4, 6)):
        counts.update(F.one_hot(predicted[rows], 4).float(), label[rows])
    assert counts.compute().tolist() == [[2, 1, 3, 0], [2, 2, 2, 0], [1, 1, 2, 0]]


TINY = (
    "dataset.length={train: 8, val: 12, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1",
    "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_sanity_val_steps=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run folders by backbone; each is trained once."""
    folders = {}

    def folder_of(backbone):
        if backbone not in folders:
            folders[backbone] = tmp_path_factory.mktemp(backbone)
            train.train_run(composed(f"backbone={backbone}", "image_size=[64,64]", *TINY), RunFolder(folders[backbone]))
        return folders[backbone]

    return folder_of


def test_a_run_writes_and_prints_a_table_of_classes(trained, caplog):
    folder = trained("vit")
    with (folder / "val_classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["class", "images", "accuracy", "precision"] and sum(int(row["images"]) for row in rows) == 12
    results = json.loads((folder / "metrics.json").read_text())["metrics"]
    hits = sum(float(row["accuracy"] or 0) * int(row["images"]) for row in rows)
    assert hits / 12 == pytest.approx(results["val/top1"])
    assert {"val/ece", "val/ece_scaled", "val/temperature"} <= results.keys()
    assert (folder / "figures" / "val_calibration.png").is_file()
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert "ece" not in header and "classes" not in header  # measured once, not in every epoch
    with caplog.at_level("INFO"):
        print_results(folder, "val/top1", results, 1.0)
    assert "accuracy" in caplog.text and rows[0]["class"] in caplog.text


# ---- evaluation at another resolution ----


@pytest.mark.parametrize(
    "backbone", ["vit", *(pytest.param(name, marks=pytest.mark.slow) for name in ("beit", "mae", "swin", "convnext"))]
)
def test_a_checkpoint_is_evaluated_at_another_resolution(trained, tmp_path, backbone):
    checkpoint = trained(backbone) / "checkpoints" / "best.ckpt"
    values = evaluate.evaluate_config(evaluated(checkpoint, "image_size=[96,80]"), RunFolder(tmp_path))
    assert 0 <= values["val/top1"] <= 1 and values["val/loss"] == pytest.approx(values["val/loss"])
    image = torch.randn(2, 3, 96, 80)
    as_trained = Classification.load_from_checkpoint(checkpoint).model
    resized = spine.create_model(backbone, variant="micro", num_outputs=5, image_size=(96, 80), weights=checkpoint).eval()
    with torch.no_grad():
        torch.testing.assert_close(as_trained(image), resized(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_pretraining_cannot_be_evaluated_at_another_resolution(tmp_path):
    train.train_run(composed("backbone=mae", "task=mae", "image_size=[64,64]", *TINY), RunFolder(tmp_path))
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    with pytest.raises(InputError, match=r"image_size is \[96, 96\], but this checkpoint was trained at \[64, 64\]"):
        evaluate.evaluate_config(evaluated(checkpoint, "image_size=[96,96]"), RunFolder(tmp_path / "eval"))
