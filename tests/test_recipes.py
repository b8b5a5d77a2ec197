"""The experiments of papers do what the authors' training code does (docs/recipes.md). Nothing is trained: their plans are compared.

tests/records/recipes holds what the authors' code computed, by the names of spine's parameters.
"""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import nn

from spine.config import resolving
from spine.config.checks import prepare
from spine.config.planning import make_plan
from spine.data.transforms import Mixing, RandAugment, RandomErasing
from spine.errors import InputError
from spine.models.assembly import network_of

CONF = Path(__file__).parents[1] / "conf"
RECORDS = Path(__file__).parent / "records" / "recipes"
IMAGENET = 1_281_167  # training images of ImageNet-1k
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
RECORDED = sorted(path.stem for path in RECORDS.glob("*.json"))

# Differences on purpose (docs/recipes.md). Parameters with another weight decay, as regular expressions:
DIFFERING_DECAY = {
    # the PyTorch code finds norms by "bn" in their names; the command of the released weights gives none of them weight decay
    "resnest50_imagenet1k": r"downsample\.|^backbone\.conv1\.",
}
# Parameters of spine's network alone, and of theirs alone:
DIFFERING_PARAMETERS = {"vit_base_coco": ({"backbone.cls_token"}, {"backbone.norm.weight", "backbone.norm.bias"})}
DIFFERING_NORMALIZATION = ("beit_base_imagenet1k_finetune",)  # mean and std of the pre-training on ImageNet-1k
LARGE = {  # networks whose plans take seconds
    "segnext_small_ade20k", "segnext_base_ade20k", "segnext_large_ade20k", "segnext_tiny_cityscapes", "hrnet_w48_cityscapes",
    "upernet_beit_base_ade20k", "upernet_convnext_tiny_ade20k", "hrnet_w32_coco_384x288", "hrnet_w48_coco_256x192",
    "hrnet_w48_coco_384x288", "hrnet_w32_mpii", "resnest50_coco", "vit_base_coco", "hrnet_w32_coco_256x192", "hrnet_w32_imagenet1k",
    "segnext_tiny_ade20k",
}  # fmt: skip
DEFAULTS = {"prob": 1.0, "switch_prob": 0.5, "mode": "batch"}  # of Mixing


@cache
def planned(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment={name}"])
    samples = record(name).get("samples", IMAGENET) if name in RECORDED else IMAGENET
    return make_plan(resolving.to_plain(cfg), samples)


def record(name):
    return json.loads((RECORDS / f"{name}.json").read_text())


def recorded(key=None):
    """The recorded experiments, or those whose record has `key`, as parameters of a test."""
    names = [name for name in RECORDED if key is None or record(name)[key] is not None]
    return [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_plan_of_every_experiment_is_built(name):
    plan = planned(name)
    assert plan.parameters > 0 and plan.steps > 0 and plan.parameter_groups
    json.dumps(plan.to_json())


def test_every_experiment_of_authors_code_has_a_record():
    papers = {name for name in EXPERIMENTS if re.search(r"_imagenet1k|_coco($|_\d)|_mpii|_ade20k|_cityscapes|_voc", name)}
    without = papers - set(RECORDED)
    assert without == {  # no public training code, or code for TensorFlow 1 or Caffe only
        "beit_base_imagenet1k_tokenizer", "mobilenet_v2_w100_imagenet1k", "mobilenet_v3_large_100_imagenet1k",
        "vgg16_imagenet1k", "xception_imagenet1k", "aspp_xception_voc", "parsenet_voc",
    }  # fmt: skip


@pytest.mark.parametrize("name", recorded())
def test_learning_rates_are_those_of_the_authors(name):
    plan, expected = planned(name), record(name)
    assert plan.steps == expected["steps"]
    steps, rates = zip(*expected["learning_rates"], strict=True)
    highest = max(rates)
    assert dict(plan.learning_rates) == pytest.approx(dict(zip(steps, rates, strict=True)), rel=1e-9, abs=1e-12 * highest)


@pytest.mark.parametrize("name", recorded("parameter_groups"))
def test_parameter_groups_are_those_of_the_authors(name):
    plan = planned(name).parameter_groups
    expected = {
        parameter: (group["lr_scale"], group["weight_decay"])
        for group in record(name)["parameter_groups"]
        for parameter in group["parameters"]
    }
    ours, theirs = DIFFERING_PARAMETERS.get(name, (set(), set()))
    assert plan.keys() - expected.keys() == ours and expected.keys() - plan.keys() == theirs
    differing = {
        parameter: ((own["lr_scale"], own["weight_decay"]), expected[parameter])
        for parameter, own in plan.items()
        if parameter not in ours and (own["lr_scale"], own["weight_decay"]) != pytest.approx(expected[parameter], rel=1e-12)
    }
    allowed = DIFFERING_DECAY.get(name)
    assert [parameter for parameter in differing if allowed is None or not re.search(allowed, parameter)] == []
    assert bool(differing) == (allowed is not None)


def test_matrices_alone_have_weight_decay_in_segnext():
    """VAN's code, whose network has other names."""
    decay, plan = record("segnext_tiny_imagenet1k")["weight_decay_of_matrices"], planned("segnext_tiny_imagenet1k")
    with torch.device("meta"):
        shapes = {name: each.squeeze().shape for name, each in network_of(plan.config, 1000).build().named_parameters()}
    assert {name: own["weight_decay"] for name, own in plan.parameter_groups.items()} == {
        name: decay if len(shape) > 1 else 0.0 for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name", ["mobilenet_v2_w100_imagenet1k", "mobilenet_v3_large_100_imagenet1k", "aspp_xception_voc"])
def test_depthwise_convolutions_have_no_weight_decay_in_recipes_of_tensorflow(name):
    """slim's mobilenet.py, `training_scope`, and DeepLab's xception.py: conv2d is regularized, a depthwise convolution is not."""
    plan = planned(name)
    with torch.device("meta"):
        modules = network_of(plan.config, 1000).build().named_modules()
    layers = {f"{path}.weight": each for path, each in modules if isinstance(each, nn.Conv2d | nn.Linear)}
    depthwise = {path for path, each in layers.items() if isinstance(each, nn.Conv2d) and each.groups > 1}
    assert {path for path, own in plan.parameter_groups.items() if own["weight_decay"] > 0} == layers.keys() - depthwise


@pytest.mark.parametrize("name", recorded("drop_path"))
def test_drop_paths_are_those_of_the_authors(name):
    rates = [rate for rate in planned(name).drop_path.values() if rate > 0]
    assert rates == pytest.approx([rate for rate in record(name)["drop_path"] if rate > 0], rel=1e-6)


@pytest.mark.parametrize("name", recorded())
def test_moving_averages_and_clipping_are_those_of_the_authors(name):
    plan, expected = planned(name), record(name)
    assert plan.ema_decay == expected["ema_decay"]
    assert plan.config["trainer"]["gradient_clip_val"] == expected["clip"]


def step(plan, name):
    """Returns the options of a transform of the training images."""
    (node,) = [node for node in plan.train_augmentation if node["_target_"].endswith(f".{name}")]
    return {key: value for key, value in node.items() if key != "_target_"}


@pytest.mark.parametrize("name", recorded("augmentation"))
def test_augmentation_is_that_of_the_authors(name):
    plan, expected = planned(name), record(name)["augmentation"]
    crop, drawn = step(plan, "RandomResizedCrop"), expected["crop"]["interpolation"]
    assert crop["scale"] == expected["crop"]["scale"] and crop.get("ratio", [3 / 4, 4 / 3]) == expected["crop"]["ratio"]
    assert crop["interpolation"] == ("random" if drawn == ["bilinear", "bicubic"] else drawn)
    assert step(plan, "HorizontalFlip") == {"p": expected["flip"]}
    policy, theirs = RandAugment(**step(plan, "RandAugment")), expected["rand_augment"]
    assert policy.count == theirs["num_layers"]
    assert [(each.name, each.level, each.magnitude.std, each.probability) for each in policy.operations] == [
        (own, theirs["magnitude"], theirs["magnitude_std"], theirs["prob"]) for own in theirs["ops"]
    ]
    erasing, theirs = RandomErasing(**step(plan, "RandomErasing")), expected["erasing"]
    assert {key: getattr(erasing, key) for key in ("probability", "mode")} == {
        key: theirs[key] for key in ("probability", "mode")
    }
    assert plan.config["dataset"]["mean"] == expected["mean"] or name in DIFFERING_NORMALIZATION


@pytest.mark.parametrize("name", recorded())
def test_mixing_of_batches_is_that_of_the_authors(name):
    plan, expected = planned(name), record(name)["mixup"]
    if expected is None:
        assert plan.batch_augmentation is None
        return
    own = {key: value for key, value in plan.batch_augmentation.items() if key != "_target_"}
    mixing = {
        "mixup_alpha": own["mixup"],
        "cutmix_alpha": own["cutmix"],
        **own,
        "label_smoothing": plan.config["task"]["smoothing"],
    }
    assert {key: mixing.get(key, DEFAULTS.get(key)) for key in expected} == expected
    Mixing(**own)


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name.endswith(("_finetune", "_linear"))])
def test_an_experiment_that_starts_from_a_pre_training_is_refused_without_weights(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = resolving.to_plain(compose("train", [f"experiment={name}", "dataset=shapes"]))
    with pytest.raises(InputError, match="starts from pre-trained weights, and none are given. Give backbone.weights="):
        prepare(config)
