"""Scores, averages, counts and metrics of segmentation equal mmsegmentation's (recording_segmentation_inference.py)."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassConfusionMatrix

from spine.data.collation import collate
from spine.errors import InputError
from spine.interfaces import Labels
from spine.layers.image_sizes import images_by_size
from spine.tasks.seg.boundaries import BoundaryCounts, boundary_iou, near_boundary
from spine.tasks.seg.inference import Inference, default_stride, starts
from spine.tasks.seg.metrics import scores_of_classes, segmentation_scores
from spine.tasks.seg.task import Segmentation

RECORD = json.loads((Path(__file__).with_name("records") / "segmentation_inference.json").read_text())
CLASSES = 5


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(image):
    """The features of mmsegmentation's records."""
    return F.conv2d(image, drawn(1, CLASSES, 3, 7, 7), stride=4, padding=3)


def scores_of(inference, image, size):
    ((row, scores),) = inference.scores(network, {"image": image[None]}, [tuple(size)])
    assert row == 0
    return scores


@pytest.mark.parametrize("name", RECORD["cases"])
def test_scores_equal_those_of_mmsegmentation(name):
    case = RECORD["cases"][name]
    options = {"multiple": case["multiple"], "align_corners": case.get("align_corners", False)}
    if case["slide"]:
        options |= {"mode": "slide", "crop_size": tuple(case["slide"]["crop"]), "crop_stride": tuple(case["slide"]["stride"])}
    scores = scores_of(Inference(**options), drawn(2, 3, *case["image"]), case["original"])
    assert list(scores.shape) == case["shape"] and scores.dtype == torch.float64
    expected = torch.tensor(case["scores"], dtype=torch.float64)
    torch.testing.assert_close(scores.flatten()[:: RECORD["step"]], expected, rtol=1e-9, atol=1e-9)
    assert scores.argmax(0).flatten()[:: RECORD["step"]].tolist() == case["classes"]


def test_logits_are_resized_as_the_head_resizes_maps():
    """In training and evaluation."""
    weight = drawn(1, CLASSES, 3, 7, 7)

    class Head(torch.nn.Module):
        align_corners = True

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = Head()

        def forward(self, image):
            return F.conv2d(image, weight, stride=4, padding=3)

    task = Segmentation(model=Net(), labels=Labels(mask_classes=tuple("abcde")))
    batch = {"image": drawn(2, 1, 3, 40, 60), "mask": torch.zeros(1, 40, 60, dtype=torch.int64)}
    expected = F.interpolate(task.model(batch["image"]).float(), (40, 60), mode="bilinear", align_corners=True)
    torch.testing.assert_close(task.evaluate_batch(batch)[1], expected)
    assert torch.equal(task.validate_batch(batch)[1][0].long(), expected[0].argmax(0))


def test_averaged_views_predict_the_classes_of_mmsegmentation():
    views = RECORD["views"]
    inference = Inference(scales=tuple(views["scales"]), flip=True)
    scores = scores_of(inference, drawn(3, *views["image"], 3).permute(2, 0, 1), views["original"])
    torch.testing.assert_close(scores.exp().sum(0), torch.ones(*views["original"], dtype=torch.float64))
    assert scores.argmax(0).flatten().tolist() == views["classes"]


def random_masks():
    generator = torch.Generator().manual_seed(4)
    truth, noise = torch.randint(0, 4, (3, 20, 30), generator=generator), torch.rand(3, 20, 30, generator=generator)
    prediction = torch.where(noise < 0.5, truth, torch.randint(0, 3, (3, 20, 30), generator=generator))
    truth[:, :3] = 255
    return prediction, truth


def test_counts_and_metrics_equal_those_of_mmsegmentation_and_of_numpy():
    prediction, truth = random_masks()
    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255, validate_args=False)
    metric.update(prediction, truth)
    confusion = metric.compute()
    labeled = truth.numpy() != 255
    counted = np.zeros((CLASSES, CLASSES), int)
    np.add.at(counted, (truth.numpy()[labeled], prediction.numpy()[labeled]), 1)
    assert confusion.tolist() == counted.tolist()
    counts = RECORD["masks"]["counts"]
    assert counts["intersection"] == counted.diagonal().tolist() and counts["truth"] == counted.sum(1).tolist()
    assert counts["prediction"] == counted.sum(0).tolist()
    theirs, own = RECORD["masks"]["metrics"], segmentation_scores(confusion)
    for ours, name in (("mIoU", "IoU"), ("mAcc", "Acc"), ("mDice", "Dice")):
        assert own[ours] == pytest.approx(np.nanmean(theirs[name]), rel=1e-6), name
    assert own["aAcc"] == pytest.approx(theirs["aAcc"], rel=1e-6)
    for ours, name in (("IoU", "IoU"), ("accuracy", "Acc"), ("Dice", "Dice"), ("precision", "Precision")):
        np.testing.assert_allclose(scores_of_classes(confusion)[ours], theirs[name], rtol=1e-6)


def test_crops_cover_an_image_and_end_at_its_border():
    assert starts(100, 40, 30) == [0, 30, 60] and starts(101, 40, 30) == [0, 30, 60, 61]
    assert starts(40, 40, 27) == starts(30, 40, 27) == [0]
    assert default_stride((512, 640)) == (341, 426)  # the strides of OpenMMLab's configurations


def test_sliding_inference_gets_one_crop_at_a_time():
    sizes = []

    def seen(image):
        sizes.append(tuple(image.shape))
        return network(image)

    inference = Inference("slide", (32, 48), (20, 40), scales=(1.0, 0.5), flip=True, multiple=16)
    batch = {"image": drawn(5, 2, 3, 64, 100), "image_size": torch.tensor([[50, 100], [64, 31]])}
    found = {row: scores.shape for row, scores in inference.scores(seen, batch, [(50, 100), (64, 31)])}
    assert found == {0: (CLASSES, 50, 100), 1: (CLASSES, 64, 31)}
    assert all(size[0] == 1 and size[2] <= 32 and size[3] <= 48 for size in sizes)
    assert len(sizes) == inference.count_passes(batch)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"mode": "slide", "crop_size": (24, 24), "crop_stride": (16, 16)}])
def test_the_scores_of_an_image_do_not_depend_on_its_batch(options):
    images, originals = [drawn(i, 3, 40 - 8 * (i % 2), 30 + 4 * i) for i in range(4)], [(50, 60), (41, 33), (50, 60), (7, 90)]
    samples = [{"image": image, "image_size": torch.tensor(image.shape[1:])} for image in (*images[:3], images[2])]
    batch, inference = collate(samples), Inference(**options, multiple=8)
    found = dict(inference.scores(network, batch, originals))
    assert sorted(found) == [0, 1, 2, 3] and len(list(images_by_size(batch))) == 3
    for row in range(4):
        torch.testing.assert_close(
            found[row], scores_of(inference, samples[row]["image"], originals[row]), rtol=1e-12, atol=1e-12
        )


def test_crops_with_gaps_between_them_are_refused():
    with pytest.raises(InputError, match=r"task.crop_stride is \[40, 20\], larger than task.crop_size=\[32, 32\]"):
        Inference("slide", (32, 32), (40, 20))


# ---- boundaries ------------------------------------------------------------------------------------------------------


def boundary_of_class(mask, width):
    """A class's pixels minus those that remain after `width` erosions by 3x3, with nothing outside of the image (the paper's code)."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return mask & ~cv2.erode(framed, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1].astype(bool)


@pytest.mark.parametrize("width", [1, 4])
def test_pixels_near_boundaries_are_those_of_the_papers_code(width):
    mask = cv2.resize(np.random.default_rng(0).integers(0, 4, (6, 8), np.uint8), (80, 60), interpolation=cv2.INTER_NEAREST)
    near = near_boundary(mask, width)
    for value in range(4):
        np.testing.assert_array_equal(near & (mask == value), boundary_of_class(mask == value, width))


def test_boundary_iou_is_one_for_equal_masks_and_follows_its_definition():
    rng = np.random.default_rng(1)
    truth, prediction = (
        cv2.resize(rng.integers(0, 3, (5, 6), np.uint8), (60, 50), interpolation=cv2.INTER_NEAREST) for _ in range(2)
    )
    truth[:10, :10] = 255
    metric = BoundaryCounts(4, width=0.04)
    padded = [F.pad(torch.from_numpy(mask)[None], (0, 7, 0, 9), value=255) for mask in (prediction, truth)]
    metric.update(*padded, [truth.shape])
    found, width = boundary_iou(metric.compute()), round(0.04 * math.hypot(50, 60))
    masked = np.where(truth == 255, 255, prediction)
    for value in range(3):
        one, two = (boundary_of_class(mask == value, width) for mask in (masked, truth))
        assert float(found[value]) == pytest.approx((one & two).sum() / (one | two).sum())
    assert math.isnan(found[3])
    metric.reset()
    metric.update(padded[1], padded[1], [truth.shape])
    assert boundary_iou(metric.compute())[:3].tolist() == [1, 1, 1]
