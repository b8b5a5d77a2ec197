"""What BEiT's pre-training reads: block masks, and two views of a region of an image."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image
from recording import RECORDS
from recording_beit import to_hex
from test_beit import SMALL, a_batch, built, with_tokenizer
from test_configs import composed

from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.formats.shapes import Shapes
from spine.data.sampler import Draw
from spine.data.transforms import CenterRegion, RandomRegion, Resize, Transform, TwoViews
from spine.errors import InputError
from spine.tasks.beit.masking import BlockPatchMask

# ---- block masks -----------------------------------------------------------------------------------------------------


class PythonNumbers:
    """Random numbers of Python's generator, drawn by the calls that the authors' code makes."""

    def __init__(self, seed):
        self.random_state = random.Random(seed)

    def random(self):
        return self.random_state.random()

    def integers(self, low, high):
        return self.random_state.randint(low, high - 1)


@pytest.mark.parametrize("case", json.loads((RECORDS / "beit-masks.json").read_text())["cases"])
def test_the_same_numbers_give_the_masks_of_the_authors(case):
    mask = BlockPatchMask(tuple(case["grid"]), case["max_masked"], case["min_block"])
    assert len(case["masks"]) == 100
    for seed, expected in enumerate(case["masks"]):
        assert to_hex(mask.draw(PythonNumbers(seed))) == expected, seed


def test_the_mask_of_the_paper_has_75_of_196_patches_in_blocks_of_16_and_is_scaled():
    def scaled(*grid):
        mask = BlockPatchMask.scaled(grid, 75, 16)
        return mask.max_masked, mask.min_area

    assert scaled(14, 14) == (75, 16)
    assert scaled(24, 24) == (220, 16)  # the smallest block grows with no grid
    assert scaled(7, 7) == (19, 4)
    assert scaled(2, 2) == (2, 1)
    assert BlockPatchMask.scaled((14, 14), 40, 8).max_masked == 40


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (2, 2), (3, 2), (4, 4), (7, 5), (14, 14), (20, 30)])
def test_every_mask_has_a_masked_patch_and_no_more_than_allowed(grid):
    mask = BlockPatchMask.scaled(grid, 75, 16)
    counts = [int(mask(np.random.default_rng(seed)).sum()) for seed in range(200)]
    assert min(counts) >= 1 and max(counts) <= mask.max_masked


def test_masks_depend_on_seed_epoch_and_index_only():
    samples = built().data.transformed("train", training=True)
    masks = [samples[Draw(epoch, index)]["patch_mask"] for epoch, index in ((0, 0), (0, 0), (1, 0), (0, 1))]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2]) and not torch.equal(masks[0], masks[3])


# ---- two views -------------------------------------------------------------------------------------------------------


def noise(height=90, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_both_views_are_the_same_region_resized_with_two_filters():
    """Bicubic for the network, Lanczos for the tokenizer, as torchvision resizes a crop of a PIL image."""
    image, region = noise(), RandomRegion()
    steps = Transform([region, TwoViews((64, 48), (32, 24))], [0] * 3, [1] * 3)
    steps.prepare(Shapes.labels, frozenset({"image"}))
    for seed in range(20):
        top, left, height, width = region.draw(image.shape[:2], np.random.default_rng(seed))
        crop = Image.fromarray(image[top : top + height, left : left + width])
        sample = steps({"image": image}, np.random.default_rng(seed))
        first, second = (np.asarray(crop.resize((w, h), way)) for h, w, way in ((64, 48, 3), (32, 24, 1)))
        assert sample["tokenizer_image"].dtype == torch.uint8 and sample["tokenizer_image"].shape == (3, 32, 24)
        assert np.array_equal(sample["tokenizer_image"].permute(1, 2, 0), second)
        assert np.allclose(sample["image"].permute(1, 2, 0) * 255, first, atol=1e-4)


def test_regions_are_inside_the_image_and_have_the_areas_and_shapes_that_are_asked_for():
    region, rng = RandomRegion((0.2, 0.6), (0.75, 4 / 3)), np.random.default_rng(0)
    for _ in range(300):
        top, left, height, width = region.draw((90, 120), rng)
        assert 0 <= top <= 90 - height and 0 <= left <= 120 - width
        assert 0.19 < height * width / (90 * 120) < 0.61 and 0.73 < width / height < 1.36
    assert RandomRegion((1.0, 1.0)).draw((10, 90), rng) == (0, 38, 10, 13)  # no region fits: the largest one in the center


def test_evaluation_crops_the_center_with_the_shape_of_the_network():
    sample = CenterRegion((64, 32))({"image": noise()}, np.random.default_rng(0))
    assert np.array_equal(sample["image"], noise()[:, 37:82])  # 90 x 45 of 90 x 120
    assert CenterRegion((64, 32), 0.5)({"image": noise()}, np.random.default_rng(0))["image"].shape == (45, 22, 3)


def test_nothing_moves_pixels_after_the_views_are_made():
    transform = Transform([TwoViews((64, 64), (32, 32)), Resize((32, 32))], [0] * 3, [1] * 3)
    with pytest.raises(InputError, match="TwoViews makes both views of an image: put it after every other step"):
        transform.prepare(Shapes.labels, frozenset({"image"}))


def test_the_second_view_has_one_token_for_each_patch_of_the_network():
    completed = complete(composed(*with_tokenizer("image_size=[96,64]")))
    assert [completed["augment"][mode][-1]["second_size"] for mode in ("train", "eval")] == [[48, 32], [48, 32]]
    run = built("backbone=convnext", "image_size=[96,64]")
    batch = a_batch(run)
    assert batch["tokenizer_image"].shape == (4, 3, 24, 16) and batch["tokens"].shape == batch["patch_mask"].shape == (4, 6)


def test_the_augmentation_of_beit_works_for_other_tasks():
    run = build_run(complete(composed("task=mae", "augment=beit", *SMALL[2:])))
    assert "tokenizer_image" not in run.data.transformed("train", training=True)[Draw(0, 0)]
