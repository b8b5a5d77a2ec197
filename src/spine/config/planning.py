"""Plans a run: builds its network, optimizer and schedule on the meta device, which allocates and computes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from spine.config.building import build_task
from spine.config.checks import REQUIRED, prepare
from spine.data.sampler import count_micro_batches
from spine.errors import InputError
from spine.interfaces import Labels
from spine.layers.drop_path import DropPath
from spine.models.assembly import NetworkConfig, network_of, resolve_auxiliary_head, task_of
from spine.models.masked import MaskedModel
from spine.option_types import Config
from spine.profiling import count_saved_bytes
from spine.reporting.plan import Memory, ParameterPlan, Plan
from spine.tasks.base import Task
from spine.tokenizers.dvae import DiscreteVAE
from spine.training.costs import multiply_adds
from spine.training.global_batch import count_step_samples
from spine.training.optimizers import scale_lr
from spine.training.precision import resolve_precision

# Outputs of a task with labels if neither num_outputs nor the configuration of the data set tells them, which is not read:
OUTPUTS = {"classes": 1000, "mask_classes": 150, "keypoints": 17}  # of ImageNet, ADE20K and COCO
POINTS = 100  # steps whose learning rate is given
PUBLISHED_TOKENIZER = "dalle"  # stands for a tokenizer that is not read
HALF_PRECISION = ("bf16-mixed", "16-mixed", "bf16-true", "16-true", "bf16", "16", 16)


def make_plan(config: Config, samples: int, devices: int = 1) -> Plan:
    """Returns the plan of a plain configuration.

    `samples`: images of the training split. `devices`: devices on which the run is divided. Raises
    InputError for a mistake in the configuration, or if there are fewer samples than an optimizer
    step has.
    """
    if (config.get("backbone") or {}).get("weights") == REQUIRED:
        config = {**config, "backbone": {**config["backbone"], "weights": None}}
    config = prepare(config, with_files=False)
    size = count_step_samples(config, devices)
    steps_per_epoch, steps = count_steps(config["trainer"], samples, size)
    options = config["optimizer"]
    lr = scale_lr(options["lr"], options.get("lr_batch_size"), size)
    config["optimizer"] = {**options, "lr": lr, "lr_batch_size": None}
    with torch.device("meta"):
        task = _build_task(config)
        assert task.make_optimizer is not None and task.make_schedule is not None
        optimizer = task.optimizer_of(task.make_optimizer)
        schedule = task.make_schedule(optimizer, steps, steps_per_epoch)
    batch = -(-size // (devices * count_micro_batches(size, config["dataset"]["batch_size"], devices)))
    augment, ema = config["augment"], config["callbacks"].get("ema")
    network = network_of(task.config, task.config["num_outputs"])
    return Plan(
        config=task.config,
        network=network.summary,
        auxiliary_head=resolve_auxiliary_head(network) if isinstance(network, NetworkConfig) else {},
        samples=samples,
        devices=devices,
        micro_batch_size=batch,
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        multiply_adds=multiply_adds(task),
        global_batch_size=size,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        learning_rates=learning_rates(optimizer, schedule, steps),
        parameter_groups=parameter_plans(task, optimizer),
        drop_path={name.rpartition(".")[0]: each.rate for name, each in task.model.named_modules() if isinstance(each, DropPath)},
        train_augmentation=augment["train"],
        eval_augmentation=augment["eval"],
        evaluation=task.describe_evaluation(),
        batch_augmentation=augment.get("batch"),
        ema_decay=ema["decay"] if ema else None,
        memory=_estimate_memory(task, optimizer, batch, ema is not None),
    )


def _build_task(config: Config) -> Task:
    """Builds the task of a checked configuration, without weights, and freezes what the whole training leaves as it is."""
    spec, tokenizer = task_of(config), None
    outputs = config["num_outputs"] or (_count_labels(config["dataset"], spec.labels) if spec.labels else spec.num_outputs)
    if spec.reads_tokenizer:
        tokenizer = DiscreteVAE(PUBLISHED_TOKENIZER)
        outputs = tokenizer.num_codes
    labels = Labels.from_dict({spec.labels: tuple(map(str, range(outputs or 0)))}) if spec.labels else Labels()
    config = {**config, "num_outputs": outputs}
    if "backbone" in config:
        config["backbone"] = {**config["backbone"], "weights": None}
    task, _ = build_task({**config, "compile": False}, labels, tokenizer)
    freeze = config["callbacks"].get("freeze")
    if freeze and freeze.get("until_epoch") is None:
        for name, parameter in task.model.named_parameters():
            if any(re.search(pattern, name) for pattern in freeze["names"]):
                parameter.requires_grad_(False)
    return task


def _count_labels(dataset: Config, labels: str) -> int:
    """Returns the number of classes or keypoints that the configuration of a data set names, otherwise that of OUTPUTS."""
    names = dataset.get("names" if labels == "keypoints" else "classes")
    if isinstance(names, int):
        return names
    return len(names) if isinstance(names, list | tuple) else OUTPUTS[labels]


def count_steps(trainer: Config, samples: int, size: int) -> tuple[int, int]:
    """Returns the optimizer steps of an epoch and of the whole training.

    `size`: samples of a step. The last, incomplete step of an epoch is left out. Raises InputError if an epoch has no
    step, or if the training has no end.
    """
    epochs, max_steps = trainer.get("max_epochs"), trainer.get("max_steps")
    steps_per_epoch, limit = samples // size, trainer.get("limit_train_batches", 1.0)
    if steps_per_epoch == 0:
        raise InputError(f"samples is {samples}, fewer than an optimizer step has: {size}. Give more, or a smaller batch.")
    steps_per_epoch = min(limit, steps_per_epoch) if isinstance(limit, int) else int(limit * steps_per_epoch)
    if epochs in (None, -1) and max_steps in (None, -1):
        raise InputError("The training has no end: set trainer.max_epochs or trainer.max_steps.")
    ends = [max_steps] if max_steps not in (None, -1) else []
    if epochs not in (None, -1):
        ends.append(epochs * steps_per_epoch)
    return steps_per_epoch, min(ends)


def learning_rates(optimizer: Optimizer, schedule: LRScheduler, steps: int) -> list[tuple[int, float]]:
    """Returns (step, learning rate) of the group with the highest rate, at evenly spaced steps from the first to the last.

    There are POINTS of them, or fewer if the training has fewer steps.
    """
    count = min(POINTS, steps)
    wanted = [round(i * (steps - 1) / max(1, count - 1)) for i in range(count)]
    top = max(range(len(schedule.base_lrs)), key=schedule.base_lrs.__getitem__)
    if isinstance(schedule, LambdaLR):
        return [(step, float(schedule.base_lrs[top]) * schedule.lr_lambdas[top](step)) for step in wanted]
    rates = dict(_all_rates(optimizer, schedule, steps, top))  # a schedule of a plug-in, which may depend on its last step
    return [(step, rates[step]) for step in wanted]


def _all_rates(optimizer: Optimizer, schedule: LRScheduler, steps: int, group: int) -> Iterator[tuple[int, float]]:
    for step in range(steps):
        yield step, float(optimizer.param_groups[group]["lr"])
        optimizer.zero_grad()
        optimizer.step()  # without gradients, it changes nothing
        schedule.step()


def parameter_plans(task: Task, optimizer: Optimizer) -> dict[str, ParameterPlan]:
    """Returns the learning rate scale and the weight decay of every parameter that is trained, in the order of the network."""
    names = _names(task)
    plans: dict[str, ParameterPlan] = {}
    for group in optimizer.param_groups:
        scale = group["initial_lr"] / optimizer.defaults["lr"]
        plans |= {names[id(p)]: {"lr_scale": scale, "weight_decay": group["weight_decay"]} for p in group["params"]}
    return {name: plans[name] for name in names.values() if name in plans}


def _names(task: Task) -> Mapping[int, str]:
    """Returns the name of each parameter of a task, by its id. The one classifier of a linear probe is the head."""
    found = {id(parameter): name.removeprefix("model.") for name, parameter in task.named_parameters()}
    several = any(name.startswith("classifiers.1.") for name in found.values())
    return {key: name if several else re.sub(r"^classifiers\.0\.", "head.", name) for key, name in found.items()}


def _estimate_memory(task: Task, optimizer: Optimizer, batch: int, averaged: bool) -> Memory:
    """Estimates the memory of training on one device. The optimizer makes a step on the meta device, which creates its state."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, torch.Tensor)]
    weights = _bytes(task.state_dict().values())
    precision = resolve_precision(task.config["trainer"]["precision"], task.config["trainer"]["accelerator"])
    saved = count_saved_bytes(task.model, _example_inputs(task, 2)) / 2 * batch
    return Memory(
        weights=weights,
        gradients=_bytes(trained),
        optimizer=_bytes(state),
        ema=_bytes(task.model.state_dict().values()) if averaged else 0,
        activations=round(saved / 2 if precision in HALF_PRECISION else saved),
        precision=str(precision),
    )


def _example_inputs(task: Task, count: int) -> list[torch.Tensor]:
    """Returns `count` images on the meta device, and what else the network reads, such as masks."""
    network = network_of(task.config, task.config["num_outputs"])
    dropping = isinstance(task.model, MaskedModel) and task.model.masking == "drop"
    height, width = network.image_size or task.config["image_size"]
    extras = [torch.stack([draw(np.random.default_rng(0))] * count) for draw in task.sample_extras().values()]
    image = torch.empty(count, network.in_chans, height, width, device="meta")
    return [image, *(extra if dropping else extra.to("meta") for extra in extras)]  # dropping needs the values of the mask


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
