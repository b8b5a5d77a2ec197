"""Records learning rates, parameter groups, optimizer steps and moving averages of timm and of authors' code.

    SPINE_CHECKOUTS=<folder> python tests/recording_optim.py        (in an environment with timm)

The folder holds checkouts of facebookresearch/mae, facebookresearch/ConvNeXt, microsoft/Swin-Transformer
and microsoft/unilm. The result is tests/records/optim.json, with which tests/test_optim_parity.py compares.
"""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace
from unittest import mock

import torch
from recording import RECORDS, checkout, to_json
from torch import Tensor, nn

FILE = RECORDS / "optim.json"
STEPS, EPOCHS = 7, 30  # steps in an epoch
TOTAL = STEPS * EPOCHS
LAYER_DECAY, WEIGHT_DECAY = 0.65, 0.05


def parameters_and_gradients(steps: int = 12) -> tuple[list[Tensor], list[list[Tensor]]]:
    """Returns parameters, a matrix, a vector and a convolution, and their gradients in each step."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 3), (5,), (2, 3, 2, 2))

    def drawn() -> list[Tensor]:
        return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    return drawn(), [drawn() for _ in range(steps)]


def take_steps(optimizer: torch.optim.Optimizer, parameters: list[Tensor], gradients: list[list[Tensor]]) -> list[list[float]]:
    """Takes a step with each of the gradients. Returns the values of the parameters."""
    for own in gradients:
        for parameter, gradient in zip(parameters, own, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    return [parameter.detach().flatten().tolist() for parameter in parameters]


def authors(repository: str, file: str) -> ModuleType:
    """Imports a file of a checkout. Modules that today's torch and timm do not have are mocked."""
    removed = ("adafactor", "adahessian", "adamp", "lookahead", "nadam", "novograd", "nvnovograd", "radam", "rmsprop_tf", "sgdp")
    missing = [
        *(f"timm.optim.{name}" for name in removed),
        "tensorboardX",
        "torch._six",
        "modeling_discrete_vae",
        "dall_e",
        "dall_e.utils",
    ]
    with mock.patch.dict(sys.modules, {name: mock.MagicMock() for name in missing}):
        return checkout(repository, file)


def schedules() -> dict[str, list[float]]:
    """Returns the learning rates of all steps by the name of the recipe."""
    from timm.scheduler import CosineLRScheduler, StepLRScheduler

    def optimizer(lr: float = 1.0) -> torch.optim.SGD:
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)

    adjust = authors("mae", "util/lr_sched.py").adjust_learning_rate
    mae = SimpleNamespace(lr=2.4e-3, min_lr=1e-6, warmup_epochs=4, epochs=EPOCHS)
    swin_config = SimpleNamespace(NAME="cosine", WARMUP_PREFIX=True, DECAY_EPOCHS=30, MULTISTEPS=[])
    train = SimpleNamespace(EPOCHS=EPOCHS, WARMUP_EPOCHS=4, MIN_LR=1e-5, WARMUP_LR=1e-6, LR_SCHEDULER=swin_config)
    swin_optimizer = optimizer(1e-3)
    with mock.patch(
        "timm.scheduler.cosine_lr.CosineLRScheduler", lambda *a, t_mul, **k: CosineLRScheduler(*a, cycle_mul=t_mul, **k)
    ):
        swin_module = authors("Swin-Transformer", "lr_scheduler.py")
    swin = swin_module.build_scheduler(SimpleNamespace(TRAIN=train), swin_optimizer, STEPS)
    swin_rates = []
    for step in range(TOTAL):
        swin_rates.append(swin_optimizer.param_groups[0]["lr"])
        swin.step_update(step)
    recipes = {
        "mae": [adjust(optimizer(), step / STEPS, mae) for step in range(TOTAL)],
        "convnext": authors("ConvNeXt", "utils.py").cosine_scheduler(4e-3, 1e-6, EPOCHS, STEPS, warmup_epochs=5).tolist(),
        "beit": authors("unilm", "beit/utils.py")
        .cosine_scheduler(1.5e-3, 1e-5, EPOCHS, STEPS, warmup_epochs=3, start_warmup_value=1e-6)
        .tolist(),
        "swin": swin_rates,
    }
    for name, scheduler in {
        "timm_step": lambda own: StepLRScheduler(own, decay_t=2.4, decay_rate=0.973, warmup_t=3, warmup_lr_init=1e-6),
        "timm_cosine": lambda own: CosineLRScheduler(own, t_initial=EPOCHS, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-4),
    }.items():
        own = optimizer(0.064)
        by_epoch, rates = scheduler(own), []
        for epoch in range(EPOCHS):
            rates += [own.param_groups[0]["lr"]] * STEPS
            by_epoch.step(epoch + 1)
        recipes[name] = rates
    return recipes


def optimizers() -> dict[str, list[list[float]]]:
    """Returns parameters after steps of optimizers, by name."""
    from timm.optim import Lamb, Lion, RMSpropTF

    makers = {
        "rmsprop": lambda p: RMSpropTF(p, lr=0.01, alpha=0.9, momentum=0.9, eps=1e-3, weight_decay=0.02),
        "rmsprop_without_momentum": lambda p: RMSpropTF(p, lr=0.01, alpha=0.9, momentum=0.0, eps=1e-3),
        "lamb": lambda p: Lamb(p, lr=0.01, eps=1e-6, weight_decay=0.02, max_grad_norm=None),
        "lamb_without_decay": lambda p: Lamb(p, lr=0.01, eps=1e-6, weight_decay=0.0, max_grad_norm=None),
        "lion": lambda p: Lion(p, lr=0.01, weight_decay=0.5),
        "lars": lambda p: authors("mae", "util/lars.py").LARS(p, lr=0.1, weight_decay=0.02),
    }
    found = {}
    for name, make in makers.items():
        parameters, gradients = parameters_and_gradients()
        found[name] = take_steps(make(parameters), parameters, gradients)
    return found


def stub(record: str) -> nn.Module:
    """Returns a module with the parameters of a recorded network, which has no other parts."""
    net = nn.Module()
    shapes = json.loads((RECORDS / f"{record}.json").read_text())["keys"]
    named = [(key, nn.Parameter(torch.zeros(shape, device="meta"))) for key, shape in shapes.items()]
    net.named_parameters = lambda: iter(named)  # type: ignore[method-assign,assignment]
    net.blocks = sorted({key.split(".")[1] for key in shapes if key.startswith("blocks.")})
    return net


def groups() -> dict[str, dict[str, tuple[float, float]]]:
    """Returns learning rate scale and weight decay of each parameter, by the authors' names."""
    convnext, beit = authors("ConvNeXt", "optim_factory.py"), authors("unilm", "beit/optim_factory.py")
    nets = {name: stub(name) for name in ("convnext-official", "beit-official", "mae-official-token")}
    depth = len(nets["beit-official"].blocks)  # type: ignore[arg-type]
    assigners = {
        "convnext-official": (convnext, convnext.LayerDecayValueAssigner([LAYER_DECAY ** (13 - i) for i in range(14)]), ()),
        "beit-official": (
            beit,
            beit.LayerDecayValueAssigner([LAYER_DECAY ** (depth + 1 - i) for i in range(depth + 2)]),
            ("pos_embed", "cls_token"),
        ),
    }
    found = {
        name: module.get_parameter_groups(nets[name], WEIGHT_DECAY, skip, assigner.get_layer_id, assigner.get_scale)
        for name, (module, assigner, skip) in assigners.items()
    }
    net = nets["mae-official-token"]
    found["mae-official-token"] = authors("mae", "util/lr_decay.py").param_groups_lrd(
        net, WEIGHT_DECAY, ["pos_embed", "cls_token", "dist_token"], LAYER_DECAY
    )
    by_name = {}
    for name, own in found.items():
        names = {id(parameter): key for key, parameter in nets[name].named_parameters()}
        by_name[name] = {names[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in own for p in group["params"]}
    return by_name


def averages() -> dict[str, list[float]]:
    """Returns the average of timm after steps in which all weights of a network are set, with and without warm-up."""
    from timm.utils import ModelEmaV3

    found = {}
    for name, options in {"constant": {}, "warmup": {"use_warmup": True, "warmup_gamma": 3.0, "warmup_power": 0.7}}.items():
        net = nn.BatchNorm1d(1).double()
        ema = ModelEmaV3(net, decay=0.8, **options)
        for step in range(1, 9):
            for tensor in net.state_dict().values():
                tensor.fill_(step**2)
            ema.update(net, step=step)
        found[name] = [float(tensor) for tensor in ema.module.state_dict().values()]
    return found


if __name__ == "__main__":
    content = {"schedules": schedules(), "optimizers": optimizers(), "groups": groups(), "averages": averages()}
    FILE.write_text(to_json(content) + "\n")
