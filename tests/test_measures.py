"""Targets, losses and metrics against expected values."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from spine.tasks.mae.losses import masked_pixel_loss, normalize_patches
from spine.tasks.mae.patches import patchify, unpatchify
from spine.tasks.pose.heatmaps import apply_affine, decode_heatmaps, gaussian_heatmaps, invert_affine
from spine.tasks.pose.losses import heatmap_loss
from spine.tasks.pose.metrics import KeypointScores
from spine.tasks.seg.metrics import scores_of_classes, segmentation_scores


def test_a_gaussian_has_its_maximum_at_the_keypoint():
    """Heatmap pixel i of stride 4 is at 4 * (i + 0.5) - 0.5: image coordinate 13.5 is pixel 3, 5.5 is pixel 1."""
    heatmaps, weight = gaussian_heatmaps(torch.tensor([[[13.5, 5.5, 2.0]]]), (8, 6), stride=4, sigma=1.5)
    assert heatmaps.shape == (1, 1, 8, 6) and weight.tolist() == [[1.0]]
    assert heatmaps[0, 0, 1, 3] == 1.0 and heatmaps.max() == 1.0
    assert heatmaps[0, 0, 1, 4] == pytest.approx(math.exp(-0.5 / 1.5**2))
    assert heatmaps[0, 0, 7, 3] == 0  # beyond three sigma


def test_unlabeled_and_outside_keypoints_have_weight_zero():
    points = torch.tensor([[[8.0, 8.0, 0.0], [-9.0, 8.0, 2.0], [8.0, 8.0, 1.0], [8.0, 31.4, 2.0], [8.0, 31.6, 2.0]]])
    _, weight = gaussian_heatmaps(points, (8, 8), stride=4, sigma=2)
    assert weight.tolist() == [[0, 0, 1, 1, 0]]


def test_decoding_is_exact_to_a_quarter_heatmap_pixel():
    points = torch.rand(50, 4, 2) * 50 + 6
    heatmaps, _ = gaussian_heatmaps(torch.cat([points, torch.full((50, 4, 1), 2.0)], -1), (16, 16), stride=4, sigma=2)
    error = (decode_heatmaps(heatmaps, 4)[..., :2] - points).abs()
    assert error.max() <= 1.0 + 1e-4 and error.mean() < 0.6  # a quarter of 4 pixels
    assert decode_heatmaps(heatmaps, 4)[..., 2].min() > 0.85


def test_decoding_at_the_border_does_not_leave_the_map():
    heatmaps = torch.zeros(1, 2, 4, 4)
    heatmaps[0, 0, 0, 0], heatmaps[0, 1, 3, 3] = 1, 1
    assert decode_heatmaps(heatmaps, 4)[0, :, :2].tolist() == [[1.5, 1.5], [13.5, 13.5]]


def test_affines_invert():
    affine = torch.tensor([[[1.2, -0.3, 5.0], [0.4, 0.9, -7.0]]])
    points = torch.rand(1, 6, 2) * 100
    torch.testing.assert_close(apply_affine(apply_affine(points, affine), invert_affine(affine)), points, atol=1e-4, rtol=0)


def test_patches_are_row_column_channel_in_raster_order():
    image = torch.arange(2 * 3 * 4 * 6).float().view(2, 3, 4, 6)
    patches = patchify(image, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[0, 1].view(2, 2, 3)[1, 0].tolist() == image[0, :, 1, 2].tolist()
    assert patches[0, 3].view(2, 2, 3)[0, 1].tolist() == image[0, :, 2, 1].tolist()
    assert torch.equal(unpatchify(patches, 2, (2, 3)), image)


def test_heatmap_loss_counts_visible_keypoints():
    prediction, target = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    weight = torch.tensor([[1.0, 0, 1], [0, 0, 1]])
    expected = sum(0.5 * ((prediction - target)[:, k] * weight[:, k, None, None]).square().mean() for k in range(3)) / 3
    torch.testing.assert_close(heatmap_loss(prediction, target, weight), expected)


def test_masked_loss_counts_masked_patches():
    prediction, target, patch_mask = torch.rand(1, 4, 12), torch.rand(1, 4, 12), torch.tensor([[True, False, False, True]])
    torch.testing.assert_close(
        masked_pixel_loss(prediction, target, patch_mask), (prediction - target).square()[:, [0, 3]].mean()
    )
    patches = normalize_patches(torch.rand(2, 5, 48) * 7)
    torch.testing.assert_close(patches.mean(-1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.var(-1, correction=1), torch.ones(2, 5), atol=1e-4, rtol=0)


def test_segmentation_scores_equal_torchmetrics_and_leave_out_absent_classes():
    truth, prediction = torch.randint(0, 4, (2, 20, 20)), torch.randint(0, 4, (2, 20, 20))
    truth[:, :5] = 255
    confusion = MulticlassConfusionMatrix(4, ignore_index=255)
    confusion.update(prediction, truth)
    scores = segmentation_scores(confusion.compute())
    each = MulticlassJaccardIndex(4, average="none", ignore_index=255)(prediction, truth)
    assert scores_of_classes(confusion.compute())["IoU"].tolist() == pytest.approx(each.tolist())
    assert scores["mIoU"] == pytest.approx(float(each.mean()))
    assert scores["aAcc"] == pytest.approx(float((truth == prediction)[truth != 255].float().mean()))
    counts = torch.tensor([[5, 5, 0], [0, 10, 0], [0, 0, 0]])
    absent = segmentation_scores(counts)
    assert absent["mIoU"] == pytest.approx((5 / 10 + 10 / 15) / 2) and math.isnan(scores_of_classes(counts)["IoU"][2])
    assert absent["mAcc"] == pytest.approx(0.75)


def keypoint_scores(shift, images=6):
    scores = KeypointScores((0.05,) * 4)
    for image in range(images):
        points = torch.rand(1, 4, 2) * 80 + 10
        target = torch.cat([points, torch.full((1, 4, 1), 2.0)], -1)
        prediction = torch.cat([points + shift, torch.ones(1, 4, 1)], -1)
        scores.update(prediction, target, torch.tensor([6400.0]), torch.tensor([[5.0, 5, 80, 80]]), torch.tensor([image]))
    return scores.compute()


def test_perfect_keypoints_score_one():
    values = keypoint_scores(0.0)
    assert values == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "PCK": 1, "NME": 0})


def test_keypoint_scores_follow_their_formulas():
    """A shift of 4 pixels each way: squared distance 32, OKS exp(-32 / (2 * area * (2 * sigma) ** 2)) = 0.7788."""
    values = keypoint_scores(4.0)
    oks = math.exp(-32 / (2 * 6400 * 0.1**2))
    passed = sum(oks >= threshold for threshold in np.arange(0.5, 1.0, 0.05))
    assert values["AP"] == pytest.approx(passed / 10, abs=1e-6)
    assert values["NME"] == pytest.approx(math.sqrt(32) / 80, rel=1e-5) and values["PCK"] == 1
    assert keypoint_scores(20.0)["PCK"] == 0 and keypoint_scores(20.0)["AP"] == 0


def test_unlabeled_keypoints_do_not_count():
    scores = KeypointScores((0.05,) * 2)
    target = torch.tensor([[[10.0, 10, 2], [0, 0, 0]]])
    prediction = torch.tensor([[[10.0, 10, 1], [500, 500, 1]]])
    scores.update(prediction, target, torch.tensor([100.0]), torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([1]))
    assert scores.compute() == pytest.approx({"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "PCK": 1, "NME": 0})
