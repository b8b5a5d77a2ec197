"""The augmentation of segmentation equals mmsegmentation's with the same random numbers (recording_segmentation_transforms.py)."""

import base64
import json
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest
import torch
from test_augmentation_records import Replay

from spine.data.transforms import (
    Pad,
    PhotometricDistortion,
    RandomCrop,
    RandomResize,
    ResizeToMultiple,
    ResizeToScale,
    Transform,
)
from spine.data.transforms.scaling import size_within
from spine.errors import InputError

RECORD = json.loads((Path(__file__).with_name("records") / "segmentation_transforms.json").read_text())
STEPS = {
    "resize": RandomResize,
    "scale": ResizeToScale,
    "multiple": ResizeToMultiple,
    "crop": RandomCrop,
    "distortion": PhotometricDistortion,
}


def decoded(entry):
    return np.frombuffer(base64.b64decode(entry["data"]), np.uint8).reshape(entry["shape"]).copy()


def source(number):
    return {key: decoded(value) for key, value in RECORD["samples"][number].items()}


@pytest.mark.parametrize("kind", STEPS)
def test_steps_make_the_pixels_of_mmsegmentation(kind):
    """Masks are the same too, except that OpenCV's INTER_NEAREST, which mmcv uses, shifts them by up to half a pixel."""
    changed = set()
    for entry in RECORD[kind]:
        rng, sample = Replay(entry["drawn"]), source(entry["data"])
        mask = sample["mask"]
        result = STEPS[kind](**entry["options"])(sample, rng)
        assert not rng.drawn
        np.testing.assert_array_equal(result["image"], decoded(entry["image"]))
        size = result["image"].shape[1::-1]
        shifted = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        exact = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
        resized = kind in ("resize", "scale", "multiple")
        np.testing.assert_array_equal(result["mask"], exact if resized else decoded(entry["mask"]))
        if resized:
            np.testing.assert_array_equal(decoded(entry["mask"]), shifted)
        changed.add(result["image"].tobytes())
    assert len(changed) > len(RECORD[kind]) / 2


def test_the_flip_of_albumentations_is_that_of_mmsegmentation():
    flipped = albumentations.HorizontalFlip(p=1.0)
    assert {entry["drawn"][0][1] for entry in RECORD["flip"]} == {"horizontal", None}
    for entry in RECORD["flip"]:
        sample = source(entry["data"])
        made = sample if entry["drawn"][0][1] is None else flipped(**sample)
        for key in ("image", "mask"):
            np.testing.assert_array_equal(made[key], decoded(entry[key]))


def test_sizes_within_a_scale_are_those_of_mmcv():
    for entry in RECORD["sizes"]:
        assert list(size_within(tuple(entry["size"]), tuple(entry["scale"]))) == entry["resized"]


# ---- what a record cannot show ---------------------------------------------------------------------------------------


def test_a_crop_avoids_one_class_as_long_as_it_can():
    """Three quarters of the mask are class 0, and 10 crops are drawn at most."""
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 30:] = np.repeat([1, 2], 20)[:, None]
    share = {}
    for limit in (1.0, 0.75):
        crops = [RandomCrop((12, 12), limit)({"image": mask, "mask": mask}, np.random.default_rng(i))["mask"] for i in range(60)]
        share[limit] = np.mean([(crop == 0).mean() > 0.75 for crop in crops])
    assert share[1.0] > 0.5 and share[0.75] < 0.1
    empty = np.full((20, 20), 255, np.uint8)  # without labels nothing can be avoided
    assert RandomCrop((12, 12), 0.75)({"image": empty, "mask": empty}, np.random.default_rng(0))["mask"].shape == (12, 12)


def test_padding_is_the_mean_color_and_ignored():
    image, mask = np.full((4, 5, 3), 200, np.uint8), np.ones((4, 5), np.uint8)
    sample = Transform([RandomCrop((6, 3)), Pad((6, 8))], [0.5] * 3, [0.25] * 3)(
        {"image": image, "mask": mask}, np.random.default_rng(0)
    )
    assert sample["image"].shape == (3, 6, 8) and sample["mask"].shape == (6, 8)
    assert (
        sample["image"][:, :4, :3].min() > 1 and sample["image"][:, 4:].abs().max() == sample["image"][:, :, 3:].abs().max() == 0
    )
    assert (sample["mask"] == 255).sum() == 6 * 8 - 4 * 3 and torch.all(sample["mask"][:4, :3] == 1)
    large = Transform([Pad((2, 2))], [0.5] * 3, [0.25] * 3)({"image": image, "mask": mask}, None)
    assert large["mask"].shape == (4, 5)


@pytest.mark.parametrize(
    ("step", "options", "message"),
    [
        (RandomResize, {"scale": None, "ratio_range": [2, 0.5]}, "two ascending numbers above 0"),
        (RandomCrop, {"size": [4, 4], "cat_max_ratio": 0}, "a fraction above 0 and at most 1"),
        (ResizeToMultiple, {"divisor": 0}, "1 or more"),
        (ResizeToScale, {"scale": [4, 4], "interpolation": "cubic"}, "choices: auto, area, .*, linear"),
    ],
)
def test_options_out_of_range_are_refused(step, options, message):
    with pytest.raises(InputError, match=message):
        step(**options)
