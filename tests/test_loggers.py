"""Figures and loggers."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from spine.reporting.curves import curves
from spine.reporting.figures import image_rows, palette
from spine.tasks.cls.plots import classification, confusion
from spine.tasks.pose.plots import keypoints
from spine.tasks.seg.plots import segmentation
from spine.training.figures import render


def test_ignored_pixels_are_white_and_classes_have_distinct_colors():
    colors = palette(5)
    assert colors[255].tolist() == [1, 1, 1]
    assert len({tuple(color) for color in colors[:5].tolist()}) == 5


@pytest.mark.parametrize("count", [1, 3, 9])
def test_figures_accept_any_number_of_images(count):
    images = np.random.default_rng(0).integers(0, 255, (count, 20, 30, 3), np.uint8)
    masks = np.random.default_rng(1).integers(0, 3, (count, 20, 30))
    points = np.random.default_rng(2).uniform(0, 19, (count, 4, 3))
    figures = [
        segmentation(images, masks, masks, ("a", "b", "c")),
        classification(images, [0] * count, [1] * count, ("a", "b")),
        keypoints(images, points, points, np.random.rand(count, 5, 7), ((0, 1),)),
        image_rows({"one": images, "two": images}),
        confusion(np.eye(3), ("a", "b", "c")),
        curves({"train/loss": [(0, 1.0), (1, 0.5)], "val/loss": [(0, 1.1)], "val/top1": [(0, 0.2), (1, 0.4)]}),
    ]
    for figure in figures:
        assert isinstance(figure, Figure)
        assert render(figure).std() > 1


def test_curves_hide_unused_panels():
    figure = curves({f"val/m{i}": [(0, 1.0)] for i in range(4)})
    assert [axis.get_visible() for axis in figure.axes] == [True] * 4 + [False] * 2
