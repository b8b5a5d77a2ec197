"""The experiments of papers do what the authors' training code does (docs/recipes.md). Nothing is trained: their plans are compared.

tests/records/recipes holds what the authors' code computed, by the names of spine's parameters.
"""

import json
from functools import cache
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from spine.commands.plan import leave_out_files
from spine.config import resolving
from spine.config.planning import make_plan

CONF = Path(__file__).parents[1] / "conf"
RECORDS = Path(__file__).parent / "records" / "recipes"
IMAGENET = 1_281_167  # training images of ImageNet-1k
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
RECORDED = sorted(path.stem for path in RECORDS.glob("*.json"))

# Parameters whose weight decay differs from the authors' code on purpose, by experiment: a part of the name, and the reason.
DIFFERING_DECAY = {
    "resnest50_imagenet1k": ("downsample.", "the PyTorch code finds norms by 'bn' in their name, the released weights had no decay of any"),
}


@cache
def planned(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"experiment={name}"])
    leave_out_files(cfg)
    return make_plan(resolving.to_plain(cfg), IMAGENET, devices=8)


def record(name):
    return json.loads((RECORDS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_plan_of_every_experiment_is_built(name):
    plan = planned(name)
    assert plan.parameters > 0 and plan.steps > 0 and plan.parameter_groups
    json.dumps(plan.to_json())


def test_every_experiment_of_authors_code_has_a_record():
    without = {name for name in EXPERIMENTS if name.endswith(("_imagenet1k", "_pretrain", "_finetune", "_linear"))} - set(RECORDED)
    assert without == {  # no public training code, or code for TensorFlow 1 or Caffe only
        "mobilenet_v2_w100_imagenet1k", "mobilenet_v3_large_100_imagenet1k", "vgg16_imagenet1k", "xception_imagenet1k",
    }  # fmt: skip


@pytest.mark.parametrize("name", RECORDED)
def test_learning_rates_are_those_of_the_authors(name):
    plan, expected = planned(name), record(name)
    assert plan.steps == expected["steps"]
    steps, rates = zip(*expected["learning_rates"], strict=True)
    highest = max(rates)
    assert dict(plan.learning_rates) == pytest.approx(dict(zip(steps, rates, strict=True)), rel=1e-9, abs=1e-12 * highest)


@pytest.mark.parametrize("name", [name for name in RECORDED if record(name)["parameter_groups"]])
def test_parameter_groups_are_those_of_the_authors(name):
    plan, part = planned(name).parameter_groups, DIFFERING_DECAY.get(name, ("\0", ""))[0]
    expected = {
        parameter: (group["lr_scale"], group["weight_decay"])
        for group in record(name)["parameter_groups"]
        for parameter in group["parameters"]
    }
    assert plan.keys() == expected.keys()
    differing = {
        parameter: ((own["lr_scale"], own["weight_decay"]), expected[parameter])
        for parameter, own in plan.items()
        if (own["lr_scale"], own["weight_decay"]) != pytest.approx(expected[parameter], rel=1e-12)
    }
    assert [parameter for parameter in differing if part not in parameter] == []
    assert bool(differing) == (name in DIFFERING_DECAY)


def test_matrices_alone_have_weight_decay_in_segnext():
    """VAN's code, whose network has other names."""
    decay = record("segnext_tiny_imagenet1k")["weight_decay_of_matrices"]
    own = planned("segnext_tiny_imagenet1k").parameter_groups
    assert {group["weight_decay"] for group in own.values()} == {0.0, decay}
    assert all((group["weight_decay"] == 0) == name.endswith((".bias", "layer_scale_1", "layer_scale_2")) or "norm" in name
               for name, group in own.items())  # fmt: skip


@pytest.mark.parametrize("name", [name for name in RECORDED if record(name)["drop_path"] is not None])
def test_drop_paths_are_those_of_the_authors(name):
    rates = [rate for rate in planned(name).drop_path.values() if rate > 0]
    assert rates == pytest.approx([rate for rate in record(name)["drop_path"] if rate > 0], rel=1e-6)


@pytest.mark.parametrize("name", RECORDED)
def test_moving_averages_and_clipping_are_those_of_the_authors(name):
    plan, expected = planned(name), record(name)
    assert plan.ema_decay == expected["ema_decay"]
    assert plan.config["trainer"]["gradient_clip_val"] == expected["clip"]
