"""The plan of a run: values, terminal output and plot of the learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from rich import box
from rich.console import Console
from rich.table import Table

from spine.option_types import Config

SHOWN_STEPS = 12  # rows of the table of learning rates
WIDTH = 130  # of tables
BAR = 40  # characters of the highest learning rate
JSON_KEYS = (
    "parameters", "multiply_adds", "global_batch_size", "steps", "learning_rates", "parameter_groups", "drop_path",
    "train_augmentation", "eval_augmentation", "batch_augmentation", "ema_decay",
)  # fmt: skip


class ParameterPlan(TypedDict):
    """How one parameter is trained."""

    lr_scale: float  # its learning rate relative to that of the optimizer
    weight_decay: float


@dataclass(frozen=True)
class Memory:
    """Estimated memory of one device in training, in bytes."""

    weights: int  # with buffers
    gradients: int
    optimizer: int  # its state
    ema: int
    activations: int  # what the backward pass needs of one micro-batch
    precision: str

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.gradients + self.optimizer + self.ema + self.activations


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    config: Config  # complete
    network: str  # in a few words
    auxiliary_head: Config  # its options; empty if there is none
    samples: int  # of the training split
    devices: int
    micro_batch_size: int  # samples of the largest batch on one device
    parameters: int
    multiply_adds: float | None  # of one training image, forward; None: they cannot be counted
    global_batch_size: int
    steps_per_epoch: int
    steps: int
    learning_rates: Sequence[tuple[int, float]]  # step and rate of the group with the highest rate
    parameter_groups: Mapping[str, ParameterPlan]  # by name of the parameter; frozen ones are left out
    drop_path: Mapping[str, float]  # by name of the block
    train_augmentation: Sequence[Config]
    eval_augmentation: Sequence[Config]
    evaluation: str  # in words; empty if the task has one way only
    batch_augmentation: Config | None
    ema_decay: float | None
    memory: Memory

    def to_epochs(self, steps: ArrayLike) -> np.ndarray:
        """Returns steps as epochs."""
        return np.asarray(steps, dtype=float) / self.steps_per_epoch

    def to_steps(self, epochs: ArrayLike) -> np.ndarray:
        """Returns epochs as steps."""
        return np.asarray(epochs, dtype=float) * self.steps_per_epoch

    def to_json(self) -> dict[str, object]:
        """Returns the values for a JSON file."""
        return {key: getattr(self, key) for key in JSON_KEYS}


def print_plan(plan: Plan) -> None:
    """Prints a plan."""
    console = Console(highlight=False, soft_wrap=True, width=WIDTH)
    config = plan.config
    macs = "not counted" if plan.multiply_adds is None else f"{plan.multiply_adds / 1e9:.2f} G multiply-adds an image"
    console.print(
        f"{plan.network}, {config['num_outputs'] or 'no'} outputs, {config['image_size'][0]}x{config['image_size'][1]} pixels\n"
        f"{plan.parameters:,} parameters, {macs}\n"
        f"{plan.steps:,} steps of {plan.global_batch_size:,} samples, {plan.steps_per_epoch:,} an epoch of {plan.samples:,} samples; "
        f"{plan.devices} device{'s' * (plan.devices > 1)} with batches of {plan.micro_batch_size}\n"
    )
    console.print(_memory_lines(plan))
    console.print(_described("Optimizer", [config["optimizer"]]), _described("Schedule", [config["schedule"]]), sep="")
    console.print(_learning_rate_table(plan))
    console.print(_group_table(plan.parameter_groups))
    console.print(f"Drop path of blocks: {_drop_path_text(plan.drop_path)}")
    console.print(f"Moving average of the weights: {'none' if plan.ema_decay is None else f'decay {plan.ema_decay:g}'}")
    clip = config["trainer"].get("gradient_clip_val")
    algorithm = config["trainer"].get("gradient_clip_algorithm") or "norm"
    console.print(f"Gradient clipping: {'none' if clip is None else f'{algorithm} {clip:g}'}\n")
    _print_task(console, plan)
    console.print(_described("Training images, in this order", plan.train_augmentation), end="")
    console.print(_described("Training batches", [plan.batch_augmentation] if plan.batch_augmentation else []), end="")
    console.print(_described("Evaluation images, in this order", plan.eval_augmentation), end="")
    if plan.evaluation:
        console.print(f"Evaluation: {plan.evaluation}")


def _print_task(console: Console, plan: Plan) -> None:
    """Prints the options of the task, the losses of `task.loss`, and the auxiliary head."""
    options = dict(plan.config["task"])
    loss = options.pop("loss", None)
    console.print(_described("Task", [options]), end="")
    if loss is not None:
        console.print(_described("Losses", loss if isinstance(loss, list) else [loss]), end="")
    if plan.auxiliary_head:
        console.print(f"Auxiliary head:\n  {_options(plan.auxiliary_head)}")


def draw_learning_rate(plan: Plan) -> Figure:
    """Draws the learning rate of the group with the highest rate over the steps."""
    steps, rates = zip(*plan.learning_rates, strict=True)
    figure = Figure(figsize=(6.4, 3.6), dpi=100, layout="constrained")
    axis = figure.subplots()
    axis.plot(steps, rates)
    axis.set(title=plan.network, xlabel="step", ylabel="learning rate", xlim=(0, plan.steps), ylim=(0, None))
    epochs = axis.secondary_xaxis("top", functions=(plan.to_epochs, plan.to_steps))
    epochs.set_xlabel("epoch")
    axis.grid(alpha=0.3)
    return figure


def _memory_lines(plan: Plan) -> str:
    memory = plan.memory
    parts = {
        "weights": memory.weights, "gradients": memory.gradients, "optimizer": memory.optimizer,
        "moving average": memory.ema, f"activations of {plan.micro_batch_size} samples ({memory.precision})": memory.activations,
    }  # fmt: skip
    text = ", ".join(f"{name} {_size(size)}" for name, size in parts.items() if size)
    return f"Memory of a device, about {_size(memory.total)}: {text}\n"


def _size(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _learning_rate_table(plan: Plan) -> Table:
    table = Table(box=box.MARKDOWN)
    for name in ("step", "epoch", "learning rate"):
        table.add_column(name, justify="right")
    table.add_column("")
    highest, count = max(rate for _, rate in plan.learning_rates), len(plan.learning_rates)
    rows = sorted({round(i * (count - 1) / max(1, min(SHOWN_STEPS, count) - 1)) for i in range(min(SHOWN_STEPS, count))})
    for step, rate in (plan.learning_rates[row] for row in rows):
        table.add_row(f"{step:,}", f"{step / plan.steps_per_epoch:.1f}", f"{rate:.4g}", "█" * round(BAR * rate / highest))
    return table


def _group_table(groups: Mapping[str, ParameterPlan]) -> Table:
    """Returns a table with one row for each learning rate scale and weight decay."""
    members: dict[tuple[float, float], list[str]] = {}
    for name, own in groups.items():
        members.setdefault((own["lr_scale"], own["weight_decay"]), []).append(name)
    table = Table(box=box.MARKDOWN)
    for name in ("lr scale", "weight decay", "parameters"):
        table.add_column(name, justify="right")
    table.add_column("from first to last")
    for (scale, decay), names in sorted(members.items(), reverse=True):
        table.add_row(
            f"{scale:.6g}", f"{decay:g}", str(len(names)), ", ".join(names[:1] + names[-1:] if len(names) > 1 else names)
        )
    return table


def _drop_path_text(rates: Mapping[str, float]) -> str:
    if not any(rates.values()):
        return "none"
    return ", ".join(f"{name.removeprefix('backbone.')} {rate:.4g}" for name, rate in rates.items())


def _described(title: str, nodes: Iterable[Config]) -> str:
    """Returns a title and one line for each node: the name of its class and its options."""
    lines = [f"  {node['_target_'].rpartition('.')[2]} {_options(node)}".rstrip() for node in nodes]
    return "\n".join([f"{title}:", *(lines or ["  none"])]) + "\n"


def _options(node: Config) -> str:
    return " ".join(f"{key}={value}" for key, value in node.items() if key != "_target_" and value is not None)
