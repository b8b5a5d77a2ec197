"""Augmentation of recipes: what is refused, soft targets, repeated draws, channel order, exact resume."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from test_configs import composed, trained
from test_resume import SMALL

import spine
from spine.config import checks
from spine.data import build_data
from spine.data.data_module import DataModule
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw, TrainingBatches
from spine.data.transforms import (
    AutoAugment,
    CenterCrop,
    Lighting,
    Mixing,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Transform,
    TrivialAugment,
)
from spine.errors import InputError
from spine.interfaces import Labels
from spine.tasks.cls.losses import balanced_weights
from spine.tasks.cls.task import Classification
from spine.tasks.seg.task import Segmentation
from spine.training.batch_augmentation import BatchAugmentation, batch_generator, is_on
from spine.training.figures import PredictionFigures

MIXED = ("augment=imagenet_strong", "dataset.repeats=2")


def noise(height=40, width=50):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


# ---- per image -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: RandAugment("rand-x9"),
            "RandAugment: config is 'rand-x9', in which 'x9' is unknown. Parts after the first: m<whole",
        ),
        (lambda: RandAugment("rand-m9.5"), "in which 'm9.5' is unknown"),
        (lambda: RandAugment("original"), "must begin with 'rand'"),
        (lambda: RandAugment("rand-tfoo"), "there is no set of operations 'tfoo', only tweights, t3aw, t3a"),
        (lambda: RandAugment("rand-n20-tweights"), "but there are 15 different operations"),
        (lambda: RandAugment("rand", fill=[300, 0, 0]), "fill is \\[300, 0, 0\\]; it must be three whole numbers from 0 to 255"),
        (
            lambda: RandAugment("rand", interpolation="cubic"),
            "interpolation is 'cubic'; choices: nearest, bilinear, bicubic, random",
        ),
        (lambda: AutoAugment("v1"), "config is 'v1'; it begins with a policy: original, originalr, v0, v0r, 3a"),
        (lambda: AutoAugment("v0-m9"), "in which 'm9' is unknown. Parts after the first: mstd<number>"),
        (lambda: TrivialAugment(bins=1), "bins is 1; it must be at least 2"),
        (lambda: Lighting(-0.1), "std is -0.1; it must be 0 or more"),
        (lambda: RandomErasing(mode="noise"), "mode is 'noise'; choices: pixel, rand, const"),
        (lambda: RandomErasing(1.5), "probability is 1.5; it must be from 0 to 1"),
        (lambda: RandomErasing(min_area=0.5, max_area=0.1), "min_area is 0.5 and max_area is 0.1; they are no range"),
        (lambda: RandomErasing(min_aspect=0.0), "min_aspect is 0.0 and max_aspect"),
        (lambda: Mixing(mixup=0, cutmix=0), "mixup and cutmix are both 0. Set one of them above 0, or augment.batch=null"),
        (lambda: Mixing(mixup=-1), "none may be negative"),
        (lambda: Mixing(prob=2), "prob is 2 and switch_prob 0.5; both must be from 0 to 1"),
        (lambda: Mixing(mode="half"), "mode is 'half'; choices: batch, pair, elem"),
        (
            lambda: Mixing(cutmix_minmax=[0.8, 0.2]),
            "cutmix_minmax is \\[0.8, 0.2\\]; it must be two fractions in ascending order",
        ),
    ],
)
def test_wrong_values_have_a_message(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    "step",
    [
        RandAugment("rand-m9-mstd0.5-inc1"), AutoAugment("original"), TrivialAugment(), Lighting(),
        RandomErasing(0.9, "pixel"), RandomResizedCrop((24, 20)),
    ],
)  # fmt: skip
def test_steps_draw_from_the_generator_of_the_sample_only(step):
    def result(seed, transform=None):
        made = transform or Transform([step], [0.5] * 3, [0.25] * 3)
        return made({"image": noise()}, np.random.default_rng(seed))["image"]

    image = noise()
    shared = Transform([step], [0.5] * 3, [0.25] * 3)
    for seed in range(5):
        expected = result(seed)
        result(99, shared)  # earlier draws must not matter
        assert torch.equal(result(seed, shared), expected)
    assert len({result(seed).numpy().tobytes() for seed in range(12)}) > 5
    assert np.array_equal(image, noise())


def test_steps_that_move_pixels_are_refused_with_masks():
    with pytest.raises(InputError, match="'RandAugment' moves pixels of the image but not its mask"):
        Transform([RandAugment("rand")], [0] * 3, [1] * 3).prepare(Shapes.labels, frozenset({"image", "mask"}))
    for step in (AutoAugment("3a"), RandAugment("rand-t3a"), RandomErasing(), Lighting()):  # these change colors only
        Transform([step], [0] * 3, [1] * 3).prepare(Shapes.labels, frozenset({"image", "mask", "keypoints"}))


def test_the_random_resized_crop_moves_mask_and_keypoints_with_the_image():
    image = np.zeros((40, 50, 3), np.uint8)
    image[10:30, 15:35] = 255
    sample = {"image": image, "mask": (image[:, :, 0] > 0).astype(np.uint8), "keypoints": np.array([[24.5, 19.5, 2]], np.float32)}
    out = RandomResizedCrop((80, 100), scale=(0.8, 1.0), interpolation="bilinear")(sample, np.random.default_rng(3))
    rows, columns = np.nonzero(out["mask"])
    assert out["image"].shape == (80, 100, 3) and ((out["image"][:, :, 0] > 127) == out["mask"]).mean() > 0.99
    assert np.allclose(out["keypoints"][0, :2], [columns.mean(), rows.mean()], atol=0.6)


def test_erasing_comes_after_normalization_and_last():
    with pytest.raises(InputError, match="RandomErasing changes the normalized image: put it at the end of the list"):
        Transform([RandomErasing(), Resize((8, 8))], [0] * 3, [1] * 3)
    plain, erased = (
        Transform(steps, [0.5] * 3, [0.25] * 3)({"image": noise()}, np.random.default_rng(1))["image"]
        for steps in ([], [RandomErasing(1.0, "pixel", 0.2, 0.2)])
    )
    changed = (plain != erased).any(0)
    assert 0.15 < changed.float().mean() < 0.25 and abs(float(erased[:, changed].std()) - 1) < 0.1  # normal noise


def test_lighting_adds_the_same_color_to_every_pixel():
    image = np.full((6, 6, 3), 128, np.uint8)
    added = (
        np.array([Lighting(0.1)({"image": image}, np.random.default_rng(seed))["image"][0, 0] for seed in range(400)], float)
        - 128
    )
    assert np.allclose(added.std(0), 5.55 * np.array([0.5675, 0.5808, 0.5836]), rtol=0.12)  # of the first component
    assert np.corrcoef(added.T).min() > 0.95


# ---- channels --------------------------------------------------------------------------------------------------------


def test_bgr_images_in_0_to_255_reach_the_network_in_training_and_evaluation():
    bgr = (
        "dataset.channels=bgr",
        "dataset.mean=[0,0,0]",
        "dataset.std=[0.00392156862745098,0.00392156862745098,0.00392156862745098]",
    )
    data = build_data(composed("task=cls", "augment=none", "image_size=[64,64]", *bgr))
    pixels = data.split("val").load(3)["image"]
    for training in (False, True):
        split = "train" if training else "val"
        image = data.transformed(split, training)[Draw(0, 3)]["image"].permute(1, 2, 0)
        assert np.allclose(image, data.split(split).load(3)["image"][:, :, ::-1], atol=1e-4)
    figures = PredictionFigures("", data.mean, data.std, channels="bgr")
    shown = figures.to_pixels(data.transformed("val")[Draw(0, 3)]["image"][None])[0]
    assert np.array_equal(shown, pixels)


@pytest.mark.slow
def test_the_channel_order_is_that_of_the_weights(tmp_path):
    trained(tmp_path, "task=cls", *SMALL, "backbone=shufflenet_v1", "dataset.channels=bgr", "trainer.max_epochs=1")
    weights = f"backbone.weights={tmp_path / 'checkpoints' / 'last.ckpt'}"
    other = checks.prepare(composed("task=cls", *SMALL, "backbone=shufflenet_v1", weights))
    assert other["dataset"]["channels"] == "bgr"
    assert checks.prepare(composed())["dataset"]["channels"] == "rgb"


# ---- values that are null --------------------------------------------------------------------------------------------


def test_null_values_of_training_steps_are_completed():
    config = composed("task=cls", "augment=imagenet_strong", "dataset.mean=[0.5,0.5,1.0]", "dataset.std=[0.5,0.5,0.5]")
    config["augment"]["train"][0]["interpolation"] = None
    steps = checks.prepare(config)["augment"]["train"]
    assert steps[2]["fill"] == [128, 128, 255] and steps[0]["interpolation"] == "auto"


# ---- repeated augmentation -------------------------------------------------------------------------------------------


def test_repeated_draws_differ_and_an_epoch_keeps_its_length():
    batches = TrainingBatches(24, 6, 0, repeats=3)
    draws = [draw for batch in batches for draw in batch]
    assert len(draws) == len(set(draws)) == 24 and len({draw.index for draw in draws}) == 8
    assert all([draw.copy for draw in group] == [0, 1, 2] for _, group in itertools.groupby(draws, lambda draw: draw.index))


def test_repeats_are_the_same_for_any_number_of_workers_and_processes():
    def module(workers):
        return DataModule(
            lambda split: Shapes(split, length={"train": 24, "val": 4}), [RandomResizedCrop((32, 32))], [CenterCrop((32, 32))],
            needs={"image", "label"}, batch_size=6, num_workers=workers, repeats=2,
        )  # fmt: skip

    alone, two = ([batch["image"].numpy().tobytes() for batch in module(n).train_dataloader()] for n in (0, 2))
    assert alone == two and len(alone) == 4
    batch = next(iter(module(0).train_dataloader()))
    assert batch["copy"].tolist() == [0, 1] * 3 and batch["index"][0] == batch["index"][1]
    assert not torch.equal(batch["image"][0], batch["image"][1])
    assert "copy" not in next(iter(module(0).val_dataloader()))
    whole = list(TrainingBatches(24, 6, 0, repeats=2))
    parts = [list(TrainingBatches(24, 3, 0, rank=rank, world=2, repeats=2)) for rank in range(2)]
    assert all(both[0::2] == one and both[1::2] == two for both, one, two in zip(whole, *parts, strict=True))


def test_more_repeats_than_samples_of_a_batch_are_refused():
    data = DataModule(Shapes, needs={"image"}, batch_size=4, repeats=5)
    with pytest.raises(InputError, match=r"dataset.repeats is 5, more than the 4 samples of a batch.* Set it to at most 4\."):
        data.train_dataloader()


# ---- mixup and cutmix ------------------------------------------------------------------------------------------------


def a_batch(count=8):
    return {"image": torch.randn(count, 3, 16, 16), "label": torch.arange(count) % 3, "index": torch.arange(count)}


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_targets_are_the_shares_of_the_pixels(mode):
    batch = a_batch() | {"image": F.one_hot(torch.arange(8) % 3, 3).float()[:, :, None, None].expand(8, 3, 16, 16)}
    for seed in range(20):
        mixed = Mixing(mode=mode)(batch, 3, np.random.default_rng(seed))
        torch.testing.assert_close(mixed["target"], mixed["image"].mean((2, 3)), rtol=0, atol=1e-6)
        torch.testing.assert_close(mixed["target"].sum(1), torch.ones(8))


def test_half_precision_images_keep_their_type_and_memory_format():
    batch = a_batch() | {"image": a_batch()["image"].bfloat16().contiguous(memory_format=torch.channels_last)}
    for seed in range(4):
        image = Mixing(mode="elem")(batch, 3, np.random.default_rng(seed))["image"]
        assert image.dtype == torch.bfloat16 and image.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["task=seg", "augment.train=[]"],
            "augment.batch mixes images and the labels of classes, which task 'seg' does not support",
        ),
        (["dataset.batch_size=15"], "augment.batch mixes pairs of images: dataset.batch_size is 15; it must be even"),
        (["augment.batch.off_epochs=2", "trainer.max_epochs=-1", "+trainer.max_steps=9"], "off_epochs counts the last epochs"),
        (["augment.batch.mixup=0", "augment.batch.cutmix=0"], "mixup and cutmix are both 0"),
        (["augment.batch._target_=spine.data.transforms.Lighting"], "_target_='spine.data.transforms.Lighting' is not allowed"),
        (["augment.batch._target_=os.system"], "_target_='os.system' is not allowed: it may name a transform of batches"),
        (["~augment.batch._target_"], "augment.batch has no _target_; it should name a transform of batches"),
        (["+augment.batch.alpha=1"], "Unknown key 'augment.batch.alpha'"),
        (["augment.batch.mode=half"], "augment.batch.mode is 'half'; it must be one of batch, pair, elem"),
        (["augment.batch.mixup=many"], "augment.batch.mixup is 'many'; it must be a number"),
        (["task.class_weights=[1,-1]"], "task.class_weights is \\[1, -1\\]; it must be a list with a factor for each class"),
        (["task.bce_target_thresh=2"], "task.bce_target_thresh is 2; it must be a probability"),
    ],
)
def test_mistakes_in_a_recipe_are_one_sentence(overrides, message):
    with pytest.raises(InputError, match=message):
        checks.prepare(composed("augment=imagenet_strong", *overrides))


def test_an_odd_batch_is_one_sentence():
    with pytest.raises(
        InputError, match="augment.batch mixes pairs of images, but a batch has 7. Set an even dataset.batch_size"
    ):
        Mixing()(a_batch(7), 3, np.random.default_rng(0))


def test_a_task_without_classes_is_refused_by_a_plain_trainer_too():
    with pytest.raises(InputError, match="Task 'seg' does not train with mixed labels"):
        task = Segmentation.__new__(Segmentation)
        BatchAugmentation(Mixing(), 0).setup(None, task, "fit")


def test_batches_are_not_mixed_in_the_last_epochs():
    assert [is_on(Mixing(off_epochs=2), epoch, 5) for epoch in range(5)] == [True] * 3 + [False] * 2
    assert is_on(Mixing(), 4, 5)


def test_random_numbers_depend_on_seed_epoch_and_position():
    drawn = {key: batch_generator(*key).random() for key in itertools.product(range(2), range(2), range(4))}
    assert len(set(drawn.values())) == 16 and batch_generator(0, 1, 2).random() == drawn[0, 1, 2]
    assert np.random.default_rng((0, 1, 2, 0)).random() != drawn[0, 1, 2]  # the sample with the same numbers


class Seen(pl.Callback):
    """Remembers targets of the training batches."""

    def __init__(self):
        self.targets = []

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):
        self.targets.append(batch.get("target"))


def test_mixing_works_in_a_plain_trainer_and_in_training_only():
    data = DataModule(
        lambda split: Shapes(split, length={"train": 16, "val": 4}), [RandomResizedCrop((32, 32))], [CenterCrop((32, 32))],
        needs={"image", "label"}, batch_size=8, num_workers=0,
    )  # fmt: skip
    classes = len(data.labels.classes)
    task = Classification(
        model=spine.create_model("mobilenet_v2", variant="micro", num_outputs=classes, image_size=(32, 32)),
        labels=data.labels,
        optimizer=lambda net: torch.optim.SGD(net.parameters(), lr=0.01),
    )
    seen = Seen()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
        callbacks=[BatchAugmentation(Mixing(off_epochs=1), seed=0), seen],
    )  # fmt: skip
    trainer.fit(task, data)
    assert [target is not None for target in seen.targets] == [True, True, False, False]
    assert torch.isfinite(trainer.callback_metrics["train/loss"])


# ---- losses ----------------------------------------------------------------------------------------------------------


def task_with(**options):
    return Classification(model=torch.nn.Linear(4, 3), labels=Labels(classes=("a", "b", "c")), **options)


def test_evaluation_has_the_plain_cross_entropy():
    batch = {"image": torch.randn(6, 4), "label": torch.arange(6) % 3}
    task = task_with(smoothing=0.2, bce_loss=True, class_weights=[1.0, 2.0, 3.0])
    logits = task.model(batch["image"])
    assert torch.equal(task.eval().evaluate_batch(batch)[0], F.cross_entropy(logits, batch["label"]))
    assert not torch.equal(task.train().evaluate_batch(batch)[0], F.cross_entropy(logits, batch["label"]))


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_scale_the_loss_of_each_class(soft):
    batch = {"image": torch.randn(6, 4), "label": torch.arange(6) % 3}
    if soft:
        batch["target"] = F.one_hot(batch["label"], 3).float()
    task = task_with(smoothing=0.0, class_weights=[0.5, 1.0, 3.0]).train()
    losses = F.cross_entropy(task.model(batch["image"]), batch["label"], reduction="none")
    expected = (losses * torch.tensor([0.5, 1.0, 3.0])[batch["label"]]).mean()  # over images, also in unequal micro-batches
    torch.testing.assert_close(task.evaluate_batch(batch)[0], expected)


def test_balanced_weights_are_inverse_to_the_number_of_samples():
    labels = np.array([0] * 6 + [2] * 2)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([8 / 12, 0, 2]) and weights[labels].mean() == pytest.approx(1)
    task = task_with(class_weights="balanced")
    data = SimpleNamespace(split=lambda name: SimpleNamespace(class_indices=lambda: labels))
    task._trainer = SimpleNamespace(datamodule=data)
    task.on_fit_start()
    assert task.criterion.class_weights.tolist() == pytest.approx([8 / 12, 0, 2])
    assert not task.criterion.state_dict()  # checkpoints contain no weights of classes


def test_the_number_of_class_weights_is_checked():
    with pytest.raises(InputError, match="task.class_weights has 2 numbers, but there are 3 classes"):
        task_with(class_weights=[1.0, 2.0])


def test_a_loss_of_ones_own_gets_the_mixed_targets():
    task = task_with(loss=torch.nn.CrossEntropyLoss()).train()
    batch = {"image": torch.randn(4, 4), "label": torch.arange(4) % 3, "target": torch.full((4, 3), 1 / 3)}
    assert torch.equal(task.evaluate_batch(batch)[0], F.cross_entropy(task.model(batch["image"]), batch["target"]))
