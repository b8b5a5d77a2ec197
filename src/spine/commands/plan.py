"""Shows what a training would do, without data, weights or a tokenizer: size, memory, steps, learning rate, parameter groups, augmentation.

    python -m spine.plan experiment=mae_base_imagenet1k_finetune samples=1281167 devices=8 out=plan.json

All keys of `python train.py` can be set. Without num_outputs=<number>, a network has 1000 classes.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf, open_dict

from spine.command_lines import refuse_sweeps
from spine.config.command_line import run_command
from spine.config.resolving import to_plain
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.reporting.plan import Plan


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("plan", plan, partial(refuse_sweeps, "spine.plan shows one run"))


def plan(cfg: DictConfig) -> None:
    """Prints the plan of one run. With `out`, writes it as JSON, and a plot of the learning rate beside it.

    Raises InputError for a mistake in the configuration, or if `out` cannot be written.
    """
    samples, devices = (_whole_number(cfg, key) for key in ("samples", "devices"))
    out = _output_file(cfg.out)
    with open_dict(cfg):
        for key in ("samples", "devices", "out"):
            cfg.pop(key)
    config = to_plain(cfg)
    from spine.config.planning import make_plan  # imports torch

    made = make_plan(config, samples, devices)
    from spine.reporting.plan import print_plan

    print_plan(made)
    if out is not None:
        _write(made, out)


def _whole_number(cfg: DictConfig, key: str) -> int:
    """Returns a key of the plan. Raises InputError if it is missing or no whole number above 0."""
    if OmegaConf.is_missing(cfg, key):
        raise InputError(f"{key} is missing: give the number of training images, such as {key}=1281167 for ImageNet-1k.")
    value = cfg[key]
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{key} is {value}; it must be a whole number, 1 or more.")
    return value


def _output_file(value: object) -> Path | None:
    if value is None:
        return None
    path = Path(str(value)).expanduser()
    if path.suffix != ".json":
        raise InputError(f"out is '{value}'; it must be the name of a JSON file, such as out=plan.json.")
    return path


def _write(made: Plan, out: Path) -> None:
    from spine.reporting.plan import draw_learning_rate

    picture = out.with_suffix(".png")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(made.to_json(), indent=1) + "\n")
        draw_learning_rate(made).savefig(picture)
    except OSError as error:
        raise InputError(
            f"The plan cannot be written to '{out}' ({error.strerror}). Give another file: out=<file>.json."
        ) from error
    print(f"{out}\n{picture}")
