"""What backbones cost: parameters, multiply-adds, bytes moved, and images a second, side by side.

    python -m spine.profile backbone=all
    python -m spine.profile backbone=convnext,swin image_size=384 batch_size=4 out=two.png

Multiply-adds are not speed: what is waited for is often memory (ShuffleNet V2, Ma et al., arXiv 1807.11164, guidelines G1 to G4). Each
backbone is a classifier of 1000 classes, at the variant that its builder takes by default, in float32 and channels_last.
"""

from __future__ import annotations

import inspect
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import spine
from spine import pictures
from spine.errors import InputError, nearest
from spine.model import backbone_module, create_model

DEFAULTS = {"backbone": "all", "variant": "", "image_size": "224", "batch_size": "8", "rounds": "5", "out": "logs/profile.png"}


class Cost(NamedTuple):
    """What one backbone costs."""

    backbone: str
    variant: str
    parameters: int
    macs: float  # multiply-adds of one image
    traffic: float  # bytes of one image: what every operation reads and writes, were nothing kept in a cache
    inference: float  # images a second
    training: float  # images a second of forward and backward


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write. Views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        read, written = ([x for x in tree_leaves(part) if isinstance(x, Tensor)] for part in ((args, kwargs), out))
        owners = {x.untyped_storage()._cdata for x in read}
        is_view = written and all(x.untyped_storage()._cdata in owners for x in written) and not func._schema.is_mutable
        if not is_view:
            self.bytes += sum(x.numel() * x.element_size() for x in (*read, *written))
        return out


def images_a_second(net: nn.Module, image: Tensor, train: bool, rounds: int) -> float:
    """Median over `rounds` steps after a first one that does not count."""
    net.train(train)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            out = net(image)
        if train:
            net.zero_grad(set_to_none=True)
            out.square().mean().backward()
        if image.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return len(image) / statistics.median(seconds[1:])


def measure(backbone: str, variant: str, size: int, batch: int, rounds: int) -> Cost:
    """Builds one classifier, counts, and runs it on the accelerator where there is one, else on the processor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = create_model(backbone, variant=variant, num_outputs=1000, image_size=size)
    net = net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    image = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    with torch.device("meta"):  # the processor's fused attention is unknown to the counter
        counted = create_model(backbone, variant=variant, num_outputs=1000, image_size=size).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            counted(torch.empty(1, 3, size, size))
    with torch.no_grad(), Traffic() as traffic:
        net(image[:1])
    return Cost(
        backbone,
        variant,
        sum(parameter.numel() for parameter in net.parameters()),
        counter.get_total_flops() / 2,
        traffic.bytes,
        images_a_second(net, image, False, rounds),
        images_a_second(net, image, True, rounds),
    )


def table(costs: list[Cost]) -> Table:
    """A table in Markdown."""
    made = Table(box=box.MARKDOWN)
    for name in ("backbone", "variant"):
        made.add_column(name)
    for name in ("parameters, M", "multiply-adds, G", "traffic, MB", "inference, images/s", "training, images/s"):
        made.add_column(name, justify="right")
    for cost in costs:
        numbers = (cost.parameters / 1e6, cost.macs / 1e9, cost.traffic / 1e6)
        made.add_row(*cost[:2], *(f"{n:.2f}" for n in numbers[:2]), f"{numbers[2]:.0f}", *(f"{n:.1f}" for n in cost[-2:]))
    return made


def profile(arguments: list[str]) -> None:
    """Measures what `key=value` arguments name, prints the table and draws it."""
    given = dict(argument.partition("=")[::2] for argument in arguments)
    for key in given:
        if key not in DEFAULTS:
            raise InputError(f"Unknown key '{key}'.{nearest(key, list(DEFAULTS))} Choices: {', '.join(DEFAULTS)}.")
    options = {**DEFAULTS, **given}
    for key in ("image_size", "batch_size", "rounds"):
        if not options[key].isdigit() or int(options[key]) < 1:
            raise InputError(f"{key} is '{options[key]}'; it must be a whole number above zero.")
    size, batch, rounds = (int(options[key]) for key in ("image_size", "batch_size", "rounds"))
    names = spine.list_backbones() if options["backbone"] == "all" else options["backbone"].split(",")
    if options["variant"] and len(names) > 1:
        raise InputError(f"variant={options['variant']} needs one backbone by name; {len(names)} were chosen.")
    builders = [getattr(backbone_module(name), name) for name in names]
    costs = []
    for name, builder in zip(names, builders, strict=True):
        variant = options["variant"] or inspect.signature(builder).parameters["variant"].default
        costs.append(measure(name, variant, size, batch, rounds))
        print(f"{name} {variant}", file=sys.stderr)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    title = f"{size}x{size} pixels, batch {batch}, float32, {where}, torch {torch.__version__}"
    print(f"{title}; medians of {rounds} steps\n")
    Console(width=140).print(table(costs))
    out = Path(options["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    labels = [cost.backbone for cost in costs]
    speeds = [cost.inference for cost in costs]
    axes = {
        "multiply-adds of an image, G": [cost.macs / 1e9 for cost in costs],
        "memory traffic of an image, MB": [cost.traffic / 1e6 for cost in costs],
    }
    pictures.costs(labels, axes, "inference, images a second", speeds, title).savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    try:
        profile(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))
