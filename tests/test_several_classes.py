"""task=cls with images of several classes: labels, losses, metrics, predictions and exported files."""

import csv
import json
import textwrap
from functools import partial

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_configs import composed
from test_evaluate import evaluated
from torch import nn
from torchmetrics.functional.classification import multilabel_average_precision, multilabel_exact_match, multilabel_f1_score

import spine
from spine import plugins
from spine.commands import eval as evaluate
from spine.commands import train
from spine.config.schemas import LOADER
from spine.data.transforms import Mixing, Transform
from spine.errors import InputError
from spine.exporting.network import ExportedNetwork
from spine.interfaces import Labels
from spine.tasks.cls.linear_probe import LinearProbe
from spine.tasks.cls.losses import Asymmetric, BinaryCrossEntropy, TrainingLoss
from spine.tasks.cls.several_classes import SeveralClassesScores, binary_cross_entropy
from spine.tasks.cls.task import Classification
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

NAMES = ("red", "green", "blue")
COLORS = '''
"""Images with up to three bars of different colors."""

from typing import ClassVar

import numpy as np

from spine.interfaces import DataSet, Labels


class Colors(DataSet):
    reads_files: ClassVar[bool] = False
    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})
    labels = Labels(classes=("red", "green", "blue"), several_classes=True)

    def __init__(self, split: str, *, root: str | None = None, length: dict[str, int]):
        self.length, self.first = length[split], {"train": 0, "val": 1000, "test": 2000}[split]

    def __len__(self):
        return self.length

    def load(self, index):
        rng = np.random.default_rng(self.first + index)
        label = rng.integers(0, 2, 3).astype(np.uint8)
        image = rng.integers(0, 40, (48, 48, 3)).astype(np.uint8)
        for channel in np.flatnonzero(label):
            start = int(rng.integers(0, 36))
            image[start : start + 12, :, channel] = 250
        return {"image": image, "label": label}
'''


@pytest.fixture
def colors(tmp_path, monkeypatch):
    """The configuration of a run on a data set of several classes, from a plug-in."""
    monkeypatch.setattr(plugins, "_added", {})
    folder = tmp_path / "several_colors"
    (folder / "data" / "formats").mkdir(parents=True)
    for path in (folder, folder / "data", folder / "data" / "formats"):
        (path / "__init__.py").touch()
    (folder / "data" / "formats" / "colors.py").write_text(textwrap.dedent(COLORS))
    plugins.add(folder)
    config = composed(
        "backbone=mobilenet_v2", "image_size=[48,48]", "dataset.batch_size=8", "dataset.num_workers=0", "trainer.accelerator=cpu",
        "trainer.max_epochs=2", "augment=none", "callbacks.figure_every_n_epochs=1",
    )  # fmt: skip
    loader = {key: config["dataset"][key] for key in LOADER}
    return {
        **config,
        "dataset": {**loader, "_target_": "several_colors.data.formats.colors.Colors", "length": {"train": 24, "val": 16}},
    }


def task_of(count=3, **options):
    labels = Labels(classes=tuple(f"c{i}" for i in range(count)), several_classes=True)
    return Classification(model=nn.Identity(), optimizer=partial(dict), schedule=partial(dict), labels=labels, **options)


def decisions(count=60, classes=5, unknown=0.1):
    logits, labels = 2 * torch.randn(count, classes), torch.randint(0, 2, (count, classes)).float()
    labels[torch.rand(count, classes) < unknown] = 255
    return logits + 1.5 * (labels == 1), labels


@pytest.mark.parametrize("unknown", [0.0, 0.2])
def test_metrics_are_those_of_torchmetrics(unknown):
    logits, labels = decisions(unknown=unknown)
    scores = SeveralClassesScores(5, 0.3)
    for rows in torch.arange(60).split(17):
        scores.update(logits[rows], labels[rows])
    found, target = scores.compute(), labels.long()
    options = {"num_labels": 5, "ignore_index": 255}
    expected = multilabel_average_precision(logits.sigmoid(), target, average=None, **options)
    assert found.average_precision.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    values = found.metrics()
    for average in ("micro", "macro"):
        expected = multilabel_f1_score(logits.sigmoid(), target, threshold=0.3, average=average, **options)
        assert values[f"F1_{average}"] == pytest.approx(float(expected), abs=1e-6)
    assert values["mAP"] == pytest.approx(float(found.average_precision.mean()))
    if not unknown:
        assert values["exact_match"] == pytest.approx(float(multilabel_exact_match(logits.sigmoid(), target, 5, threshold=0.3)))


def test_average_precision_of_a_ranking_by_hand():
    scores = SeveralClassesScores(2, 0.5)
    scores.update(torch.tensor([[3.0, 0], [2.0, 0], [1.0, 0], [-1.0, 0]]), torch.tensor([[1, 0], [0, 0], [1, 0], [0, 0]]).float())
    found = scores.compute()
    assert (
        found.average_precision[0] == pytest.approx((1 / 1 + 2 / 3) / 2) and found.average_precision[1].isnan()
    )  # no image has it
    assert found.f1[0] == pytest.approx(0.8) and found.f1[1].isnan()
    assert found.metrics() == pytest.approx({"mAP": 5 / 6, "F1_macro": 0.8, "F1_micro": 0.8, "exact_match": 0.75})


def test_losses_leave_unknown_classes_out():
    logits, labels = decisions(unknown=0.3)
    known = labels != 255

    def mean(losses):  # over the known classes of each image, then over the images
        return torch.stack([of_image[mask].mean() for of_image, mask in zip(losses, known, strict=True) if mask.any()]).sum() / 60

    def entropy(target, **options):
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none", **options)

    expected = mean(entropy(labels))
    torch.testing.assert_close(binary_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(BinaryCrossEntropy()(logits, labels), expected)
    torch.testing.assert_close(
        TrainingLoss(tuple("abcde"), 0.0, False, False, None, None, several=True)(logits, labels), expected
    )
    smoothed = TrainingLoss(tuple("abcde"), 0.1, False, False, None, None, several=True)(logits, labels)
    torch.testing.assert_close(smoothed, mean(entropy(labels * 0.9 + 0.05)))
    summed = TrainingLoss(tuple("abcde"), 0.0, False, True, None, None, several=True)(logits, labels)
    torch.testing.assert_close(summed, entropy(labels)[known].sum() / 60)
    weighted = BinaryCrossEntropy([1.0, 2.0, 3.0, 4.0, 5.0])(logits, labels)
    torch.testing.assert_close(weighted, mean(entropy(labels, pos_weight=torch.arange(1.0, 6.0))))


def test_the_asymmetric_loss_is_that_of_the_paper():
    logits, labels = decisions(unknown=0.0)
    torch.testing.assert_close(
        Asymmetric(0, 0, 0)(logits, labels), F.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(1).mean()
    )
    p, shifted = logits.sigmoid(), (logits.sigmoid() - 0.05).clamp(min=0)
    expected = -labels * (1 - p) * p.log() - (1 - labels) * shifted**4 * (1 - shifted).log()
    torch.testing.assert_close(Asymmetric()(logits, labels), expected.sum(1).mean())
    large = torch.tensor([[200.0, -200.0]], requires_grad=True)
    Asymmetric()(large, torch.tensor([[0.0, 1.0]])).backward()
    assert large.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Asymmetric(gamma_negative=-1), "gamma_negative is -1, gamma_positive 1 and margin 0.05; exponents are 0 or more"),
        (lambda: Asymmetric()(torch.zeros(2, 3), torch.zeros(2).long()), "those of this data set have one each"),
        (lambda: BinaryCrossEntropy([1.0])(torch.zeros(2, 3), torch.zeros(2, 3)), "has 1 numbers, but there are 3 classes"),
        (lambda: task_of(class_weights="balanced"), "task.class_weights is balanced, which counts images of one class"),
        (lambda: LinearProbe(model=spine.create_model("convnext", variant="micro", num_outputs=3), labels=task_of().labels),
         "protocol=linear needs images of one class each"),
    ],
)  # fmt: skip
def test_what_needs_one_class_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_labels_become_numbers_and_are_mixed():
    transform = Transform([], [0.5] * 3, [0.25] * 3)
    transform.prepare(Labels(), frozenset({"image", "label"}))
    label = transform(
        {"image": np.zeros((4, 4, 3), np.uint8), "label": np.array([1, 0, 255], np.uint8)}, np.random.default_rng(0)
    )["label"]
    assert label.dtype == torch.float32 and label.tolist() == [1, 0, 255]
    labels = torch.tensor([[1.0, 0.0, 255.0], [1.0, 1.0, 0.0]])
    mixed = Mixing(mixup=1.0, cutmix=0)({"image": torch.zeros(2, 3, 4, 4), "label": labels}, 3, np.random.default_rng(0))[
        "target"
    ]
    assert mixed[:, 0].tolist() == [1, 1] and 0 < mixed[0, 1] < 1 and mixed[:, 2].tolist() == [255, 255]
    assert float(mixed[0, 1] + mixed[1, 1]) == pytest.approx(1.0)


def test_exported_probabilities_are_sigmoids(tmp_path):
    from spine.prediction.description import ModelDescription

    logits = torch.tensor([[2.0, -1.0, 0.5]])
    description = type(
        "Description", (), {"task": "cls", "align_corners": False, "labels": task_of().labels, "task_options": {"threshold": 0.7}}
    )()
    assert ModelDescription.__dataclass_fields__.keys() >= {"task", "align_corners", "labels", "task_options"}
    network = ExportedNetwork(nn.Identity(), description, postprocessing="softmax")
    torch.testing.assert_close(network._postprocess(logits, (1, 1)), logits.sigmoid())
    network.postprocessing = "argmax"
    assert network._postprocess(logits, (1, 1)).tolist() == [[1, 0, 0]]


@pytest.mark.slow
def test_a_run_learns_several_classes_and_predicts_all_of_them(colors, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    train.train_run(colors, RunFolder(run))
    results = json.loads((run / "metrics.json").read_text())
    assert results["monitor"] == "val/mAP" and set(results["metrics"]) >= {
        "val/mAP",
        "val/F1_macro",
        "val/F1_micro",
        "val/exact_match",
    }
    with (run / "val_classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(NAMES) and list(rows[0]) == [
        "class",
        "images",
        "AP",
        "F1",
        "precision",
        "recall",
    ]
    assert list(run.glob("figures/*predictions*"))
    checkpoint = run / "checkpoints" / "best.ckpt"
    (tmp_path / "eval").mkdir()
    values = evaluate.evaluate_config(evaluated(checkpoint), RunFolder(tmp_path / "eval"))
    assert values["val/mAP"] == pytest.approx(results["metrics"]["val/mAP"])
    model = spine.load(str(checkpoint))
    image = np.zeros((48, 48, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    (prediction,) = model.predict([image])
    assert prediction.threshold == 0.5
    assert {each.name for each in prediction.classes} == {NAMES[i] for i in np.flatnonzero(prediction.probabilities > 0.5)}
    assert not np.isclose(prediction.probabilities.sum(), 1.0, atol=1e-4)
    assert [each["class"] for each in prediction.record(1)["classes"]] == [each.name for each in prediction.classes]
    assert prediction.draw().ndim == 3 and isinstance(prediction.caption, str)
