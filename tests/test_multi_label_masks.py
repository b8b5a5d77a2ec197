"""Segmentation of classes that may overlap, and of a single class: files, transforms, evaluation, figures and mistakes."""

import csv
import json

import albumentations
import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data_files import write_image, write_mask
from test_configs import composed

from spine.commands import train
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.collation import collate
from spine.data.formats.mask_folder import MaskFolder
from spine.data.relabeling import Relabeled
from spine.data.transforms import CenterCrop, Pad, RandomCrop, RandomScaleCrop, Resize, ResizeToScale, Transform
from spine.errors import InputError
from spine.interfaces import Labels
from spine.tasks.seg.boundaries import BoundaryCounts, boundary_iou
from spine.tasks.seg.inference import Inference
from spine.tasks.seg.losses import BinaryCrossEntropy, CrossEntropy, Dice, OhemCrossEntropy
from spine.tasks.seg.masks import describe_mask, layers
from spine.tasks.seg.task import Segmentation
from spine.testing import check_data
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

NEEDS = frozenset({"image", "mask"})
CLASSES = ("car", "shadow", "glass")
SIZES = [(60, 90), (40, 40), (75, 50)]
LABELS = Labels(mask_classes=CLASSES, multi_label=True)


# ---- files -----------------------------------------------------------------------------------------------------------


def write_files(root, rows_of_class, pattern="masks/train/{class}/one.png"):
    """Writes an image and a mask for each class, whose rows are given."""
    write_image(root / "images/train/one.jpg", size=(4, len(next(iter(rows_of_class.values())))))
    for name, row in rows_of_class.items():
        write_mask(root / pattern.replace("{class}", name), [row] * 4)


@pytest.mark.parametrize(
    ("pattern", "options"),
    [
        ("masks/train/{class}/one.png", {}),
        ("masks/{class}/train/one.png", {"masks": "masks/{class}/{split}"}),
        ("masks/train/one_{class}.png", {"mask_suffix": "_{class}"}),
        ("images/train/one_{class}.png", {"masks": "images/{split}", "mask_suffix": "_{class}"}),
    ],
)
def test_each_class_has_files_of_its_own(tmp_path, pattern, options):
    write_files(tmp_path, {"car": [0, 255, 255], "shadow": [0, 0, 1]}, pattern)
    data = MaskFolder("train", root=str(tmp_path), classes=["car", "shadow"], multi_label="files", **options)
    check_data(data)
    assert data.load(0)["mask"][0].tolist() == [[0, 0], [1, 0], [1, 1]] and data.labels.multi_label
    assert data.files(0) == [str(tmp_path / "images/train/one.jpg")] + [
        str(tmp_path / pattern.replace("{class}", name)) for name in ("car", "shadow")
    ]


def test_a_class_without_a_file_does_not_occur(tmp_path, caplog):
    write_files(tmp_path, {"car": [0, 1, 1], "shadow": [0, 0, 1]})
    (tmp_path / "masks/train/shadow/one.png").rename(tmp_path / "masks/train/shadow/another.png")
    data = MaskFolder("train", root=str(tmp_path), classes=["car", "shadow"], multi_label="files")
    data.check(NEEDS)
    assert data.load(0)["mask"][0].tolist() == [[0, 0], [1, 0], [1, 0]]
    assert "1 images of split 'train' have no mask of a class, which they then do not show: shadow (1)" in caplog.text
    assert "There is no pixel of class shadow" in caplog.text
    (tmp_path / "masks/train/car/one.png").unlink()
    with pytest.raises(
        InputError, match=r"1 of 1 images have no mask in '.*train/car' or '.*train/shadow'; the first is 'one.jpg'"
    ):
        MaskFolder("train", root=str(tmp_path), classes=["car", "shadow"], multi_label="files")


def test_folders_of_classes_without_splits_are_divided(tmp_path):
    for i in range(5):
        write_image(tmp_path / f"images/{i}.png", size=(4, 3))
        write_mask(tmp_path / f"masks/car/{i}.png", [[0, 1, 1]] * 4)
        write_mask(tmp_path / f"masks/shadow/{i}.png", [[1, 1, 0]] * 4)
    sizes = [len(MaskFolder(s, root=str(tmp_path), classes=["car", "shadow"], multi_label="files")) for s in ("train", "val")]
    assert sizes == [4, 1]


def test_the_channels_of_a_mask_are_classes(tmp_path):
    write_image(tmp_path / "images/train/one.jpg", size=(4, 3))
    (tmp_path / "masks/train").mkdir(parents=True)
    red, green, blue, alpha = [255, 0, 0], [0, 0, 0], [255, 255, 0], [0, 255, 255]
    rows = np.array([[blue, green, red, alpha]] * 4, np.uint8).transpose(0, 2, 1)  # OpenCV has blue first
    cv2.imwrite(str(tmp_path / "masks/train/one.png"), rows)
    data = MaskFolder("train", root=str(tmp_path), classes=["r", "g", "b", "a"], multi_label="channels")
    check_data(data)
    assert data.load(0)["mask"][0].T.tolist() == [[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 1]]
    with pytest.raises(InputError, match=r"one.png' has 4 channels, and there are 2 classes: name the class of each channel"):
        MaskFolder("train", root=str(tmp_path), classes=["r", "g"], multi_label="channels").load(0)
    with pytest.raises(InputError, match=r"one.png' has 4 channels, and there are 5 classes. Store one channel for each class"):
        MaskFolder("train", root=str(tmp_path), classes=list("abcde"), multi_label="channels").load(0)
    cv2.imwrite(str(tmp_path / "masks/train/one.png"), rows * np.array([0, 1, 1, 0], np.uint8))  # blue and alpha are constant
    assert MaskFolder("train", root=str(tmp_path), classes=["r", "g"], multi_label="channels").load(0)["mask"].shape == (4, 3, 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 1, 1]),
        ({"ignore_index": 255}, [0, 1, 1, 255]),
        ({"label_map": {0: 0, 1: None, 255: 1}}, [0, 255, 255, 1]),
    ],
)
def test_a_single_class_is_stored_as_0_and_1_or_255(tmp_path, options, expected):
    write_image(tmp_path / "images/train/one.jpg", size=(4, 4))
    write_mask(tmp_path / "masks/train/one.png", [[0, 1, 1, 255]] * 4)
    data = MaskFolder("train", root=str(tmp_path), classes=["cell"], multi_label="channels", **options)
    check_data(data)
    assert data.load(0)["mask"][0, :, 0].tolist() == expected
    with pytest.raises(
        InputError, match=r"there are 1: cell. For one class against everything else, set dataset.multi_label=channels"
    ):
        MaskFolder("train", root=str(tmp_path), classes=["cell"])


def test_mistakes_in_masks_of_several_classes_are_explained(tmp_path):
    def opened(**options):
        options = {"classes": ["car", "shadow"], "multi_label": "files", **options}
        return MaskFolder("train", root=str(tmp_path), **options)

    write_files(tmp_path, {"car": [0, 255, 7], "shadow": [0, 0, 1]})
    with pytest.raises(InputError, match=r"car/one.png' holds the value 7; masks of classes that may overlap hold 0"):
        opened().load(0)
    write_mask(tmp_path / "masks/train/car/one.png", [[0, 1]] * 4)
    with pytest.raises(
        InputError, match=r"car/one.png' is 4x2 \(height x width\), and that of another class of the image, '.*shadow/"
    ):
        opened().load(0)
    write_mask(tmp_path / "masks/train/shadow/one.png", [[0, 1]] * 4)
    with pytest.raises(InputError, match=r"one.jpg' is 4x3, its mask '.*car/one.png' 4x2 \(height x width\)"):
        opened().load(0)
    for options, message in (
        ({"classes": ["car", "tree"]}, r"no folder '.*masks/train/tree', where the train masks should be"),
        ({"reduce_zero_label": True}, "dataset.reduce_zero_label is for masks with one class per pixel"),
        ({"color_map": "palette"}, "dataset.color_map is for masks with one class per pixel"),
        ({"multi_label": "channels", "masks": "masks/{class}"}, "is for dataset.multi_label=files"),
        ({"label_map": {0: 0, 1: 2}}, r"dataset.label_map maps 1 to 2; there are 2 classes, 0 to 1 \(absent, present\)"),
        ({"palette": [[0, 0, 0]]}, "dataset.palette has 1 colors for 2 classes"),
    ):
        with pytest.raises(InputError, match=message):
            opened(**options)
    (tmp_path / "train.txt").write_text("images/train/one.jpg masks/train/car/one.png\n")
    with pytest.raises(InputError, match="names one mask for each image, and dataset.multi_label=files reads one for each class"):
        opened(pairs="train.txt")
    (tmp_path / "train.txt").write_text("one\n")
    assert len(opened(pairs="train.txt")) == 1


# ---- transforms, batches, labels -------------------------------------------------------------------------------------


def random_layers(rng, size, count):
    return rng.choice(np.array([0, 1, 255], np.uint8), (*size, count), p=[0.6, 0.3, 0.1])


@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize(
    "step",
    [
        Resize((20, 30)), ResizeToScale((64, 24)), CenterCrop((16, 16)), RandomScaleCrop((24, 24)), RandomCrop((16, 20)), Pad((64, 80)),
        albumentations.Affine(rotate=(-45, 45), p=1.0), albumentations.HorizontalFlip(p=1.0), albumentations.RandomCrop(16, 16),
        albumentations.Resize(20, 30),
    ],
    ids=lambda step: type(step).__name__,
)  # fmt: skip
def test_steps_move_every_layer_as_a_mask_of_its_own(step, count):
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (40, 60, 3), np.uint8), random_layers(rng, (40, 60), count)
    transform = Transform([step], mean=[0.5] * 3, std=[0.5] * 3, pad_multiple=7)
    found = transform({"image": image, "mask": mask}, np.random.default_rng(1))
    assert found["mask"].dtype == torch.uint8 and found["mask"].shape == (count, *found["image"].shape[1:])
    for index in range(count):
        one = transform({"image": image, "mask": np.ascontiguousarray(mask[..., index])}, np.random.default_rng(1))["mask"]
        assert torch.equal(found["mask"][index].long(), one)


def test_a_crop_is_drawn_again_if_one_class_fills_it():
    mask = np.zeros((40, 60, 2), np.uint8)
    mask[:, 20:, 1] = 1
    crop = RandomCrop((16, 40), cat_max_ratio=0.75)
    for seed in range(10):
        sample = crop({"image": np.zeros((40, 60, 3), np.uint8), "mask": mask}, np.random.default_rng(seed))
        assert sample["mask"][..., 1].mean() < 0.75


def test_batches_pad_layers_of_different_sizes():
    masks = [torch.ones(3, 4, 6, dtype=torch.uint8), torch.zeros(3, 5, 2, dtype=torch.uint8)]
    samples = [{"image": torch.zeros(3, *m.shape[1:]), "mask": m, "image_size": torch.tensor(m.shape[1:])} for m in masks]
    batch = collate(samples)
    assert batch["mask"].shape == (2, 3, 5, 6) and batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert (
        (batch["mask"][0, :, :4] == 1).all()
        and (batch["mask"][0, :, 4:] == 255).all()
        and (batch["mask"][1, :, :, 2:] == 255).all()
    )


def test_classes_that_a_data_set_lacks_are_unlabeled(tmp_path):
    write_files(tmp_path, {"car": [0, 1, 1], "shadow": [0, 0, 1]})
    data = MaskFolder("train", root=str(tmp_path), classes=["car", "shadow"], multi_label="files")
    wanted = Labels(mask_classes=("shadow", "glass", "car"), multi_label=True)
    assert Relabeled(data, wanted, NEEDS).load(0)["mask"][0].tolist() == [[0, 255, 0], [0, 255, 1], [1, 255, 1]]
    with pytest.raises(InputError, match="trained with one class per pixel, and the data set has a mask for each class"):
        Relabeled(data, Labels(mask_classes=("car", "shadow")), NEEDS)


# ---- evaluation ------------------------------------------------------------------------------------------------------


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "options", [{}, {"scales": (0.5, 1.25), "flip": True}, {"mode": "slide", "crop_size": (16, 16), "crop_stride": (9, 8)}]
)
def test_scores_of_a_class_are_those_of_two_classes_with_softmax(options):
    """The sigmoid of z is the softmax of 0 and z."""
    weight = drawn(1, 1, 3, 5, 5)

    def one(image):
        return torch.nn.functional.conv2d(image, weight, stride=2, padding=2)

    def two(image):
        return torch.cat([torch.zeros_like(one(image)), one(image)], dim=1)

    image, sizes = {"image": drawn(2, 1, 3, 30, 40)}, [(41, 52)]
    ((_, found),) = Inference(**options, multi_label=True).scores(one, image, sizes)
    ((_, expected),) = Inference(**options).scores(two, image, sizes)
    torch.testing.assert_close(found.sigmoid()[0], expected.softmax(0)[1], rtol=1e-9, atol=1e-9)


def segmentation(**options):
    return Segmentation(model=torch.nn.Conv2d(3, 3, 1), labels=LABELS, **options).eval()


def test_the_threshold_decides_and_padding_stays_ignored():
    batch = {"image": torch.randn(2, 3, 8, 9), "image_size": torch.tensor([[8, 9], [5, 4]])}
    low, high = segmentation(threshold=0.0), segmentation(threshold=1.0)
    assert low.predict_batch(batch)["mask"][0].unique().tolist() == [1]
    found = high.predict_batch(batch)["mask"]
    assert found.shape == (2, 3, 8, 9) and found[0].unique().tolist() == [0]
    assert (found[1, :, :5, :4] == 0).all() and (found[1, :, 5:] == 255).all() and (found[1, :, :, 4:] == 255).all()
    task = segmentation()
    assert torch.equal(task.predict_batch({"image": batch["image"]})["mask"] == 1, task.model(batch["image"]) > 0)


@pytest.mark.parametrize("loss", [CrossEntropy(), torch.nn.ModuleList([Dice(), OhemCrossEntropy()])])
def test_losses_of_one_class_per_pixel_are_refused(loss):
    with pytest.raises(
        InputError, match=r"task.loss is (Ohem)?CrossEntropy, which needs one class per pixel, and dataset.multi_label is set"
    ):
        segmentation(loss=loss)
    assert isinstance(segmentation().loss, BinaryCrossEntropy)


def test_boundaries_of_a_class_are_those_of_its_mask_alone():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (2, 2, 3, 6, 8), np.uint8)
    prediction, truth = torch.from_numpy(np.kron(coarse, np.ones((1, 1, 1, 5, 5), np.uint8)))
    truth[:, :, :4] = 255
    every = BoundaryCounts(3, 0.05)
    every.update(prediction, truth, [(30, 40), (25, 36)])
    for index in range(3):
        single = BoundaryCounts(2, 0.05)
        single.update(prediction[:, index], truth[:, index], [(30, 40), (25, 36)])
        assert every.compute()[:, index].tolist() == single.compute()[:, 1].tolist()
    assert ((boundary_iou(every.compute()) > 0) & (boundary_iou(every.compute()) < 1)).all()


def test_layers_are_described_and_shown_one_by_one():
    mask = np.array([[[1, 1, 0, 0]], [[0, 0, 0, 0]], [[1, 255, 255, 0]]], np.uint8)
    assert describe_mask(mask, CLASSES) == "car 50%, glass 50%"
    found = layers("truth", mask, CLASSES)
    assert found.keys() == {"truth car", "truth shadow", "truth glass"}
    assert found["truth glass"].tolist() == [[2, 255, 255, 255]]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of images of different sizes, with masks of three classes that overlap."""
    root, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    for split, sizes in (("train", SIZES * 2), ("val", SIZES)):
        for i, size in enumerate(sizes):
            masks = [
                cv2.resize(rng.integers(0, 2, (3, 4), np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) for _ in CLASSES
            ]
            masks[2][: size[0] // 3] = 9
            for name, mask in zip(CLASSES, masks, strict=True):
                write_mask(root / "masks" / split / name / f"{i}.png", mask * (1 if name == "glass" else 255))
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), np.stack([mask % 9 * 200 + 20 for mask in masks], -1))
    return root


def overrides(root):
    return [
        "task=seg", "backbone=convnext", "dataset=mask_folder", f"dataset.root={root}", f"dataset.classes=[{','.join(CLASSES)}]",
        "dataset.multi_label=files", "dataset.ignore_index=9", "image_size=[32,32]", "dataset.num_workers=0", "dataset.batch_size=4",
        "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=1",
    ]  # fmt: skip


def counts_of(predictions, truths):
    """IoU of each class, counted with numpy."""
    hits, union = np.zeros(3, int), np.zeros(3, int)
    for found, true in zip(predictions, truths, strict=True):
        true = true.transpose(2, 0, 1)
        found = found[:, : true.shape[1], : true.shape[2]]
        labeled = true != 255
        hits += ((found == 1) & (true == 1) & labeled).sum((1, 2))
        union += (((found == 1) | (true == 1)) & labeled).sum((1, 2))
    return hits / union


@pytest.mark.slow
def test_a_run_scores_overlapping_classes_in_the_original_images(scenes, tmp_path):
    train.train_run(composed(*overrides(scenes), "task.loss=[{_target_: spine.tasks.seg.losses.BinaryCrossEntropy},"
                             "{_target_: spine.tasks.seg.losses.Dice}]"), RunFolder(tmp_path))  # fmt: skip
    values = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    task = Segmentation.load_from_checkpoint(next(tmp_path.rglob("last*.ckpt")))
    assert task.labels.multi_label and task.multi_label
    data = build_run(complete(composed(*overrides(scenes))), "val").data
    with torch.no_grad():
        predictions = [mask for batch in data.loader("val") for mask in task.predict_batch(batch)["mask"].numpy()]
    iou = counts_of(predictions, [data.split("val").load(i)["mask"] for i in range(len(SIZES))])
    assert [values[f"val/IoU/{name}"] for name in CLASSES] == pytest.approx(iou.tolist())
    assert values["val/mIoU"] == pytest.approx(iou.mean()) and values["val/mDice"] == pytest.approx((2 * iou / (1 + iou)).mean())
    assert 0 < values["val/mBoundaryIoU"] <= 1 and 0 < values["val/aAcc"] <= 1
    kinds = {"predictions", "worst_predictions", "best_predictions", "classes"}
    assert {path.stem for path in (tmp_path / "figures").glob("*.png")} == {f"val_{kind}" for kind in kinds}
    with (tmp_path / "val_classes.csv").open(newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == list(CLASSES)


def test_scores_do_not_depend_on_batches(scenes):
    torch.manual_seed(0)
    run = build_run(complete(composed(*overrides(scenes), "task.flip_test=true", "augment.eval=[{_target_: "
                                      "spine.data.transforms.ResizeToScale, scale: [32, 48]}]")), "val")  # fmt: skip
    trainer, values = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False), []
    for size in (1, 3):
        run.data.batch_size = size
        values.append(trainer.validate(run.task, run.data.loader("val"), verbose=False)[0])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
