"""Plans a run: builds its network, optimizer and schedule on the meta device, which allocates and computes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from spine.config.checks import prepare
from spine.config.instantiate import instantiate
from spine.data.sampler import count_micro_batches
from spine.errors import InputError
from spine.interfaces import Labels
from spine.layers.drop_path import DropPath
from spine.models.assembly import network_of, task_of
from spine.option_types import Config
from spine.profiling import count_saved_bytes
from spine.reporting.plan import Memory, ParameterPlan, Plan
from spine.tasks.base import Task
from spine.training.costs import example_inputs, multiply_adds
from spine.training.global_batch import count_step_samples
from spine.training.precision import resolve_precision

CLASSES = 1000  # outputs of a task with labels, unless num_outputs is given: the data set is not read
POINTS = 101  # steps whose learning rate is given


def make_plan(config: Config, samples: int, devices: int = 1) -> Plan:
    """Returns the plan of a plain configuration.

    `samples`: images of the training split. `devices`: devices on which the run is divided. Raises
    InputError for a mistake in the configuration, or if there are fewer samples than an optimizer
    step has.
    """
    config = prepare(config, with_files=False)
    with torch.device("meta"):
        task = build_task(config)
        size = count_step_samples(config, devices)
        epochs, steps_per_epoch, steps = _count_steps(config, samples, size)
        _freeze(task.model, config)
        optimizer = instantiate("optimizer", config["optimizer"], task.model, global_batch_size=size)
        schedule = instantiate("schedule", config["schedule"], optimizer, steps, steps_per_epoch)
        micro_batch = -(-size // devices // count_micro_batches(size, config["dataset"]["batch_size"], devices))
        precision = resolve_precision(config["trainer"]["precision"], config["trainer"]["accelerator"])
        memory = _memory(task, optimizer, bool(config["callbacks"].get("ema")), micro_batch, precision)
    augment = config["augment"]
    return Plan(
        config=config,
        network=network_of(config, config["num_outputs"]).summary,
        samples=samples,
        devices=devices,
        epochs=epochs,
        parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        multiply_adds=multiply_adds(task),
        memory=memory,
        global_batch_size=size,
        micro_batch_size=micro_batch,
        steps=steps,
        learning_rates=learning_rates(optimizer, schedule, steps),
        parameter_groups=_parameter_plans(task, optimizer),
        drop_path={name.rpartition(".")[0]: each.rate for name, each in task.model.named_modules() if isinstance(each, DropPath)},
        train_augmentation=augment["train"],
        eval_augmentation=augment["eval"],
        batch_augmentation=augment.get("batch"),
        ema_decay=(config["callbacks"].get("ema") or {}).get("decay"),
    )
