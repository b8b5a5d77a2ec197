"""From a composed Hydra configuration to plain data, and the run id that follows from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from spine.errors import InputError

# Keys that change neither the weights nor the metrics of a run: where it writes, what it shows, how many workers read for it. They
# stay out of the run id, so that a run that is started again with other ones finds its folder. The number of devices is not
# among them: dataset.batch_size counts for each.
NEUTRAL = (
    "ckpt_path",
    "restart",
    "task_name",
    "tags",
    "plugins",
    "logger",
    "optimized_metric",
    "dataset.num_workers",
    "trainer.max_time",  # ends a run within an epoch; given more time, it goes on there
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "callbacks.figure_every_n_epochs",
)
PATHS = ("dataset.root", "ckpt_path", "backbone.weights", "out")  # where `~` stands for the home folder
EXAMPLES = {"out": "out=model.safetensors", "ckpt_path": "ckpt_path=logs/.../checkpoints/best.ckpt"}


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists, words and numbers: what is checked, saved and read from here on.

    InputError where a key that must be given has no value.
    """
    try:
        config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise InputError(f"{key} is missing: give {EXAMPLES.get(key, f'{key}=<value>')}.") from error
    for path in PATHS:
        _expand_home(config, path)
    return config


def _expand_home(config: dict[str, Any], path: str) -> None:
    """Replaces a leading `~` of the value at a dotted path, where there is one."""
    *parents, key = path.split(".")
    node: Any = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if isinstance(node, dict) and isinstance(node.get(key), str):
        node[key] = os.path.expanduser(node[key])


def run_id(*, _root_: DictConfig) -> str:
    """A readable name that the configuration alone decides, so that a run that is started again finds its folder.

    In a sweep, neutral keys that were overridden count as well: jobs that differ in them only would share a folder.
    """
    choices = _root_.hydra.runtime.choices
    own = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    content: dict[str, Any] = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    swept = _overridden(_root_) if str(_root_.hydra.mode).endswith("MULTIRUN") else set()
    for path in NEUTRAL:
        if not any(key == path or key.startswith(f"{path}.") for key in swept):
            _remove(content, path.split("."))
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    names = [str(choices.get(group)) for group in ("backbone", "task", "dataset")]
    if variant := (content.get("backbone") or {}).get("variant"):
        names[0] += f"-{variant}"
    return "_".join([*names, digest])


def _overridden(root: DictConfig) -> set[str]:
    """Keys that the command line of a job sets."""
    overrides: Iterable[str] = root.hydra.overrides.task
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def _remove(node: Any, parts: list[str]) -> None:
    for part in parts[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(parts[-1], None)


OmegaConf.register_new_resolver("run_id", run_id, replace=True)
