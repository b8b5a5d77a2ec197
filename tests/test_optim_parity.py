"""Learning rates, parameter groups, optimizer steps and moving averages equal those of timm and of authors' code.

These are recorded by tests/recording_optim.py.
"""

import json

import pytest
import recording_optim
import torch
from recording import CLASSES, RECORDS, cases
from recording_optim import LAYER_DECAY, STEPS, TOTAL, WEIGHT_DECAY, parameters_and_gradients, take_steps
from test_schedules import rates
from torch import nn

import spine
from spine.training import ema, optimizers, schedules
from spine.training.parameter_groups import parameter_groups

RECORD = json.loads(recording_optim.FILE.read_text())
CASES = {case.name: case for case in cases()}
TIMM = {"per_epoch": True, "warmup_mode": "replace", "warmup_start": 1e-6}
RECIPES = {  # learning rate, schedule, options
    "mae": (2.4e-3, schedules.cosine, {"warmup_epochs": 4, "warmup_start": 0.0, "min_lr": 1e-6}),
    "convnext": (
        4e-3, schedules.cosine, {"warmup_epochs": 5, "warmup_start": 0.0, "warmup_reaches_lr": True, "min_lr": 1e-6}
    ),
    "beit": (1.5e-3, schedules.cosine, {"warmup_epochs": 3, "warmup_start": 1e-6, "warmup_reaches_lr": True, "min_lr": 1e-5}),
    "swin": (1e-3, schedules.cosine, {"warmup_epochs": 4, "warmup_start_ratio": 1e-3, "min_lr_ratio": 0.01, "delay": 1}),
    "timm_step": (0.064, schedules.step, {**TIMM, "warmup_mode": "prefix", "warmup_epochs": 3, "every_epochs": 2.4, "rate": 0.973}),
    "timm_cosine": (0.064, schedules.cosine, {**TIMM, "warmup_epochs": 5, "warmup_start": 1e-4, "min_lr": 1e-5}),
}  # fmt: skip


@pytest.mark.parametrize("name", RECORD["schedules"])
def test_schedules_have_the_rates_of_the_recipes(name):
    lr, schedule, options = RECIPES[name]
    assert rates(schedule, TOTAL, STEPS, lr, **options) == pytest.approx(RECORD["schedules"][name], rel=1e-12, abs=1e-18)


MAKERS = {
    "rmsprop": (optimizers.rmsprop, {"lr": 0.01, "alpha": 0.9, "momentum": 0.9, "eps": 1e-3, "weight_decay": 0.02}),
    "rmsprop_without_momentum": (optimizers.rmsprop, {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0}),
    "lamb": (optimizers.lamb, {"lr": 0.01, "weight_decay": 0.02}),
    "lamb_without_decay": (optimizers.lamb, {"lr": 0.01, "weight_decay": 0.0}),
    "lion": (optimizers.lion, {"lr": 0.01, "weight_decay": 0.5}),
    "lars": (optimizers.lars, {"lr": 0.1, "weight_decay": 0.02}),
}


@pytest.mark.parametrize("name", RECORD["optimizers"])
def test_optimizers_take_the_steps_of_the_references(name):
    make, options = MAKERS[name]
    parameters, gradients = parameters_and_gradients()
    model = nn.Module()
    for number, parameter in enumerate(parameters):
        model.register_parameter(f"p{number}", nn.Parameter(parameter))
    found = take_steps(make(model, decay_norm_and_bias=True, **options), list(model.parameters()), gradients)
    for ours, theirs in zip(found, RECORD["optimizers"][name], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-11)


GROUP_NETS = {
    "convnext-official": ("convnext", {}, None),
    "beit-official": ("beit", {"image_size": 224}, ["pos_embed", "cls_token"]),  # the tables of position biases decay
    "mae-official-token": ("mae", {"image_size": 224}, ["pos_embed", "cls_token"]),
}


@pytest.mark.parametrize("name", RECORD["groups"])
def test_layer_decay_and_weight_decay_are_those_of_the_authors(name):
    """The values of a parameter are loaded as its weights, so that they get our names."""
    case, recorded = CASES[name], RECORD["groups"][name]
    shapes = json.loads((RECORDS / f"{name}.json").read_text())["keys"]
    backbone, options, no_decay = GROUP_NETS[name]
    net = spine.create_model(backbone, variant="micro", num_outputs=CLASSES, **options, **case.options)
    groups = parameter_groups(net, 1.0, WEIGHT_DECAY, LAYER_DECAY, no_decay=no_decay)
    for number, key in enumerate(("lr_scale", "weight_decay")):
        expected = case.names(
            {name: torch.full(shape, recorded[name][number], dtype=torch.float64) for name, shape in shapes.items()}
        )
        for group in groups:
            for parameter in group["names"]:
                assert float(expected[parameter].max()) == pytest.approx(group[key], rel=1e-12), parameter


@pytest.mark.parametrize(
    ("name", "options"), [("constant", {}), ("warmup", {"warmup": True, "warmup_gamma": 3.0, "warmup_power": 0.7})]
)
def test_the_average_has_the_values_of_timm(name, options):
    net, callback = nn.BatchNorm1d(1).double(), ema.MovingAverage(decay=0.8, **options)
    average = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    for number in range(8):
        for tensor in net.state_dict().values():
            tensor.fill_((number + 1) ** 2)
        ema.update(average, net.state_dict(), callback.decay_of(number))
    assert [float(tensor) for tensor in average.values()] == pytest.approx(RECORD["averages"][name], rel=1e-14)
