"""Compares what backbones cost: parameters, multiply-adds, memory traffic and speed.

    python -m spine.profile backbone=all
    python -m spine.profile backbone=convnext,swin image_size=384 batch_size=4 out=two.png

Each backbone is a classifier of 1000 classes in its default variant, in float32 and channels_last.
"""

from __future__ import annotations

import sys
from pathlib import Path

import spine
from spine.components import backbone_builder, default_variant
from spine.errors import InputError, nearest

DEFAULTS = {"backbone": "all", "variant": "", "image_size": "224", "batch_size": "8", "rounds": "5", "out": "logs/profile.png"}


def main() -> None:
    """Runs the command with the arguments of the command line."""
    try:
        profile(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))


def profile(arguments: list[str]) -> None:
    """Measures the backbones that `key=value` arguments name, prints a table and writes a figure.

    Raises InputError for an unknown key, backbone or variant.
    """
    if {"--help", "-h"} & set(arguments):
        print(f"{__doc__}\nKeys and defaults: {', '.join(f'{key}={value}' for key, value in DEFAULTS.items())}")
        return
    options = _parsed(arguments)
    size, batch, rounds = (int(options[key]) for key in ("image_size", "batch_size", "rounds"))
    names = spine.list_backbones() if options["backbone"] == "all" else options["backbone"].split(",")
    if options["variant"] and len(names) > 1:
        raise InputError(f"variant={options['variant']} needs one backbone by name; {len(names)} were chosen.")
    for name in names:
        backbone_builder(name)  # reports unknown names before the first measurement
    import torch

    from spine.profiling import measure_cost

    costs = []
    for name in names:
        variant = options["variant"] or default_variant(name)
        costs.append(measure_cost(name, variant, size, batch, rounds))
        print(f"{name} {variant}", file=sys.stderr)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    title = f"{size}x{size} pixels, batch {batch}, float32, {device}, torch {torch.__version__}"
    from rich.console import Console

    from spine.reporting.costs import cost_figure, cost_table

    print(f"{title}; medians of {rounds} steps\n")
    Console(width=140).print(cost_table(costs))
    out = Path(options["out"])
    out.parent.mkdir(parents=True, exist_ok=True)
    cost_figure(costs, title).savefig(out, dpi=110)
    print(out)


def _parsed(arguments: list[str]) -> dict[str, str]:
    given = dict(argument.partition("=")[::2] for argument in arguments)
    for key in given:
        if key not in DEFAULTS:
            raise InputError(f"Unknown key '{key}'.{nearest(key, list(DEFAULTS))} Choices: {', '.join(DEFAULTS)}.")
    options = {**DEFAULTS, **given}
    for key in ("image_size", "batch_size", "rounds"):
        if not options[key].isdigit() or int(options[key]) < 1:
            raise InputError(f"{key} is '{options[key]}'; it must be a whole number above zero.")
    return options
