"""Targets, losses and metrics against expected values."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from spine.interfaces import Labels
from spine.tasks.mae.losses import masked_pixel_loss, normalize_patches
from spine.tasks.mae.patches import patchify, unpatchify
from spine.tasks.pose.codecs import CODECS
from spine.tasks.pose.heatmaps import apply_affine, invert_affine
from spine.tasks.pose.losses import heatmap_loss
from spine.tasks.pose.metrics import KeypointEvaluation, KeypointScores, Protocol
from spine.tasks.seg.metrics import scores_of_classes, segmentation_scores


def test_a_gaussian_has_its_maximum_at_the_keypoint():
    """Heatmap pixel i of stride 4 is at 4 * (i + 0.5) - 0.5: image coordinate 13.5 is pixel 3, 5.5 is pixel 1."""
    heatmaps, weight = CODECS["fractional"].encode(torch.tensor([[[13.5, 5.5, 2.0]]]), (1, 1, 8, 6), (32, 24), sigma=1.5)
    assert heatmaps.shape == (1, 1, 8, 6) and weight.tolist() == [[1.0]]
    assert heatmaps[0, 0, 1, 3] == 1.0 and heatmaps.max() == 1.0
    assert heatmaps[0, 0, 1, 4] == pytest.approx(math.exp(-0.5 / 1.5**2))
    assert heatmaps[0, 0, 7, 3] == 0  # beyond three sigma


def test_unlabeled_and_outside_keypoints_have_weight_zero():
    points = torch.tensor([[[8.0, 8.0, 0.0], [-9.0, 8.0, 2.0], [8.0, 8.0, 1.0], [8.0, 31.4, 2.0], [8.0, 31.6, 2.0]]])
    _, weight = CODECS["fractional"].encode(points, (1, 5, 8, 8), (32, 32), sigma=2)
    assert weight.tolist() == [[0, 0, 1, 1, 0]]


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


def score(objects, count=4):
    """Returns the metrics of objects: prediction (K, 3), target (K, 3), area and box, each in an image of its own."""
    scores = KeypointScores(count)
    for image, (prediction, target, area, box) in enumerate(objects):
        number = torch.tensor([image])
        scores.update(
            prediction=prediction[None], target=target[None], area=torch.tensor([area]), box=torch.tensor([box]), image_id=number,
            index=number,
        )  # fmt: skip
    labels = Labels(keypoints=tuple("abcd"[:count]), sigmas=(0.05,) * count)
    values = KeypointEvaluation(scores.compute(), labels, Protocol()).metrics()
    return {name: values[name] for name in ("AP", "AP50", "AP75", "AR", "PCK", "NME")}


def shifted(shift, images=6):
    objects = []
    for _ in range(images):
        points = torch.rand(4, 2) * 80 + 10
        target = torch.cat([points, torch.full((4, 1), 2.0)], -1)
        objects.append((torch.cat([points + shift, torch.ones(4, 1)], -1), target, 6400.0, [5.0, 5, 80, 80]))
    return score(objects)


PERFECT = {"AP": 1, "AP50": 1, "AP75": 1, "AR": 1, "PCK": 1, "NME": 0}


def test_perfect_keypoints_score_one():
    assert shifted(0.0) == pytest.approx(PERFECT)


def test_keypoint_scores_follow_their_formulas():
    """A shift of 4 pixels each way: squared distance 32, OKS exp(-32 / (2 * area * (2 * sigma) ** 2)) = 0.7788."""
    values = shifted(4.0)
    oks = math.exp(-32 / (2 * 6400 * 0.1**2))
    passed = sum(oks >= threshold for threshold in np.arange(0.5, 1.0, 0.05))
    assert values["AP"] == pytest.approx(passed / 10, abs=1e-6)
    assert values["NME"] == pytest.approx(math.sqrt(32) / 80, rel=1e-5) and values["PCK"] == 1
    assert shifted(20.0)["PCK"] == 0 and shifted(20.0)["AP"] == 0


def test_unlabeled_keypoints_do_not_count():
    target, prediction = torch.tensor([[10.0, 10, 2], [0, 0, 0]]), torch.tensor([[10.0, 10, 1], [500, 500, 1]])
    assert score([(prediction, target, 100.0, [0.0, 0, 20, 20])], 2) == pytest.approx(PERFECT)
