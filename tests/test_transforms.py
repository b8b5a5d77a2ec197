"""Crops, flips and colors: geometry to a fraction of a pixel, randomness from the sample's generator alone."""

import albumentations
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from spine.data.data_module import Samples
from spine.data.formats.shapes import Shapes
from spine.data.transforms import Albumentations, CenterCrop, RandomScaleCrop, Resize, TopDownAffine, Transform
from spine.errors import InputError


def spot(x, y, size=(120, 160), radius=2.5):
    """A picture with one soft white spot, and a mask of class 1 there."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    heat = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
    image = (255 * heat[..., None]).round().astype(np.uint8).repeat(3, 2)
    return image, (heat > 0.5).astype(np.uint8)


def centre_of(picture):
    weight = picture.astype(float)
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
        np.testing.assert_allclose(centre_of(out["image"][..., 0]), (x, y), atol=0.12)
        labelled = np.where(out["mask"] == 255, 0, out["mask"])
        np.testing.assert_allclose(centre_of(labelled), (x, y), atol=max(0.6, 0.5 * zoom))
        back = cv2.invertAffineTransform(out["affine"])
        np.testing.assert_allclose(back @ (x, y, 1), (70.3, 50.8), atol=1e-3)


def test_affine_maps_the_span_of_pixels_not_their_centres():
    """A box of the whole picture, unpadded and doubled: pixel 0 covers -0.5..0.5 before and -0.5..1.5 after."""
    step = TopDownAffine((240, 320), padding=1.0)
    matrix = step.matrix(np.array([0, 0, 160, 120]), 1.0, 0.0, (0, 0), False)
    np.testing.assert_allclose(matrix @ (0, 0, 1), (0.5, 0.5))
    np.testing.assert_allclose(matrix @ (-0.5, -0.5, 1), (-0.5, -0.5))
    np.testing.assert_allclose(matrix @ (159.5, 119.5, 1), (319.5, 239.5))


def test_a_mirrored_image_exchanges_left_and_right():
    image, _ = spot(70, 50)
    sample = {
        "image": image,
        "keypoints": np.array([[70, 50, 2], [90, 50, 1], [80, 60, 2]], np.float32),
        "box": np.array([40, 30, 60, 45]),
    }
    step = TopDownAffine((96, 96), flip=1.0)
    Transform([step], [0] * 3, [1] * 3, flip_pairs=((0, 1),))
    out = step(dict(sample), np.random.default_rng(0))
    step.flip_pairs = ()
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
    np.testing.assert_allclose(centre_of(out["image"][..., 0]), (31.5, 31.5), atol=0.6)
    out = Resize((30, 40))({"image": image, "mask": mask}, None)
    assert out["image"].shape == (30, 40, 3) and set(np.unique(out["mask"])) <= {0, 1}


# ---- resizing --------------------------------------------------------------------------------------------------------


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(224, 224), (30, 50), (300, 120)])
@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_interpolation_is_that_of_pillow(name, size):
    image = noise(200, 160)
    expected = Image.fromarray(image).resize(size[::-1], getattr(Image.Resampling, name.upper()))
    out = Resize(size, interpolation=name)({"image": image}, None)["image"]
    assert np.abs(out.astype(int) - np.asarray(expected)).max() <= 1
    if name == "bicubic":
        assert np.abs(out.astype(int) - Resize(size)({"image": image}, None)["image"]).max() > 10  # another filter


@pytest.mark.parametrize("interpolation", [None, "auto", "area", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(224, 224), (100, 100), (400, 100)])
def test_shrinking_an_axis_does_not_alias(interpolation, size):
    """Columns of black and white become even gray where the width shrinks, also where the height grows."""
    image = np.zeros((200, 1000, 3), np.uint8)
    image[:, ::2] = 255
    out = Resize(size, interpolation=interpolation)({"image": image}, None)["image"]
    assert out.shape[:2] == size and out[:, 5:-5].std() < 20  # 127 without averaging


def test_center_crop_takes_an_interpolation():
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

MOVING = [
    Resize((60, 90)),
    Resize((240, 200), interpolation="bicubic"),
    CenterCrop((64, 64)),
    CenterCrop((90, 60), crop_pct=0.7),
    RandomScaleCrop((96, 96), (0.6, 0.9)),
    RandomScaleCrop((96, 128), (1.2, 1.8)),
]


@pytest.mark.parametrize("step", MOVING, ids=lambda step: f"{type(step).__name__}-{step.size}")
def test_keypoints_follow_every_step(step):
    shown = 0
    for seed in range(12):
        image, _ = spot(83.3, 57.8)
        sample = {"image": image, "keypoints": np.array([[83.3, 57.8, 2], [10, 20, 1]], np.float32)}
        out = step(sample, np.random.default_rng(seed))
        x, y = out["keypoints"][0, :2]
        if 8 <= x < step.size[1] - 8 and 8 <= y < step.size[0] - 8:
            shown += 1
            np.testing.assert_allclose(centre_of(out["image"][..., 0]), (x, y), atol=0.15)
        back = cv2.invertAffineTransform(out["affine"]) @ np.append(out["keypoints"][:, :2], [[1], [1]], 1).T
        np.testing.assert_allclose(back.T, [[83.3, 57.8], [10, 20]], atol=1e-2)
    assert shown >= 4


def test_affine_leads_through_all_steps():
    image, _ = spot(83.3, 57.8)
    sample = {"image": image, "keypoints": np.array([[83.3, 57.8, 2]], np.float32)}
    out = Transform([Resize((240, 200)), CenterCrop((64, 64))], [0] * 3, [1] * 3)(sample, np.random.default_rng(0))
    moved = out["affine"].numpy() @ (83.3, 57.8, 1)
    np.testing.assert_allclose(moved, out["keypoints"][0, :2], atol=1e-3)
    np.testing.assert_allclose(centre_of(out["image"][0].numpy()), moved, atol=0.15)


def test_a_mirrored_scale_crop_exchanges_left_and_right():
    sample = {"image": noise(40, 60), "keypoints": np.array([[10, 20, 2], [50, 20, 1]], np.float32)}
    step = RandomScaleCrop((40, 60), (1.0, 1.0), flip=1.0)
    Transform([step], [0] * 3, [1] * 3, flip_pairs=((0, 1),))
    out = step(dict(sample), np.random.default_rng(0))
    np.testing.assert_allclose(out["keypoints"], [[9, 20, 1], [49, 20, 2]], atol=1e-4)
    np.testing.assert_array_equal(out["image"], sample["image"][:, ::-1])


def test_samples_with_keypoints_have_an_affine():
    out = Transform([], [0] * 3, [1] * 3)({"image": noise(8, 8), "keypoints": np.zeros((1, 3), np.float32)}, None)
    assert out["affine"].tolist() == [[1, 0, 0], [0, 1, 0]]


WITH_KEYPOINTS = frozenset({"image", "keypoints"})


def own_step(sample, rng):
    return sample


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ([albumentations.RandomResizedCrop((32, 32))], "albumentations.RandomResizedCrop"),
        ([albumentations.OneOf([albumentations.Blur(), albumentations.Rotate()])], "albumentations.Rotate"),
        ([albumentations.SomeOf([albumentations.Sequential([albumentations.Affine()])], n=1)], "albumentations.Affine"),
        ([own_step], "function"),
    ],
)
def test_steps_that_leave_keypoints_behind_are_refused_before_training(steps, name):
    transform = Transform([TopDownAffine((32, 32)), *steps], [0] * 3, [1] * 3)
    with pytest.raises(InputError, match=f"Augmentation '{name}' moves pixels and would leave the keypoints behind"):
        transform.prepare(Shapes.labels, WITH_KEYPOINTS)
    transform.prepare(Shapes.labels, frozenset({"image", "mask"}))


def test_steps_that_leave_pixels_in_place_go_with_keypoints():
    colors = albumentations.OneOf([albumentations.Blur(), albumentations.CoarseDropout(), albumentations.PixelDropout()])
    Transform([Resize((32, 32)), colors, albumentations.NoOp()], [0] * 3, [1] * 3).prepare(Shapes.labels, WITH_KEYPOINTS)


def test_a_box_is_cut_before_anything_else_moves():
    with pytest.raises(InputError, match="TopDownAffine cuts by the box in the original image"):
        Transform([Resize((32, 32)), TopDownAffine((32, 32))], [0] * 3, [1] * 3).prepare(Shapes.labels, WITH_KEYPOINTS)


def test_steps_are_checked_when_a_split_is_opened():
    transform = Transform([albumentations.HorizontalFlip()], [0] * 3, [1] * 3)
    with pytest.raises(InputError, match="leave the keypoints behind"):
        Samples(Shapes("val"), transform, seed=0, needs=WITH_KEYPOINTS)


def colour_jitter():
    return Albumentations([albumentations.ColorJitter(p=1.0), albumentations.HorizontalFlip(p=0.5)])


def test_albumentations_draw_from_the_samples_generator():
    image = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    one, two = colour_jitter(), colour_jitter()
    for seed in range(6):
        a = one({"image": image}, np.random.default_rng(seed))["image"]
        two({"image": image}, np.random.default_rng(99))  # what was drawn before must not matter
        np.testing.assert_array_equal(a, two({"image": image}, np.random.default_rng(seed))["image"])
    assert len({one({"image": image}, np.random.default_rng(s))["image"].tobytes() for s in range(12)}) == 12


def test_albumentations_must_not_move_keypoints():
    step = Albumentations([albumentations.HorizontalFlip(p=1.0)])
    with pytest.raises(InputError, match="leave the keypoints behind"):
        step({"image": np.zeros((8, 8, 3), np.uint8), "keypoints": np.zeros((1, 3))}, np.random.default_rng(0))


def test_normalised_tensors_lie_channels_last():
    image = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
    out = Transform([], mean, std)({"image": image, "label": 3}, np.random.default_rng(0))
    expected = (image / 255 - mean) / std
    np.testing.assert_allclose(out["image"].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    assert out["image"].stride() == (1, 36, 3) and out["label"].dtype == torch.int64


def test_padding_to_patches_is_ignored():
    out = Transform([], [0] * 3, [1] * 3, multiple=16)(
        {"image": np.full((20, 30, 3), 9, np.uint8), "mask": np.ones((20, 30), np.uint8)}, None
    )
    assert out["image"].shape == (3, 32, 32) and out["mask"].shape == (32, 32)
    assert (out["mask"][20:] == 255).all() and (out["mask"][:, 30:] == 255).all() and (out["mask"][:20, :30] == 1).all()
