"""The data module without a configuration, as in a notebook with a plain `pl.Trainer`."""

from functools import partial

import albumentations
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from data_files import write_image

import spine
from spine.data.data_module import DataModule
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw
from spine.data.transforms import CenterCrop, RandomScaleCrop
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Labels
from spine.tasks.cls.task import Classification
from spine.tasks.mae.task import MaskedAutoencoding
from spine.training.optimizers import adamw
from spine.training.schedules import cosine

SHAPES = partial(Shapes, length={"train": 24, "val": 10, "test": 6})


@pytest.fixture
def photos(tmp_path):
    for split, count in (("train", 12), ("val", 5), ("test", 4)):
        for number, name in enumerate(("apple", "pear")):
            for i in range(count):
                write_image(tmp_path / split / name / f"{i}.png", (250 * number, 20 * i, 0), size=(40, 60))
    return tmp_path


def trainer(**options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", **quiet, **options)


def test_a_plain_trainer_trains_and_tests_on_a_folder(photos):
    data = DataModule(
        partial(ImageFolder, root=str(photos)),
        train_steps=[albumentations.RandomResizedCrop((32, 32)), albumentations.HorizontalFlip()],
        eval_steps=[CenterCrop((32, 32))],
        needs={"image", "label"},
        batch_size=8,
    )
    assert data.labels.classes == ("apple", "pear")
    net = spine.create_model("convnext", variant="micro", num_outputs=len(data.labels.classes))
    task = Classification(model=net, labels=data.labels, optimizer=partial(adamw, lr=1e-3), schedule=cosine)
    run = trainer(max_epochs=2)
    run.fit(task, data)
    assert run.global_step == 6 and "val/top1" in run.callback_metrics
    (values,) = run.test(task, data, verbose=False)
    assert set(values) >= {"test/top1", "test/loss"}


def test_samples_are_normalized_and_cropped():
    data = DataModule(SHAPES, eval_steps=[CenterCrop((48, 32))], needs={"image", "label"}, batch_size=4, num_workers=0)
    batches = list(data.loader("val"))
    assert [batch["image"].shape for batch in batches] == [(4, 3, 48, 32), (4, 3, 48, 32), (2, 3, 48, 32)]
    assert set(batches[0]) == {"image", "label", "index"}
    raw = CenterCrop((48, 32))(SHAPES("val").load(0), np.random.default_rng(0))["image"]
    expected = (raw / 255 - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    np.testing.assert_allclose(batches[0]["image"][0].permute(1, 2, 0), expected, atol=1e-5)


def test_images_are_padded_to_a_multiple():
    data = DataModule(SHAPES, eval_steps=[CenterCrop((40, 60))], needs={"image", "mask"}, pad_multiple=16)
    sample = data.transformed("val")[Draw(0, 0)]
    assert sample["image"].shape == (3, 48, 64) and (sample["mask"][40:] == IGNORE_INDEX).all()


def test_labels_are_those_of_an_open_split(photos):
    data = DataModule(partial(ImageFolder, root=str(photos), classes=["pear", "apple"]), needs={"image"})
    data.split("val")
    assert data.labels.classes == ("pear", "apple") and list(data.opened) == ["val"]


def test_keys_that_the_data_set_does_not_provide_are_refused(photos):
    data = DataModule(partial(ImageFolder, root=str(photos)), needs={"image", "mask"})
    with pytest.raises(InputError, match="The data set does not provide mask; it provides image, label."):
        data.loader("val")


class Blind(Shapes):
    """Keypoints without known flip pairs."""

    labels = Labels(keypoints=tuple("01234"), can_flip=False)


def test_the_steps_of_the_caller_are_not_changed():
    step = RandomScaleCrop((64, 64), flip=0.5)
    for data_set, flip in ((Blind, 0.0), (Shapes, 0.5)):
        data = DataModule(data_set, [step], [step], needs={"image", "keypoints"})
        train, val = data.transformed("train", training=True), data.transformed("val")
        assert train.transform.steps[0].flip == val.transform.steps[0].flip == flip
        assert train.transform.steps[0] is not val.transform.steps[0]
    assert step.flip == 0.5 and step.flip_pairs == ()


def masked_task():
    net = spine.create_model("mae", variant="micro", task="mae", image_size=(64, 64))
    return MaskedAutoencoding(model=net, labels=Labels(), optimizer=partial(adamw, lr=1e-3))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_trainer_adds_the_sample_extras_of_its_task(num_workers):
    data = DataModule(SHAPES, needs={"image"}, batch_size=8, num_workers=num_workers)
    run = trainer(max_epochs=1)
    run.fit(masked_task(), data)
    assert run.global_step == 3 and "val/loss" in run.callback_metrics


def test_sample_extras_are_the_same_with_and_without_a_trainer():
    task, batches = masked_task(), []
    data = DataModule(SHAPES, needs={"image"}, batch_size=8, num_workers=0)
    assert "patch_mask" not in next(iter(data.loader("val")))
    trainer().validate(task, data, verbose=False)
    batches.append(next(iter(data.loader("val"))))
    other = DataModule(SHAPES, needs={"image"}, batch_size=8, num_workers=0)
    other.add_extras(task.sample_extras())
    batches.append(next(iter(other.loader("val"))))
    assert batches[0]["patch_mask"].any() and torch.equal(batches[0]["patch_mask"], batches[1]["patch_mask"])


class Plain(pl.LightningModule):
    """A module of the user's own, which is not a Task."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 5)

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch["image"].mean((2, 3))), batch["label"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_any_lightning_module_trains_on_the_data():
    run = trainer(max_epochs=1)
    run.fit(Plain(), DataModule(SHAPES, needs=["image", "label"], batch_size=8, num_workers=0))
    assert run.global_step == 3
