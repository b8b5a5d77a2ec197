"""Geometric transforms: image, mask and keypoints move together, to a fraction of a pixel."""

import cv2
import numpy as np
import pytest
from PIL import Image

from spine.data.transforms import (
    CenterCrop,
    RandomCrop,
    RandomResize,
    RandomScaleCrop,
    Resize,
    ResizeToMultiple,
    TopDownAffine,
    Transform,
)
from spine.errors import InputError
from spine.interfaces import Labels

WITH_KEYPOINTS = frozenset({"image", "keypoints"})


def spot(x, y, size=(120, 160), radius=2.5):
    """An image with one soft white spot, and a mask with class 1 there."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    heat = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    image = (255 * heat[..., None]).round().astype(np.uint8).repeat(3, 2)
    return image, (heat > 0.5).astype(np.uint8)


def center_of(image):
    weight = image.astype(float)
    rows, columns = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()


@pytest.mark.parametrize(
    "options",
    [{}, {"scale": 0.3}, {"rotate": 40}, {"flip": 1.0}, {"shift": 0.1, "scale": 0.2, "rotate": 30, "flip": 0.5}],
)
@pytest.mark.parametrize("size", [(96, 96), (64, 48), (256, 192)])
def test_affine_moves_image_mask_and_keypoints_together(options, size):
    for seed in range(5):
        image, mask = spot(70.3, 50.8)
        keypoints = np.array([[70.3, 50.8, 2], [60.0, 50.0, 1]], np.float32)
        sample = {"image": image, "mask": mask, "keypoints": keypoints, "box": np.array([40, 30, 60, 45], np.float32)}
        out = TopDownAffine(size, **options)(sample, np.random.default_rng(seed))
        x, y = out["keypoints"][0, :2]
        assert out["image"].shape[:2] == out["mask"].shape == size
        zoom = size[1] / max(60, 45 * size[1] / size[0]) / 1.25
        np.testing.assert_allclose(center_of(out["image"][..., 0]), (x, y), atol=0.12)
        labelled = np.where(out["mask"] == 255, 0, out["mask"])
        np.testing.assert_allclose(center_of(labelled), (x, y), atol=max(0.6, 0.5 * zoom))
        back = cv2.invertAffineTransform(out["affine"])
        np.testing.assert_allclose(back @ (x, y, 1), (70.3, 50.8), atol=1e-3)


def test_affine_maps_the_area_of_pixels_not_their_centers():
    """The box is the whole image, without padding, at twice the size: pixel 0 covers -0.5..0.5 before and -0.5..1.5 after."""
    step = TopDownAffine((240, 320), padding=1.0)
    matrix = step.matrix(np.array([0, 0, 160, 120]), 1.0, 0.0, (0, 0), False)
    np.testing.assert_allclose(matrix @ (0, 0, 1), (0.5, 0.5))
    np.testing.assert_allclose(matrix @ (-0.5, -0.5, 1), (-0.5, -0.5))
    np.testing.assert_allclose(matrix @ (159.5, 119.5, 1), (319.5, 239.5))


def test_a_flipped_image_swaps_left_and_right_keypoints():
    image, _ = spot(70, 50)
    sample = {
        "image": image,
        "keypoints": np.array([[70, 50, 2], [90, 50, 1], [80, 60, 2]], np.float32),
        "box": np.array([40, 30, 60, 45]),
    }
    step = TopDownAffine((96, 96), flip=1.0)
    step.prepare(Labels(flip_pairs=((0, 1),)), WITH_KEYPOINTS)
    out = step(dict(sample), np.random.default_rng(0))
    step.prepare(Labels(), WITH_KEYPOINTS)
    plain = step(dict(sample), np.random.default_rng(0))
    np.testing.assert_array_equal(out["keypoints"], plain["keypoints"][[1, 0, 2]])
    np.testing.assert_array_equal(out["image"], plain["image"])


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.0, 1.0), (2.0, 2.0), (0.5, 2.0)])
def test_scale_crop_moves_image_and_mask_together_and_pads_with_ignore(scale):
    step = RandomScaleCrop((60, 80), scale)
    for seed in range(8):
        image, mask = spot(80, 60, radius=12)
        out = step({"image": image, "mask": mask}, np.random.default_rng(seed))
        assert out["image"].shape == (60, 80, 3) and out["mask"].shape == (60, 80)
        bright, labelled = out["image"][..., 0] > 127, out["mask"] == 1
        if labelled.sum() > 40:
            assert (bright & labelled).sum() / (bright | labelled).sum() > 0.8
        padded = out["mask"] == 255
        assert (out["image"][padded] == 0).all()
        if scale == (0.5, 0.5):
            assert padded.mean() == pytest.approx(0.75, abs=0.02)


def test_evaluation_crops():
    image, mask = spot(79.5, 59.5)
    out = CenterCrop((64, 64), crop_pct=0.875)({"image": image, "mask": mask}, None)
    assert out["image"].shape == (64, 64, 3)
    np.testing.assert_allclose(center_of(out["image"][..., 0]), (31.5, 31.5), atol=0.6)
    out = Resize((30, 40))({"image": image, "mask": mask}, None)
    assert out["image"].shape == (30, 40, 3) and set(np.unique(out["mask"])) <= {0, 1}


# ---- resizing --------------------------------------------------------------------------------------------------------


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(224, 224), (30, 50), (300, 120)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_interpolation_equals_pillow(name, size):
    image = noise(200, 160)
    expected = Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, name.upper()))
    out = Resize(size, interpolation=name)({"image": image}, None)["image"]
    assert np.abs(out.astype(int) - np.asarray(expected)).max() <= 1
    if name == "bicubic":
        assert np.abs(out.astype(int) - Resize(size)({"image": image}, None)["image"]).max() > 10  # a different filter


@pytest.mark.parametrize("interpolation", [None, "auto", "area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (100, 100), (400, 100)])
def test_shrinking_an_axis_does_not_alias(interpolation, size):
    """Columns of black and white become even gray where the width shrinks, also where the height grows."""
    image = np.zeros((200, 1000, 3), np.uint8)
    image[:, ::2] = 255
    out = Resize(size, interpolation=interpolation)({"image": image}, None)["image"]
    assert out.shape[:2] == size and out[:, 5:-5].std() < 20  # 127 without averaging


def test_center_crop_has_an_interpolation_option():
    image = noise(90, 120)
    out = CenterCrop((32, 32), crop_pct=1.0, interpolation="bicubic")({"image": image}, None)["image"]
    whole = np.asarray(Image.fromarray(image).resize((43, 32), Image.Resampling.BICUBIC))
    assert np.abs(out.astype(int) - whole[:, 5:37]).max() <= 1
    with pytest.raises(InputError, match="interpolation is 'cubic'; choices: auto, area, bilinear, bicubic"):
        CenterCrop((32, 32), interpolation="cubic")


def test_masks_are_resized_around_pixel_centers():
    mask = np.arange(24, dtype=np.uint8)[None].repeat(24, 0)
    out = Resize((8, 8))({"image": noise(24, 24), "mask": mask}, None)["mask"]
    np.testing.assert_array_equal(out[0], np.arange(1, 24, 3))  # the middle of each three
    wide = Resize((24, 72))({"image": noise(24, 24), "mask": mask}, None)["mask"]
    np.testing.assert_array_equal(wide[0], np.repeat(np.arange(24), 3))


# ---- keypoints under every step --------------------------------------------------------------------------------------

GEOMETRIC = [
    Resize((60, 90)),
    Resize((240, 200), interpolation="bicubic"),
    CenterCrop((64, 64)),
    CenterCrop((90, 60), crop_pct=0.7),
    RandomScaleCrop((96, 96), (0.6, 0.9)),
    RandomScaleCrop((96, 128), (1.2, 1.8)),
    RandomResize([90, 200], (0.7, 1.4)),
    ResizeToMultiple(50),
    RandomCrop((100, 130)),
]


@pytest.mark.parametrize("step", GEOMETRIC, ids=lambda step: type(step).__name__)
def test_keypoints_move_with_every_step(step):
    visible = 0
    for seed in range(12):
        image, _ = spot(83.3, 57.8)
        sample = {"image": image, "keypoints": np.array([[83.3, 57.8, 2], [10, 20, 1]], np.float32)}
        out = step(sample, np.random.default_rng(seed))
        x, y = out["keypoints"][0, :2]
        height, width = out["image"].shape[:2]
        if 8 <= x < width - 8 and 8 <= y < height - 8:
            visible += 1
            np.testing.assert_allclose(center_of(out["image"][..., 0]), (x, y), atol=0.15)
        back = cv2.invertAffineTransform(out["affine"]) @ np.append(out["keypoints"][:, :2], [[1], [1]], 1).T
        np.testing.assert_allclose(back.T, [[83.3, 57.8], [10, 20]], atol=1e-2)
    assert visible >= 4


def test_affine_is_the_composition_of_all_steps():
    image, _ = spot(83.3, 57.8)
    sample = {"image": image, "keypoints": np.array([[83.3, 57.8, 2]], np.float32)}
    out = Transform([Resize((240, 200)), CenterCrop((64, 64))], [0] * 3, [1] * 3)(sample, np.random.default_rng(0))
    moved = out["affine"].numpy() @ (83.3, 57.8, 1)
    np.testing.assert_allclose(moved, out["keypoints"][0, :2], atol=1e-3)
    np.testing.assert_allclose(center_of(out["image"][0].numpy()), moved, atol=0.15)


def test_a_flipped_scale_crop_swaps_left_and_right_keypoints():
    sample = {"image": noise(40, 60), "keypoints": np.array([[10, 20, 2], [50, 20, 1]], np.float32)}
    step = RandomScaleCrop((40, 60), (1.0, 1.0), flip=1.0)
    step.prepare(Labels(flip_pairs=((0, 1),)), WITH_KEYPOINTS)
    out = step(dict(sample), np.random.default_rng(0))
    np.testing.assert_allclose(out["keypoints"], [[9, 20, 1], [49, 20, 2]], atol=1e-4)
    np.testing.assert_array_equal(out["image"], sample["image"][:, ::-1])


def test_samples_with_keypoints_have_an_affine():
    out = Transform([], [0] * 3, [1] * 3)({"image": noise(8, 8), "keypoints": np.zeros((1, 3), np.float32)}, None)
    assert out["affine"].tolist() == [[1, 0, 0], [0, 1, 0]]
