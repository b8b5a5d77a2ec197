"""Evaluation of segmentation in the original images: each labeled pixel counts once, whatever the sizes, batches and processes."""

import csv
import json

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_configs import composed
from test_distributed import devices, metrics, run

from spine.commands import train
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.data_module import DataModule
from spine.data.sampler import Draw, EvaluationBatches
from spine.data.transforms import CenterCrop, ResizeToScale
from spine.errors import InputError
from spine.interfaces import DataSet, Labels
from spine.tasks.seg.metrics import scores_of_classes, segmentation_scores
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

SIZES = [(60, 90), (40, 40), (75, 50), (60, 90), (40, 40)]
CLASSES = ("sky", "road", "car")
SMALL = (
    "task=seg", "backbone=convnext", "dataset=mask_folder", f"dataset.classes=[{','.join(CLASSES)}]", "dataset.ignore_index=255",
    "image_size=[64,64]", "dataset.num_workers=0", "trainer.accelerator=cpu", "trainer.precision=32-true",
)  # fmt: skip
KEEP_ASPECT = "augment.eval=[{_target_: spine.data.transforms.ResizeToScale, scale: [48, 96]}]"


def masks_of(sizes, seed):
    """Masks of large squares of three classes, with unlabeled pixels."""
    rng = np.random.default_rng(seed)
    for height, width in sizes:
        mask = cv2.resize(rng.integers(0, 3, (3, 4), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        mask[: rng.integers(1, height // 2)] = 255
        yield mask


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of pairs of images and masks of different sizes."""
    root = tmp_path_factory.mktemp("photos")
    for split, sizes, seed in (("train", SIZES * 2, 0), ("val", SIZES, 1)):
        for i, mask in enumerate(masks_of(sizes, seed)):
            for kind in ("images", "masks"):
                (root / kind / split).mkdir(parents=True, exist_ok=True)
            colors = np.array([[230, 180, 90], [80, 80, 80], [30, 40, 200]], np.uint8)[np.where(mask == 255, 0, mask)]
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), colors)
            cv2.imwrite(str(root / "masks" / split / f"{i}.png"), mask)
    return root


def built(photos, *overrides):
    torch.manual_seed(0)
    return build_run(complete(composed(*SMALL, f"dataset.root={photos}", *overrides)), "val")


def validated(run):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    run.data.trainer = None
    return trainer.validate(run.task, run.data.loader("val"), verbose=False)[0]


def confusion_of(predictions, truths):
    counted = np.zeros((3, 3), int)
    for prediction, truth in zip(predictions, truths, strict=True):
        assert prediction[: truth.shape[0], : truth.shape[1]].max() < 3
        labeled = truth != 255
        np.add.at(counted, (truth[labeled], prediction[: truth.shape[0], : truth.shape[1]][labeled]), 1)
    return counted


@pytest.mark.parametrize(
    "options",
    [
        (),
        (KEEP_ASPECT, "task.flip_test=true", "task.scales=[0.75,1.0]"),
        ("backbone=vit", KEEP_ASPECT, "task.inference=slide", "task.crop_size=[32,40]"),
    ],
    ids=["whole", "views", "slide"],
)
def test_scores_are_counts_of_the_pixels_of_the_original_images(photos, options):
    """For every batch size, and equal to what predictions say."""
    run = built(photos, *options)
    assert [run.data.split("val").load(i)["mask"].shape for i in range(5)] == SIZES
    samples, values = run.data.transformed("val"), {}
    for size in (1, 3, 5):
        run.data.batch_size = size
        values[size] = validated(run)
    with torch.no_grad():
        predictions = [mask for batch in run.data.loader("val") for mask in run.task.eval().predict_batch(batch)["mask"].numpy()]
    assert all((mask[h:] == 255).all() and (mask[:, w:] == 255).all() for mask, (h, w) in zip(predictions, SIZES, strict=True))
    counted = confusion_of(predictions, [samples.data.load(i)["mask"] for i in range(5)])
    expected = segmentation_scores(torch.from_numpy(counted))
    for name, iou in zip(CLASSES, scores_of_classes(torch.from_numpy(counted))["IoU"].tolist(), strict=True):
        expected[f"IoU/{name}"] = iou
    assert {name: values[1][f"val/{name}"] for name in expected} == pytest.approx(expected, rel=1e-6, nan_ok=True)
    for size in (3, 5):
        assert values[size] == pytest.approx(values[1], rel=1e-5, nan_ok=True)
    assert 0 < values[1]["val/mBoundaryIoU"] <= 1


@pytest.mark.parametrize("world", [2, 3])
def test_processes_together_count_every_pixel_once(photos, world):
    run = built(photos, KEEP_ASPECT)
    run.data.batch_size = 2
    validated(run)
    run.task.on_validation_epoch_start = lambda: None
    whole, total = sum_of_batches(run, EvaluationBatches(5, 2)), 0
    for rank in range(world):
        total = total + sum_of_batches(run, EvaluationBatches(5, 2, rank=rank, world=world))
    assert torch.equal(whole, total) and int(whole.sum()) == sum((mask != 255).sum() for mask in masks_of(SIZES, 1))


def sum_of_batches(run, batches):
    from spine.data.collation import collate

    task, samples = run.task.eval(), run.data.transformed("val")
    task.confusion.reset()
    task.measures_all = False
    with torch.no_grad():
        for draws in batches:
            batch = collate([samples[draw] for draw in draws])
            task.validation_step(batch, 0)
    return task.confusion.compute()


def test_the_input_resolution_scores_resized_masks(photos):
    original, resized = built(photos), built(photos, "task.resolution=input")
    assert next(iter(resized.data.loader("val")))["mask"].shape == (5, 64, 64)
    assert "original images; whole images" in original.task.describe_evaluation()
    assert "input images; whole images" in resized.task.describe_evaluation()
    values = validated(original)["val/aAcc"], validated(resized)["val/aAcc"]
    assert values[0] != values[1] and values[0] == pytest.approx(values[1], abs=0.2)
    original.data.resolution, original.data.samples = "input", {}
    with pytest.raises(InputError, match="task.resolution is input, and the masks are those of the original images"):
        resized.task.validate_batch(next(iter(built(photos).data.loader("val"))))


def test_images_of_different_sizes_are_scored_at_the_input_resolution_too(photos):
    run = built(photos, KEEP_ASPECT, "task.resolution=input")
    values = []
    for size in (1, 5):
        run.data.batch_size = size
        values.append(validated(run))
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_rendered_shapes_have_the_same_scores_at_both_resolutions():
    """Their images have the size of the input already."""
    small = ("task=seg", "backbone=convnext", "dataset.length={train: 8, val: 6, test: 4}", "dataset.num_workers=0")
    torch.manual_seed(0)
    values = []
    for resolution in ("original", "input"):
        torch.manual_seed(0)
        run = build_run(complete(composed(*small, "trainer.accelerator=cpu", f"task.resolution={resolution}")), "val")
        values.append(validated(run))
    assert values[0] == values[1]


def test_training_batches_have_no_sizes(photos):
    run = built(photos, "dataset.batch_size=4")
    assert set(next(iter(run.data.loader("train", training=True)))) == {"image", "mask", "index"}


def test_steps_that_leave_out_a_part_of_the_image_are_refused():
    class Empty(DataSet):
        provides = frozenset({"image", "mask"})
        labels = Labels(mask_classes=("a", "b"))

        def __len__(self):
            return 1

        def load(self, index):
            return {"image": np.zeros((40, 60, 3), np.uint8), "mask": np.zeros((40, 60), np.uint8)}

    def module(step, resolution):
        return DataModule(lambda split: Empty(), eval_steps=[step], needs={"image", "mask"}, resolution=resolution)

    with pytest.raises(InputError, match="Augmentation 'CenterCrop' changes which part of the image is seen"):
        module(CenterCrop((32, 32)), "original").transformed("val")
    assert module(CenterCrop((32, 32)), "input").transformed("val")[Draw(0, 0)]["mask"].shape == (32, 32)
    sample = module(ResizeToScale((30, 20)), "original").transformed("val")[Draw(0, 0)]
    assert sample["image"].shape == (3, 20, 30) and sample["mask"].shape == (40, 60)
    assert sample["image_size"].tolist() == [20, 30] and sample["original_size"].tolist() == [40, 60]


def test_sliding_inference_needs_a_crop_size():
    from spine.tasks.seg.task import Segmentation

    labels, network = Labels(mask_classes=("a", "b")), torch.nn.Conv2d(3, 2, 1)
    with pytest.raises(InputError, match="set task.crop_size"):
        Segmentation(model=network, labels=labels, inference="slide")
    task = Segmentation(model=network, labels=labels, inference="slide", crop_size=[16, 16]).eval()
    assert task.predict_batch({"image": torch.randn(2, 3, 20, 40)})["mask"].shape == (2, 20, 40)


def test_a_run_writes_tables_and_figures_of_the_original_images(photos, tmp_path):
    config = composed(*SMALL, f"dataset.root={photos}", KEEP_ASPECT, "dataset.batch_size=4", "trainer.max_epochs=1")
    train.train_run(config, RunFolder(tmp_path))
    results = json.loads((tmp_path / "metrics.json").read_text())
    assert results["evaluation"] == "at the resolution of the original images; whole images"
    kinds = {"predictions", "worst_predictions", "best_predictions", "confusion", "classes"}
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {f"val_{kind}" for kind in kinds}
    with (tmp_path / "val_classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    labeled = np.concatenate([mask[mask != 255] for mask in masks_of(SIZES, 1)])
    assert [int(row["pixels"]) for row in rows] == np.bincount(labeled, minlength=3).tolist()
    assert float(rows[1]["IoU"]) == pytest.approx(results["metrics"]["val/IoU/road"])
    losses = {}
    for kind in ("worst", "best"):
        with (tmp_path / "figures" / f"val_{kind}_samples.csv").open(newline="") as file:
            losses[kind] = [float(row["loss"]) for row in csv.DictReader(file)]
    assert losses["worst"] == sorted(losses["best"], reverse=True) and len(losses["best"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_with_images_of_different_sizes_score_as_one(photos, tmp_path, strategy):
    """Sliding inference runs the network a different number of times on each process."""
    options = (
        *SMALL, f"dataset.root={photos}", KEEP_ASPECT, "dataset.global_batch_size=4", "dataset.batch_size=2", "trainer.max_epochs=1",
        "task.inference=slide", "task.crop_size=[32,32]", "task.flip_test=true", "head=parsenet", "optimizer=sgd", "schedule=constant",
    )  # fmt: skip
    for name, how in (("one", devices(1)), ("two", devices(2, strategy))):
        run("train.py", tmp_path / name, *options, *how)
    assert metrics(tmp_path / "one") == pytest.approx(metrics(tmp_path / "two"), rel=1e-3)
