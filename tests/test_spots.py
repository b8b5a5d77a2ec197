"""Every geometric transform that is offered: image, mask and keypoints move together, labels stay, and flips swap left and right.

The transforms are found by listing, so that a new one is tested without being named here.
"""

import inspect
import warnings

import albumentations
import cv2
import numpy as np
import pytest

import spine.data.transforms
from spine.config import instantiate, places
from spine.data.transforms import Transform
from spine.data.transforms.albumentations_adapter import Albumentations
from spine.errors import InputError
from spine.interfaces import Labels, SampleTransform

HEIGHT, WIDTH = 120, 160
SEEDS = range(16)
SPOTS = np.array([[62.0, 52.0], [96.5, 63.25]])  # a left and a right keypoint
LABELS = Labels(keypoints=("left", "right"), flip_pairs=((0, 1),))
NEEDS = frozenset({"image", "mask", "keypoints"})


def drawn(radius=4.0):
    """An image with a red spot at the first keypoint and a blue one at the second, and a mask with label 2 on the spots, 1 elsewhere."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    heats = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2)) for x, y in SPOTS]
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0], image[..., 2] = ((255 * heat).round() for heat in heats)
    return {
        "image": image,
        "mask": np.where(np.maximum(*heats) > 0.5, 2, 1).astype(np.uint8),
        "keypoints": np.concatenate([SPOTS, np.full((2, 1), 2)], 1).astype(np.float32),
        "box": np.array([40, 30, 80, 60], np.float32),
    }


def disc():
    """A white disc, and a mask with label 2 on it and 1 elsewhere."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    mask = np.where((columns - 76) ** 2 + (rows - 58) ** 2 < 15**2, 2, 1).astype(np.uint8)
    return {"image": (255 * (mask == 2)).astype(np.uint8)[..., None].repeat(3, 2), "mask": mask}


def center_of(weight):
    weight = weight.astype(float)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(weight * columns).sum(), (weight * rows).sum()]) / weight.sum()


# ---- spine's own -----------------------------------------------------------------------------------------------------

OWN = {
    name: value
    for name in spine.data.transforms.__all__
    if inspect.isclass(value := getattr(spine.data.transforms, name))
    and issubclass(value, SampleTransform)
    and "keypoints" in value.targets
}
VALUES = {"size": (96, 112), "scale": (130, 90)}  # of arguments without a default
MORE = {"TopDownAffine": {"scale": 0.2, "rotate": 30, "shift": 0.05}, "Pad": {"size": (150, 190)}}  # options that move more


def own(name):
    """The transform with its flips at one half."""
    parameters = inspect.signature(OWN[name]).parameters
    options = {key: VALUES[key] for key, each in parameters.items() if each.default is inspect.Parameter.empty}
    if "flip" in parameters:
        options["flip"] = 0.5
    if "p" in parameters:
        options["p"] = 0.5
    step = OWN[name](**{**options, **MORE.get(name, {})})
    step.prepare(LABELS, NEEDS)
    return step


def is_inside(point, size, margin=15):
    return all(margin <= value <= side - 1 - margin for value, side in zip(point, size[::-1], strict=True))


@pytest.mark.parametrize("name", OWN)
def test_spots_and_their_keypoints_move_together(name):
    """A spot is where its keypoint says, to 0.1 px; keypoints of left and right are exchanged when the image is mirrored."""
    step, compared, sides = own(name), 0, set()
    for seed in SEEDS:
        out = step(drawn(), np.random.default_rng(seed))
        mirrored = bool(np.linalg.det(out.get("affine", np.eye(2, 3))[:, :2]) < 0)
        sides.add(mirrored)
        for number, channel in ((0, 2), (1, 0)) if mirrored else ((0, 0), (1, 2)):
            point = out["keypoints"][number, :2]
            if is_inside(point, out["image"].shape[:2]):
                np.testing.assert_allclose(center_of(out["image"][..., channel]), point, atol=0.1)
                compared += 1
    assert compared >= 4
    if "flip" in inspect.signature(OWN[name]).parameters:
        assert sides == {False, True}


@pytest.mark.parametrize("name", OWN)
def test_masks_move_with_the_image_and_keep_their_labels(name):
    step = own(name)
    for seed in SEEDS:
        out = step({**drawn(), **disc()}, np.random.default_rng(seed))
        assert set(np.unique(out["mask"])) <= {1, 2, 255} and out["mask"].shape == out["image"].shape[:2]
        check_together(out["image"][..., 0] > 127, out["mask"])


def check_together(bright, mask):
    """The bright pixels are those of label 2, apart from a pixel at their border."""
    labeled = mask == 2
    if labeled.sum() > 60 and bright.sum() > 60:
        np.testing.assert_allclose(center_of(bright), center_of(labeled), atol=0.6)


# ---- albumentations --------------------------------------------------------------------------------------------------

WITHOUT_BOXES = {"BBoxSafeRandomCrop", "RandomCropNearBBox", "RandomSizedBBoxSafeCrop"}  # they need boxes in each sample
GIVEN = {
    "Crop": {"x_min": 10, "y_min": 10, "x_max": 150, "y_max": 110},
    "CropAndPad": {"percent": (-0.1, 0.2)},
    "LongestMaxSize": {"max_size": 100},
    "SmallestMaxSize": {"max_size": 100},
    "Affine": {"scale": (0.7, 1.2), "rotate": (-40, 40), "shear": (-10, 10)},
    "GridElasticDeform": {"num_grid_xy": (4, 4), "magnitude": 8},
    "RandomSizedCrop": {"min_max_height": (60, 100), "size": (96, 112)},
    "Pad": {"padding": 20},
}


def offered():
    """The transforms of albumentations that a configuration may name, without composites."""
    names = [name for name in dir(albumentations) if inspect.isclass(getattr(albumentations, name))]
    return {
        name: value
        for name in names
        if places.PLACES["augment"].accepts(f"albumentations.{name}")
        and instantiate._is_allowed(places.PLACES["augment"], value := getattr(albumentations, name), "albumentations", name)
        and not issubclass(value, albumentations.BaseCompose)
        and name not in WITHOUT_BOXES
    }


SLOW = ("PiecewiseAffine", "Superpixels")  # seconds for an image
OFFERED = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in offered()]


def of_albumentations(name):
    values = {"size": (96, 112), "height": 96, "width": 112}
    parameters = inspect.signature(offered()[name]).parameters
    needed = {key: values[key] for key, each in parameters.items() if each.default is inspect.Parameter.empty and key in values}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Albumentations([offered()[name](**{**needed, **GIVEN.get(name, {}), "p": 1.0})])


@pytest.mark.parametrize("name", OFFERED)
def test_albumentations_move_masks_with_the_image_and_keep_their_labels(name):
    step = of_albumentations(name)
    for seed in SEEDS:
        mask = disc()["mask"]
        out = step(disc(), np.random.default_rng(seed))
        assert set(np.unique(out["mask"])) <= {1, 2, 255}
        if step.geometric and "mask" in step.targets:
            check_together(out["image"].max(2) > 127, out["mask"])
        elif not step.geometric:
            kept = out["mask"] != 255  # dropped regions are ignored
            np.testing.assert_array_equal(out["mask"][kept], mask[kept])


@pytest.mark.parametrize("name", ["Rotate", "PadIfNeeded", "ShiftScaleRotate", "Perspective"])
def test_albumentations_ignore_new_pixels_of_overlapping_classes(name):
    for seed in SEEDS:
        step = Albumentations([getattr(albumentations, name)(p=1.0)])
        layers = np.ones((HEIGHT, WIDTH, 6), np.uint8)
        out = step({"image": disc()["image"], "mask": layers}, np.random.default_rng(seed))["mask"]
        assert set(np.unique(out)) <= {1, 255} and out.shape[2] == 6


def texture():
    noise = cv2.GaussianBlur(np.random.default_rng(1).normal(size=(HEIGHT, WIDTH)).astype(np.float32), (0, 0), 3.0)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return (30 + 190 * noise[..., None] * np.array([1, 0.97, 0.94])).round().astype(np.uint8)


def movement(before, after, reach=8):
    """How far an image moved, in pixels, and how alike the images are there: the maximum of their correlation."""
    inner = before.mean(2, dtype=np.float32)[reach:-reach, reach:-reach]
    match = np.abs(cv2.matchTemplate(after.mean(2, dtype=np.float32), inner, cv2.TM_CCOEFF_NORMED))
    y, x = np.unravel_index(match[1:-1, 1:-1].argmax(), (2 * reach - 1, 2 * reach - 1)) + np.ones(2, int)
    peak = match[y, x]
    parts = [
        (low - high) / (2 * (low - 2 * peak + high)) for low, high in (match[y, x - 1 : x + 2 : 2], match[y - 1 : y + 2 : 2, x])
    ]
    return np.abs(np.array([x, y]) + parts - reach).max(), peak


@pytest.mark.parametrize("name", OFFERED)
def test_what_moves_pixels_counts_as_geometric(name):
    step = of_albumentations(name)
    if step.geometric:
        return
    measured = [movement(texture(), step({"image": texture()}, np.random.default_rng(seed))["image"]) for seed in range(24)]
    moved = [distance for distance, peak in measured if peak > 0.6]  # otherwise the content is another one
    assert not moved or np.median(moved) < 0.25


@pytest.mark.parametrize(
    ("step", "fixed"),
    [
        (
            albumentations.MotionBlur(p=1.0),
            albumentations.MotionBlur(p=1.0, allow_shifted=False, direction_range=(0, 0)),
        ),
        (
            albumentations.Downscale(p=1.0),
            albumentations.Downscale(p=1.0, interpolation_pair={"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}),
        ),
    ],
)
def test_blurs_that_move_the_image_are_refused_for_masks_until_they_do_not(step, fixed):
    needs = frozenset({"image", "mask"})
    name = type(step).__name__
    with pytest.raises(
        InputError, match=f"'albumentations.{name}' moves pixels of the image but not its mask.* Set .* of {name}"
    ):
        Transform([step], [0] * 3, [1] * 3).prepare(Labels(), needs)
    Transform([step], [0] * 3, [1] * 3).prepare(Labels(), frozenset({"image", "label"}))
    Transform([fixed], [0] * 3, [1] * 3).prepare(Labels(), needs)
    once = Albumentations([fixed])
    measured = [movement(texture(), once({"image": texture()}, np.random.default_rng(seed))["image"])[0] for seed in SEEDS]
    assert max(measured) < 0.1


def test_masks_are_not_interpolated():
    with pytest.raises(InputError, match="mask_interpolation of albumentations.Rotate is 1, which mixes the numbers of classes"):
        Albumentations([albumentations.Rotate(mask_interpolation=cv2.INTER_LINEAR)])
