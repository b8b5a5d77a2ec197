"""Losses of segmentation: their values are those of the formulas of the papers, written as loops over valid pixels, and those of
mmsegmentation (recording_segmentation_losses.py).
"""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spine.config.instantiate import instantiate
from spine.errors import InputError
from spine.layers.weighted_loss import WeightedLoss
from spine.tasks.seg.losses import BinaryCrossEntropy, CrossEntropy, Dice, Focal, Lovasz, OhemCrossEntropy

RECORD = json.loads((Path(__file__).with_name("records") / "segmentation_losses.json").read_text())["losses"]
CLASSES, IGNORED = 5, 255
OF_LAYERS = [
    BinaryCrossEntropy([1.0, 2.0, 3.0, 4.0, 5.0]), Dice(), Dice(squared=False), Lovasz(per_image=True),
    Focal(class_weight=[1.0, 2.0, 3.0, 4.0, 5.0]),
]  # fmt: skip
LOSSES = [
    CrossEntropy([1.0, 2.0, 3.0, 4.0, 5.0], 0.1), CrossEntropy(average="all"), OhemCrossEntropy(0.2, 5),
    OhemCrossEntropy(None, 10, average="all"), Lovasz(), Lovasz("all", per_image=True), *OF_LAYERS,
]  # fmt: skip
WEIGHTS = [1.0, 2.0, 0.5, 4.0, 3.0]
RECORDED = {  # our loss, and the masks: without or with ignored pixels, or of each class
    "cross entropy": (CrossEntropy(), "ignored"),
    "cross entropy, all": (CrossEntropy(average="all"), "ignored"),
    "cross entropy, weights": (CrossEntropy(WEIGHTS), "mask"),
    "binary cross entropy": (BinaryCrossEntropy(), "ignored"),
    "binary cross entropy, all": (BinaryCrossEntropy(average="all"), "ignored"),
    "binary cross entropy of layers": (BinaryCrossEntropy(), "layers"),
    "ohem": (OhemCrossEntropy(0.2, 100, average="all"), "ignored"),
    "ohem, labeled": (OhemCrossEntropy(0.2, 100, average="labeled"), "ignored"),
    "ohem, min_kept": (OhemCrossEntropy(0.01, 700, average="all"), "ignored"),
    "ohem, no threshold": (OhemCrossEntropy(None, 300, average="all"), "ignored"),
    "dice": (Dice(), "mask"),
    "dice, sigmoid": (Dice(sigmoid=True), "mask"),
    "dice, naive": (Dice(squared=False), "mask"),
    "dice of layers": (Dice(), "layers"),
    "lovasz": (Lovasz(), "ignored"),
    "lovasz, images": (Lovasz(per_image=True), "ignored"),
    "lovasz, all": (Lovasz("all"), "ignored"),
    "lovasz of layers": (Lovasz(), "layers"),
    "focal": (Focal(alpha=0.25), "mask"),
    "focal, weights": (Focal(1.5, class_weight=WEIGHTS), "mask"),
    "focal, ignored": (Focal(), "ignored"),
    "focal, ignored, all": (Focal(average="all"), "ignored"),
    "focal of layers": (Focal(), "layers"),
}


@pytest.fixture
def example():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, CLASSES, 6, 7, dtype=torch.float64, generator=generator)
    mask = torch.randint(0, CLASSES - 1, (2, 6, 7), generator=generator)  # the last class is absent
    mask[0, :2] = IGNORED
    return logits.requires_grad_(), mask


def recorded_examples():
    """Logits and masks of the records."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(2, CLASSES, 40, 48, generator=generator, dtype=torch.float64)
    mask = torch.randint(0, CLASSES - 1, (2, 40, 48), generator=generator)
    ignored = mask.clone()
    ignored[0, :7] = IGNORED
    layers = torch.randint(0, 2, (2, CLASSES, 40, 48), generator=generator)
    return logits, {"mask": mask, "ignored": ignored, "layers": layers.to(torch.uint8)}


@pytest.mark.parametrize("name", RECORD)
def test_losses_are_those_of_mmsegmentation(name):
    logits, masks = recorded_examples()
    loss, mask = RECORDED[name]
    assert loss(logits, masks[mask]).item() == pytest.approx(RECORD[name], rel=1e-9)


def layers_of(mask):
    """Masks of each class (B, classes, H, W) of class indices, ignored where these are."""
    layers = (mask[:, None] == torch.arange(CLASSES)[:, None, None]).to(torch.uint8)
    return layers.masked_fill((mask == IGNORED)[:, None], IGNORED)


@pytest.mark.parametrize(
    "loss", [BinaryCrossEntropy(), Dice(sigmoid=True), Focal(class_weight=WEIGHTS)], ids=lambda loss: type(loss).__name__
)
def test_masks_of_each_class_that_do_not_overlap_have_the_loss_of_class_indices(example, loss):
    logits, mask = example
    assert_equal(loss(logits, layers_of(mask)), loss(logits, mask), logits)


def test_binary_cross_entropy_is_pytorchs(example):
    logits, mask = example
    pixels, labels = labeled_pixels(logits, mask)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(pixels, F.one_hot(labels, CLASSES).double(), pos_weight=weights)
    assert_equal(BinaryCrossEntropy(WEIGHTS)(logits, layers_of(mask)), expected, logits)


def test_the_lovasz_hinge_is_that_of_the_labeled_pixels_of_each_class(example):
    logits, mask = example
    pixels, labels = labeled_pixels(logits, mask)
    losses = []
    for index in range(CLASSES):
        truth = (labels == index).double()
        order = (1 - pixels[:, index] * (2 * truth - 1)).sort(descending=True)
        jaccard = 1 - (truth.sum() - truth[order.indices].cumsum(0)) / (truth.sum() + (1 - truth[order.indices]).cumsum(0))
        losses.append(order.values.clamp(min=0) @ torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]]))
    assert_equal(Lovasz()(logits, layers_of(mask)), torch.stack(losses).mean(), logits)


@pytest.mark.parametrize("loss", OF_LAYERS, ids=lambda loss: type(loss).__name__)
def test_one_class_may_be_ignored_where_another_is_labeled(loss, example):
    logits, mask = example
    layers = layers_of(mask)
    layers[:, 1, :, :3] = IGNORED
    gradient = torch.autograd.grad(loss(logits, layers), logits)[0]
    assert gradient[layers == IGNORED].abs().max() == 0 and gradient[:, 2, 2:, :3].abs().sum() > 0
    value = loss(logits, torch.full_like(layers, IGNORED))
    assert value.item() == 0 and torch.autograd.grad(value, logits)[0].abs().max() == 0


def labeled_pixels(logits, mask):
    """Logits (N, classes) and labels (N,) of the labeled pixels."""
    labeled = mask.flatten() != IGNORED
    return logits.permute(0, 2, 3, 1).flatten(0, 2)[labeled], mask.flatten()[labeled]


def assert_equal(loss, expected, logits):
    """The values are equal, and so are the gradients."""
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found, wanted = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (loss, expected))
    assert torch.allclose(found, wanted, rtol=1e-10, atol=1e-14)


def lovasz_of_class(errors, truth):
    """Algorithm 1 of arXiv 1705.08790."""
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    jaccard = 1 - (truth.sum() - truth.cumsum(0)) / (truth.sum() + (1 - truth).cumsum(0))
    return errors @ torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def lovasz(logits, labels, present_only=True):
    probability = logits.softmax(1)
    truths = [(labels == index).double() for index in range(CLASSES)]
    losses = [
        lovasz_of_class((truth - probability[:, index]).abs(), truth)
        for index, truth in enumerate(truths)
        if truth.any() or not present_only
    ]
    return torch.stack(losses).mean()


def test_lovasz_averages_the_present_classes_of_the_batch(example):
    logits, mask = example
    assert_equal(Lovasz()(logits, mask), lovasz(*labeled_pixels(logits, mask)), logits)


def test_lovasz_of_images_is_the_mean_of_their_losses(example):
    logits, mask = example
    expected = [lovasz(*labeled_pixels(logits[i : i + 1], mask[i : i + 1]), present_only=False) for i in range(2)]
    assert_equal(Lovasz("all", per_image=True)(logits, mask), torch.stack(expected).mean(), logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_pytorchs_weighted_mean(example, smoothing):
    logits, mask = example
    weights = torch.arange(1.0, CLASSES + 1)
    expected = F.cross_entropy(logits, mask, weights.double(), ignore_index=IGNORED, label_smoothing=smoothing)
    assert_equal(CrossEntropy(weights.tolist(), smoothing)(logits, mask), expected, logits)


@pytest.mark.parametrize("min_kept", [1, 10, 25, 1000])
def test_ohem_keeps_pixels_below_the_threshold_and_at_least_min_kept(example, min_kept):
    logits, mask = example
    pixels, labels = labeled_pixels(logits, mask)
    probability = pixels.softmax(1).gather(1, labels[:, None])[:, 0]
    threshold = max(probability.sort().values[min(2 * min_kept, len(labels) - 1)].item(), 0.2)
    hard = F.cross_entropy(pixels, labels, reduction="none")[probability < threshold]
    assert_equal(OhemCrossEntropy(0.2, min_kept)(logits, mask), hard.mean(), logits)
    assert_equal(OhemCrossEntropy(0.2, min_kept, average="all")(logits, mask), hard.sum() / mask.numel(), logits)


def test_ohem_without_a_threshold_keeps_the_highest_losses(example):
    logits, mask = example
    losses = F.cross_entropy(*labeled_pixels(logits, mask), reduction="none")
    assert_equal(OhemCrossEntropy(None, 10)(logits, mask), losses.topk(20).values.mean(), logits)


def test_focal_with_gamma_0_is_half_of_binary_cross_entropy(example):
    logits, mask = example
    pixels, labels = labeled_pixels(logits, mask)
    target = F.one_hot(labels, CLASSES).double()
    assert_equal(Focal(gamma=0.0)(logits, mask), F.binary_cross_entropy_with_logits(pixels, target) / 2, logits)
    easy = 1 - torch.where(target > 0, pixels.sigmoid(), 1 - pixels.sigmoid())
    losses = F.binary_cross_entropy_with_logits(pixels, target, reduction="none") * easy**2
    expected = (losses * torch.where(target > 0, 0.25, 0.75)).mean()
    assert_equal(Focal(gamma=2.0, alpha=0.25)(logits, mask), expected, logits)


def test_dice_is_that_of_the_labeled_pixels_of_each_image(example):
    logits, mask = example
    losses = []
    for i in range(2):
        pixels, labels = labeled_pixels(logits[i : i + 1], mask[i : i + 1])
        probability, target = pixels.softmax(1), F.one_hot(labels, CLASSES)
        losses.append(1 - 2 * (probability * target).sum() / ((probability**2).sum() + (target**2).sum() + 2e-3))
    assert_equal(Dice()(logits, mask), torch.stack(losses).mean(), logits)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_batch_without_labels_has_no_loss_and_no_gradient(loss, example):
    logits, mask = example
    value = loss(logits, torch.full_like(mask, IGNORED))
    assert value.item() == 0
    assert torch.autograd.grad(value, logits)[0].abs().max() == 0


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_ignored_pixels_have_no_gradient(loss, example):
    logits, mask = example
    gradient = torch.autograd.grad(loss(logits, mask), logits)[0]
    assert gradient.abs().sum() > 0 and gradient.movedim(1, -1)[mask == IGNORED].abs().max() == 0


def test_a_list_in_the_configuration_is_a_weighted_sum(example):
    node = {
        "_target_": "spine.tasks.seg.task.Segmentation",
        "loss": [
            {"_target_": "spine.tasks.seg.losses.CrossEntropy"},
            {"_target_": "spine.tasks.seg.losses.Lovasz", "weight": 0.5},
        ],
    }
    loss = instantiate("task", node, model=torch.nn.Identity(), labels=labels_of_classes()).loss
    assert isinstance(loss, WeightedLoss)
    assert loss(*example).item() == pytest.approx((CrossEntropy()(*example) + 0.5 * Lovasz()(*example)).item(), rel=1e-12)


def labels_of_classes():
    from spine.interfaces import Labels

    return Labels(mask_classes=tuple(map(str, range(CLASSES))))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"_target_": "spine.tasks.seg.losses.Lovas"}, "Did you mean 'spine.tasks.seg.losses.Lovasz'"),
        ({"_target_": "spine.tasks.seg.losses.Focal", "gama": 1.0}, "gama"),
        ({"_target_": "spine.tasks.seg.losses.Focal", "gamma": -1.0}, "gamma is -1.0; it must be 0 or more"),
        ({"_target_": "spine.tasks.seg.losses.Lovasz", "classes": "some"}, "one of present, all"),
        ([{"_target_": "spine.tasks.seg.losses.Lovasz", "weight": "high"}], "a factor, 0 or more"),
        ({"_target_": "torch.nn.CrossEntropyLoss"}, "is not allowed"),
    ],
)
def test_mistakes_in_losses_are_explained(loss, message):
    node = {"_target_": "spine.tasks.seg.task.Segmentation", "loss": loss}
    with pytest.raises(InputError, match=message):
        instantiate("task", node, model=torch.nn.Identity(), labels=labels_of_classes())


def test_class_weights_must_have_the_number_of_classes(example):
    with pytest.raises(InputError, match="class_weight has 2 numbers, but there are 5 classes"):
        CrossEntropy([1.0, 2.0])(*example)
