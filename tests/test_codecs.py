"""Codecs of keypoints: round trips, pixel grids, the flip test, and the agreement of crop, target, decoding and back-projection."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from recording_pose import places

from spine.data.transforms import TopDownAffine
from spine.errors import InputError
from spine.heads.multiscale_heatmap import MultiscaleHeatmap
from spine.heads.simcc import SimCC
from spine.interfaces import Features, FeatureSpec, Labels, Level
from spine.pixel_grids import GRIDS
from spine.tasks.pose.codecs import CODECS, draw_heatmaps, split_bins
from spine.tasks.pose.heatmaps import blur
from spine.tasks.pose.losses import bin_loss, heatmap_loss
from spine.tasks.pose.task import Pose

IMAGE, HEATMAP, SIGMA = (256, 192), (64, 48), 2.0
BIN_SHAPE = (1, 1000, 2 * (192 + 256))
# Mean distance in pixels of the image of 1,000 random points from their decoded positions; docs/keypoints.md has the same numbers.
ERRORS = {"fractional": 0.001, "msra": 1.55, "dark": 0.002, "udp": 0.001}
ANYWHERE = {"fractional": 0.086, "msra": 1.541, "dark": 0.320, "udp": 0.411}  # in the whole crop, with the border
BIN_ERRORS = {"fractional": 0.001, "msra": 0.2, "dark": 0.001, "udp": 0.001}
MARGIN = 20  # distance of the points from the border, so that the blur of DARK's decoding does not reach it


def random_points(margin=0.0):
    """1,000 labeled points (1, 1000, 3) in an image of 256x192."""
    return torch.cat([torch.from_numpy(places(margin)).float(), torch.full((1000, 1), 2.0)], dim=1)[None]


def round_trip(codec, points, shape, sigma):
    targets, weight = CODECS[codec].encode(points, shape, IMAGE, sigma)
    assert weight.min() == 1
    output = targets if len(shape) == 4 else targets.clamp(min=1e-30).log()  # logits whose softmax is the target
    return (CODECS[codec].decode(output, IMAGE, sigma)[..., :2] - points[..., :2]).norm(dim=-1)


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_errors_are_those_of_the_documentation(codec):
    """Below 0.1 pixels for all but HRNet's rounding."""
    error = round_trip(codec, random_points(MARGIN), (1, 1000, *HEATMAP), SIGMA)
    assert error.mean() < ERRORS[codec] and error.max() < (0.1 if codec != "msra" else 3)
    error = round_trip(codec, random_points(MARGIN), BIN_SHAPE, 6.0)
    assert error.mean() < BIN_ERRORS[codec] and error.max() < (0.1 if codec != "msra" else 0.4)


@pytest.mark.parametrize("codec", CODECS)
def test_round_trip_errors_at_the_border_are_those_of_the_documentation(codec):
    """A maximum at the border has only one neighbor, and the blur of `dark` and `udp` takes the pixels beyond it as zero.

    tests/test_pose_records.py compares the three codecs of mmpose with it.
    """
    points = random_points()
    error = round_trip(codec, points, (1, 1000, *HEATMAP), SIGMA)
    near = (points[..., :2] < MARGIN - 0.5) | (points[..., :2] > torch.tensor([192.0, 256.0]) - MARGIN - 0.5)
    near = near.any(-1)
    assert near.float().mean() == pytest.approx(0.339)
    assert error.mean() == pytest.approx(ANYWHERE[codec], abs=1e-3)
    if codec != "msra":
        assert error.median() < 0.002 and error[~near].max() < 0.1
    assert error.max() < (2 * math.sqrt(2) if codec == "fractional" else 4.6)  # half a heatmap pixel, and a little more than one


@pytest.mark.parametrize("codec", CODECS)
def test_a_flipped_image_has_flipped_outputs(codec):
    """The targets of mirrored keypoints, flipped back, are decoded at the place of the keypoints: with the shift that the codec needs."""
    points = random_points(margin=30)
    mirrored = points * torch.tensor([-1, 1, 1]) + torch.tensor([IMAGE[1] - 1, 0, 0])
    for shape, sigma, limit in (((1, 1000, *HEATMAP), SIGMA, 1.01), (BIN_SHAPE, 6.0, 0.01)):
        targets, _ = CODECS[codec].encode(mirrored, shape, IMAGE, sigma)
        output = targets if len(shape) == 4 else targets.clamp(min=1e-30).log()
        back = CODECS[codec].decode(CODECS[codec].flip_back(output, IMAGE), IMAGE, sigma)
        error = (back - points)[..., :2].mean((0, 1))
        assert error[1].abs() < 0.05 and error[0].abs() < (limit if CODECS[codec].flip_shift else 0.01)
        unmoved = CODECS[codec].decode(CODECS[codec].flip_back(output, IMAGE, shift=False), IMAGE, sigma)
        assert ((unmoved - back)[..., 0].abs().mean() > 0.4) == CODECS[codec].flip_shift


@pytest.mark.parametrize("codec", CODECS)
def test_crop_target_decoding_and_back_projection_share_one_grid(codec):
    """A keypoint of the original image comes back to its place through all of them; only HRNet's targets are rounded."""
    rng = np.random.default_rng(0)
    keypoints = np.concatenate([rng.uniform(60, 140, (40, 2)), np.full((40, 1), 2)], axis=1).astype(np.float32)
    sample = {"image": np.zeros((200, 200, 3), np.uint8), "keypoints": keypoints, "box": np.array([50, 40, 100, 120], np.float32)}
    out = TopDownAffine(IMAGE, rotate=40, scale=0.2, shift=0.1, codec=codec)(dict(sample), rng)
    points = torch.from_numpy(out["keypoints"])[None]
    targets, _ = CODECS[codec].encode(points, (1, 40, *HEATMAP), IMAGE, SIGMA)
    task = Pose(model=lambda image: targets, labels=Labels(keypoints=tuple(map(str, range(40))), sigmas=(0.1,) * 40), codec=codec)
    found = task.predict_batch({"image": torch.zeros(1, 3, *IMAGE), "affine": torch.from_numpy(out["affine"])[None]})["keypoints"]
    error = np.linalg.norm(found[0, :, :2].numpy() - keypoints[:, :2], axis=1)
    assert error.max() < (0.1 if codec != "msra" else 2.5)


@pytest.mark.parametrize("codec", CODECS)
def test_a_box_fills_the_crop_on_the_grid_of_the_codec(codec):
    """Without padding, the edges of a box of the same aspect are at the edges of the crop. Flips mirror around its middle."""
    grid, box = GRIDS[codec], np.array([10.0, 20.0, 96.0, 128.0])
    step = TopDownAffine(IMAGE, padding=1.0, codec=codec)
    corners = np.array([[10, 20, 1], [106, 148, 1]]) + np.array([grid.start, grid.start, 0])
    expected = np.array([[grid.start] * 2, [192 - grid.less + grid.start, 256 - grid.less + grid.start]])
    np.testing.assert_allclose(corners @ step.matrix(box, 1.0, 0.0, (0, 0), False).T, expected, atol=1e-9)
    flipped = corners @ step.matrix(box, 1.0, 0.0, (0, 0), True).T
    np.testing.assert_allclose(flipped, np.stack([expected[::-1, 0], expected[:, 1]], 1), atol=1e-9)


def test_grids_of_codecs():
    """Heatmap pixel 3 of stride 4 is at these coordinates of an image of 192 columns."""
    places = {codec: GRIDS[codec].rescale(3.0, 48, 192) for codec in CODECS}
    assert places == {"fractional": 13.5, "msra": 12.0, "dark": 12.0, "udp": pytest.approx(3 * 191 / 47)}


def test_a_step_for_another_codec_is_refused():
    step = TopDownAffine((64, 64), codec="udp")
    with pytest.raises(InputError, match="TopDownAffine has codec='udp', and task.codec is 'msra'. Leave it out of the step"):
        step.set_codec("msra")
    with pytest.raises(InputError, match="codec is 'dart'; choices: fractional, msra, dark, udp"):
        TopDownAffine((64, 64), codec="dart")


def test_maxima_at_the_border_stay_in_the_map():
    heatmaps = torch.zeros(1, 2, 4, 4)
    heatmaps[0, 0, 0, 0], heatmaps[0, 1, 3, 3] = 1, 1
    assert CODECS["fractional"].decode(heatmaps, (16, 16), 2.0)[0].tolist() == [[1.5, 1.5, 1], [13.5, 13.5, 1]]
    assert CODECS["msra"].decode(heatmaps, (16, 16), 2.0)[0].tolist() == [[0, 0, 1], [12, 12, 1]]
    assert CODECS["dark"].decode(heatmaps, (16, 16), 2.0)[0].tolist() == [[0, 0, 1], [12, 12, 1]]


def test_heatmaps_without_a_peak_are_decoded():
    for value in (0.0, 0.3, -0.2):
        for codec in CODECS.values():
            assert codec.decode(torch.full((1, 2, 8, 6), value), (32, 24), 2.0).isfinite().all()


@pytest.mark.parametrize(("sigma", "radius"), [(1.0, 1), (1.5, 3), (2.0, 5), (3.0, 8)])
def test_the_kernel_of_the_blur_grows_with_sigma(sigma, radius):
    heatmap = torch.zeros(1, 1, 21, 21)
    heatmap[0, 0, 10, 10] = 0.7
    assert (blur(heatmap, sigma)[0, 0, 10] > 0).sum() == 2 * radius + 1 and blur(heatmap, sigma).max() == pytest.approx(0.7)


def test_scores_of_bins_are_relative_to_the_target():
    points = random_points(margin=20)[:, :5]
    targets, _ = CODECS["fractional"].encode(points, (1, 5, 896), IMAGE, 6.0)
    exact = CODECS["fractional"].decode(targets.clamp(min=1e-30).log(), IMAGE, 6.0)[..., 2]
    torch.testing.assert_close(exact, torch.ones(1, 5), atol=0.01, rtol=0)
    assert CODECS["fractional"].decode(torch.zeros(1, 5, 896), IMAGE, 6.0)[..., 2].max() < 0.1


def test_figures_of_bins_have_their_peak_at_the_keypoint():
    target, _ = CODECS["fractional"].encode(torch.tensor([[[30.0, 50.0, 2]]]), (1, 1, 224), (64, 48), 6.0)
    heat = draw_heatmaps(target.clamp(min=1e-30).log(), (64, 48), 6.0)
    assert heat.shape == (1, 128, 96) and divmod(int(heat.argmax()), 96) in ((100, 60), (100, 61), (101, 60), (101, 61))
    assert 0.9 < heat.max() <= 1.01


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_hard_keypoint_mining_averages_the_largest_losses_of_each_image():
    prediction, target = torch.rand(2, 4, 8, 6), torch.rand(2, 4, 8, 6)
    weight = torch.tensor([[1.0, 1, 0, 1], [1, 0, 0, 0]])
    each = 0.5 * ((prediction - target) * weight[..., None, None]).square().mean((2, 3))
    torch.testing.assert_close(heatmap_loss(prediction, target, weight, 2), each.sort(1, descending=True)[0][:, :2].mean())
    torch.testing.assert_close(heatmap_loss(prediction, target, weight, 4), heatmap_loss(prediction, target, weight))


def test_the_loss_of_bins_is_zero_at_the_target_and_counts_labeled_keypoints():
    points = random_points(margin=20)[:, :6] * torch.tensor([1, 1, 0.5])
    points[:, 3:, 2] = 0
    target, weight = CODECS["fractional"].encode(points, (1, 6, 896), IMAGE, 6.0)
    logits = target.clamp(min=1e-30).log()
    assert bin_loss(logits, target, weight, IMAGE) < 1e-6
    wrong = torch.zeros_like(logits)
    labeled = bin_loss(wrong, target, weight, IMAGE)
    wrong[:, 3:] = 100 * torch.rand(1, 3, 896)
    torch.testing.assert_close(bin_loss(wrong, target, weight, IMAGE), labeled)
    torch.testing.assert_close(bin_loss(wrong, target, weight, IMAGE, hardest=3), 2 * labeled)


# ---- the head and the task -------------------------------------------------------------------------------------------


def test_simcc_has_bins_for_columns_then_rows():
    head = SimCC(FeatureSpec((Level(8, 32),), 8), 5, image_size=(64, 96), split_ratio=1.5)
    out = head(Features((torch.randn(2, 8, 2, 3),)))
    assert [bins.shape for bins in split_bins(out, (64, 96))] == [(2, 5, 144), (2, 5, 96)]
    with pytest.raises(InputError, match="head 'simcc' classifies the coordinates in images of 64x96 pixels"):
        head(Features((torch.randn(2, 8, 4, 3),)))
    with pytest.raises(
        InputError, match=r"head.split_ratio is 1.3; the sides of the images \(64x96\) times it must be whole numbers"
    ):
        SimCC(FeatureSpec((Level(8, 32),), 8), 5, image_size=(64, 96), split_ratio=1.3)


def test_the_multiscale_head_joins_upsampled_maps():
    """The join is computed before upsampling; it is the convolution of the concatenated maps."""
    levels = (Level(4, 4), Level(8, 8), Level(16, 16))
    head = MultiscaleHeatmap(FeatureSpec(levels, 4, fused=True), 5).double().eval()
    maps = tuple(torch.rand(2, level.channels, 64 // level.stride, 32 // level.stride, dtype=torch.float64) for level in levels)
    joined = torch.cat([F.interpolate(x, (16, 8), mode="bilinear") for x in maps], dim=1)
    torch.testing.assert_close(head(Features(maps)), head.final_layer(F.relu(head.norm(head.join(joined)))), atol=1e-12, rtol=0)


LABELS = Labels(keypoints=("a", "b", "c"), flip_pairs=((0, 1),), sigmas=(0.05,) * 3)


def test_the_flip_test_swaps_and_moves_the_mirrored_output():
    """A network that returns a part of its image: the mean of both is the image again, if nothing is moved."""
    image = torch.rand(1, 3, 8, 6)
    for shape in ((8, 6), (14,)):

        def model(image, shape=shape):
            return image if len(shape) == 2 else torch.cat([image[:, :, 0], image[:, :, :, 0]], -1)

        task = Pose(model=model, labels=Labels(keypoints=("a", "b", "c"), sigmas=(0.1,) * 3), flip_test=True).eval()
        batch = {"image": image if len(shape) == 2 else (image + image.flip(-1)) / 2, "keypoints": torch.ones(1, 3, 3)}
        torch.testing.assert_close(task.evaluate_batch(batch)[1], model(batch["image"]))
    moved = Pose(model=lambda image: image, labels=LABELS, flip_test=True, codec="msra").eval()
    output = moved.evaluate_batch({"image": image, "keypoints": torch.ones(1, 3, 3)})[1]
    torch.testing.assert_close(output[:, :, :, 3], (image[:, :, :, 3] + image[:, [1, 0, 2], :, 2]) / 2)
    still = Pose(model=lambda image: image, labels=LABELS, flip_test=True, codec="msra", flip_shift=False).eval()
    output = still.evaluate_batch({"image": image, "keypoints": torch.ones(1, 3, 3)})[1]
    torch.testing.assert_close(output, (image + image[:, [1, 0, 2]]) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hard_keypoints": 4}, "task.hard_keypoints is 4; the data set has 3 keypoints"),
        ({"hard_keypoints": 2, "loss": torch.nn.Identity()}, "task.hard_keypoints is an option of the loss of the task"),
        ({"codec": "dart"}, "task.codec is 'dart'; choices: fractional, msra, dark, udp"),
        ({"keypoint_weights": [1.0, 2.0]}, "task.keypoint_weights has 2 factors; the data set has 3 keypoints"),
    ],
)
def test_options_that_do_not_fit_the_keypoints_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Pose(model=torch.nn.Identity(), labels=LABELS, **options)


def test_keypoint_weights_multiply_both_heatmaps():
    batch = {"image": torch.rand(1, 3, 32, 24), "keypoints": torch.tensor([[[5.0, 6, 2], [9, 9, 1], [3, 3, 0]]])}
    output = torch.rand(1, 3, 8, 6)
    losses = [
        Pose(model=lambda _: output, labels=LABELS, keypoint_weights=w).evaluate_batch(batch)[0] for w in ([1, 0, 1], [2, 0, 1])
    ]
    torch.testing.assert_close(losses[1], 4 * losses[0])
