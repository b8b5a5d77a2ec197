"""The augmentations and losses equal timm's and torchvision's when the same random numbers are drawn (recording_augmentation.py)."""

import base64
import json
from collections import Counter
from pathlib import Path

import albumentations
import numpy as np
import pytest
import torch
from PIL import Image

from spine.data.sampler import TrainingBatches
from spine.data.transforms import (
    AutoAugment,
    Mixing,
    RandAugment,
    RandomErasing,
    RandomResizedCrop,
    TrivialAugment,
    auto_augment,
)
from spine.data.transforms.image_operations import OPERATIONS, Magnitude, RandomOperation, make_resampling
from spine.tasks.cls.losses import TrainingLoss

RECORD = json.loads((Path(__file__).with_name("records") / "augmentation.json").read_text())
CLASSES = {"RandAugment": RandAugment, "AutoAugment": AutoAugment, "TrivialAugment": TrivialAugment}


class Replay:
    """A random generator that returns recorded numbers, and checks that the same distributions are asked for."""

    def __init__(self, drawn):
        self.drawn = list(drawn)

    def next(self, kind, *arguments):
        found, value, *expected = self.drawn.pop(0)
        assert kind == found and list(arguments) == pytest.approx(expected)
        return np.array(value) if isinstance(value, list) else value

    def random(self, size=None):
        return self.next("random")

    def uniform(self, low, high):
        return self.next("uniform", low, high)

    def normal(self, mean, std):
        return self.next("normal", mean, std)

    def standard_normal(self, shape, dtype):
        return self.next("normal", 0.0, 1.0).astype(dtype).reshape(shape)

    def integers(self, low, high=None, endpoint=False):
        low, high = (0, low) if high is None else (low, high)
        return int(np.squeeze(self.next("integers", low, high if endpoint else high - 1)))

    def beta(self, a, b, size=None):
        return self.next("beta", a, b)

    def choice(self, count, size, replace=True, p=None):
        kind, value, *expected = self.drawn.pop(0)
        assert (kind, len(value), *expected[:2]) == ("choice", size, count, replace)
        assert (p is None) == (expected[2] is None) and (p is None or p == pytest.approx(expected[2]))
        return np.array(value)


def decoded(entry):
    data = np.frombuffer(base64.b64decode(entry["data"]), np.dtype(entry["type"])).reshape(entry["shape"])
    return data.copy()


def source(seed=0):
    return decoded(RECORD["images"][str(seed)])


@pytest.mark.parametrize("name", sorted({entry["name"] for entry in RECORD["operations"]}))
def test_operations_make_the_pixels_of_timm_at_every_level(name):
    for entry in (entry for entry in RECORD["operations"] if entry["name"] == name):
        operation = RandomOperation(name, 1.0, entry["level"], Magnitude(), make_resampling("random", None))
        rng = Replay(entry["drawn"])
        np.testing.assert_array_equal(np.asarray(operation(Image.fromarray(source()), rng)), decoded(entry["result"]))
        assert not rng.drawn


def test_all_operations_are_recorded():
    assert {entry["name"] for entry in RECORD["operations"]} == set(OPERATIONS)


@pytest.mark.parametrize(("name", "config"), sorted({(e["class"], e["config"]) for e in RECORD["policies"]}, key=str))
def test_policies_make_the_pixels_of_timm_and_torchvision(name, config):
    step = CLASSES[name]() if config is None else CLASSES[name](config)
    changed = 0
    for entry in (entry for entry in RECORD["policies"] if (entry["class"], entry["config"]) == (name, config)):
        rng = Replay(entry["drawn"])
        result = step({"image": source()}, rng)["image"]
        np.testing.assert_array_equal(result, decoded(entry["result"]))
        assert not rng.drawn
        changed += not np.array_equal(result, source())
    assert changed > 1


def test_random_erasing_erases_the_rectangles_of_timm():
    erased = Counter()
    for entry in RECORD["erasings"]:
        rng = Replay(entry["drawn"])
        image = np.linspace(-1, 1, 3 * 10 * 14, dtype=np.float32).reshape(3, 10, 14).transpose(1, 2, 0)
        blank = image.copy()
        result = RandomErasing(**entry["options"])({"image": image.copy()}, rng)["image"].transpose(2, 0, 1)
        np.testing.assert_allclose(result, decoded(entry["result"]), atol=2e-7)
        assert not rng.drawn
        erased[entry["options"]["mode"]] += not np.allclose(result.transpose(1, 2, 0), blank, atol=1e-3)
    assert min(erased[mode] for mode in ("pixel", "rand", "const")) > 2


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_and_cutmix_make_the_batches_of_timm(mode):
    images, labels = torch.linspace(-2, 2, 4 * 3 * 6 * 9).reshape(4, 3, 6, 9), torch.tensor([0, 3, 2, 0])
    entries = [entry for entry in RECORD["mixings"] if entry["options"]["mode"] == mode]
    for entry in entries:
        rng = Replay(entry["drawn"])
        result = Mixing(**{"cutmix_minmax": None, **entry["options"]})({"image": images, "label": labels}, 5, rng)
        assert not rng.drawn
        torch.testing.assert_close(result["image"], torch.from_numpy(decoded(entry["result"])), rtol=0, atol=0)
        smoothed = result["target"] * (1 - entry["smoothing"]) + entry["smoothing"] / 5
        torch.testing.assert_close(
            smoothed, torch.from_numpy(decoded(entry["target"])), rtol=0, atol=2e-7
        )  # a unit in the last place
    assert len(entries) == 12


def test_the_random_resized_crop_makes_the_pixels_of_timm():
    sizes = [tuple(decoded(entry).shape[:2]) for entry in RECORD["crop_images"]]
    for entry in RECORD["crops"]:
        rng = Replay(entry["drawn"])
        image = decoded(RECORD["crop_images"][sizes.index(tuple(entry["size"]))])
        result = RandomResizedCrop((12, 10), interpolation=entry["interpolation"])({"image": image}, rng)["image"]
        np.testing.assert_array_equal(result, decoded(entry["result"]))
        assert not rng.drawn


def test_the_color_jitter_of_albumentations_equals_that_of_torchvision_but_for_rounding():
    for entry in RECORD["jitters"]:
        factors = dict(zip(("brightness", "contrast", "saturation", "hue"), entry["factors"], strict=True))
        result = albumentations.ColorJitter(p=1.0).apply(source(2), order=entry["order"], **factors)
        difference = np.abs(result.astype(int) - decoded(entry["result"]).astype(int))
        assert difference.max() <= 7 and difference.mean() < 1.5  # of 255


@pytest.mark.parametrize("record", RECORD["repeats"], ids=lambda record: f"{record['world']} processes")
def test_repeated_augmentation_draws_the_samples_of_deit(record):
    for rank, places in enumerate(record["places"]):
        batches = TrainingBatches(24, 1, 0, rank=rank, world=record["world"], repeats=3)
        order = np.random.default_rng((0, 0)).permutation(24).tolist()
        drawn = [draw for batch in batches for draw in batch]
        assert [order.index(draw.index) for draw in drawn] == places
        assert [draw.copy for draw in drawn] == [(rank + record["world"] * i) % 3 for i in range(len(drawn))]


LOSSES = {  # name of the record -> options of the loss, and whether the targets are shares of classes
    "smoothed": ({"smoothing": 0.1}, False),
    "soft": ({}, True),
    "bce": ({"smoothing": 0.1, "bce": True}, False),
    "bce_soft": ({"bce": True}, True),
    "bce_thresh": ({"bce": True, "bce_target_thresh": 0.2}, True),
    "bce_sum": ({"smoothing": 0.1, "bce": True, "bce_sum": True}, False),
    "bce_weighted": ({"smoothing": 0.1, "bce": True, "class_weights": RECORD["losses"]["weights"]}, False),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_equal_those_of_timm(name):
    given, (options, soft) = RECORD["losses"], LOSSES[name]
    defaults = {"smoothing": 0.0, "bce": False, "bce_sum": False, "bce_target_thresh": None, "class_weights": None}
    loss = TrainingLoss([str(i) for i in range(5)], **{**defaults, **options})
    target = torch.tensor(given["shares" if soft else "labels"])
    assert float(loss(torch.tensor(given["logits"]), target)) == pytest.approx(given[name], rel=1e-6)


def test_sections_of_timms_notation_are_read():
    step = RandAugment("rand-m7-n3-p0.3-mstd0.5-mmax15-inc1")
    first = step.operations[5]
    assert step.count == 3 and len(step.operations) == 15 and step.weights is None
    assert (first.name, first.probability, first.level, first.magnitude) == ("SolarizeIncreasing", 0.3, 7, Magnitude(0.5, 15))
    assert RandAugment("rand").operations[0] == RandomOperation(
        "AutoContrast", 0.5, 10, Magnitude(), make_resampling("random", None)
    )
    assert auto_augment.UNIFORM_ABOVE == 100 and RandAugment("rand-mstd101").operations[0].magnitude.std == float("inf")
