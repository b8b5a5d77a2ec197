"""Converts a composed Hydra configuration to plain data, and derives the run id from it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue

from spine import plugins
from spine.config.conf_folder import conf_folder
from spine.config.overrides import swept_keys
from spine.config.sweep_jobs import Sweep
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.option_types import Config  # imports pydantic, which would slow down every start

# Keys that change neither the weights nor the metrics of a run, such as its loggers and the number
# of workers. They are not part of the run id, so that a run that is started again with other values
# finds its folder.
NEUTRAL = (
    "ckpt_path",
    "restart",
    "sweep",
    "task_name",
    "tags",
    "plugins",
    "logger",
    "optimized_metric",
    "dataset.num_workers",
    "dataset.cache_gb",
    "trainer.max_epochs",  # a finished run continues if it gets more epochs
    "trainer.max_steps",  # the same for steps
    "trainer.max_time",  # a run that it ended within an epoch continues there if it gets more time
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "callbacks.figure_every_n_epochs",
    "callbacks.report_every_minutes",
    "callbacks.checkpoint_every_minutes",
    "callbacks.checkpoint_every_steps",
    "callbacks.keep_best",
    "callbacks.on_preemption",
    "callbacks.on_nan",  # a run that a loss of NaN stopped goes on if it may skip it
    "callbacks.spike_threshold",
    "dataset.on_error",  # a run that an unreadable file stopped goes on if it may skip it
    "dataset.max_error_share",
)
# Keys that only divide the samples of an optimizer step among processes and micro-batches.
DIVISION = ("dataset.batch_size", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.accumulate_grad_batches")
SEARCH = ("space", "objectives", "sampler", "seed", "pruner")  # keys of `sweep` that determine the trials of a study
PATHS = ("dataset.root", "ckpt_path", "backbone.weights", "tokenizer", "out")  # their values may begin with `~`, the home folder
HELP_WIDTH = 100  # columns of `python train.py --help`
EXAMPLES = {"out": "out=model.safetensors", "source": "source=photos", "ckpt_path": "ckpt_path=logs/.../checkpoints/best.ckpt"}


def to_plain(cfg: DictConfig) -> Config:
    """Converts a configuration to dictionaries, lists, text and numbers. Resolves interpolations.

    Raises InputError if a mandatory key has no value.
    """
    try:
        config: Config = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except MissingMandatoryValue as error:
        key = str(error.full_key)
        raise InputError(f"{key} is missing: give {EXAMPLES.get(key, f'{key}=<value>')}.") from error
    dataset = config.get("dataset")
    parts = dataset.get("parts") if isinstance(dataset, dict) else None
    for path in (*PATHS, *(f"dataset.parts.{name}.root" for name in (parts if isinstance(parts, dict) else ()))):
        _expand_home(config, path)
    return config


def _expand_home(config: Config, path: str) -> None:
    """Replaces a leading `~` in the value at a dotted path, if the path exists."""
    *parents, key = path.split(".")
    node: Config | None = config
    for parent in parents:
        node = node.get(parent) if isinstance(node, dict) else None
    if isinstance(node, dict) and isinstance(node.get(key), str):
        node[key] = os.path.expanduser(node[key])


def run_id(*, _root_: DictConfig) -> str:
    """Returns a readable name of the run, which depends on the configuration only.

    A run that is started again therefore finds its folder. In a sweep, it also depends on
    overridden neutral keys, because jobs that differ in them alone would share a folder.
    """
    choices = _root_.hydra.runtime.choices
    own = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    content: Config = OmegaConf.to_container(own, resolve=True)  # type: ignore[assignment]
    swept = _swept(_root_) if str(_root_.hydra.mode).endswith("MULTIRUN") else set()
    for path in NEUTRAL:
        if not any(key == path or key.startswith(f"{path}.") for key in swept):
            _remove(content, path.split("."))
    if not swept.intersection(DIVISION):
        _merge_division(content)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    groups = [group for group in ("backbone", "task", "dataset") if group != "backbone" or "backbone" in content]
    names = [str(choices.get(group)) for group in groups]
    if (protocol := (content.get("protocol") or {}).get("name", "finetune")) != "finetune":
        names[groups.index("task")] += f"-{protocol}"
    if variant := content.get(groups[0], {}).get("variant"):  # of the backbone, or of a task with a network of its own
        names[0] += f"-{variant}"
    return "_".join([*names, digest])


def _merge_division(content: Config) -> None:
    """Replaces the keys that divide an optimizer step by the number of its samples, if it is known.

    With dataset.global_batch_size, that is the number. Otherwise, it is dataset.batch_size times
    the number of devices. The number of accumulated batches stays then, because an epoch ends with
    a smaller step if it does not divide the batches. `auto` and lists of devices stay too.
    """
    dataset, trainer = content.get("dataset") or {}, content.get("trainer") or {}
    if dataset.get("global_batch_size") is not None:
        for path in DIVISION:
            _remove(content, path.split("."))
        return
    devices, batch_size = trainer.get("devices"), dataset.get("batch_size")
    if isinstance(devices, int) and devices > 0 and isinstance(batch_size, int):
        dataset["batch_size"] = batch_size * devices * trainer.pop("num_nodes", 1)
        del trainer["devices"]
        trainer.pop("strategy", None)


def _swept(root: DictConfig) -> set[str]:
    """Returns the swept keys; outside of a sweep that runs, all that the command line overrides."""
    if (sweep := Sweep.current()) is not None:
        return set(sweep.swept)
    overrides: Iterable[str] = root.hydra.overrides.task
    return {override.partition("=")[0].lstrip("+~") for override in overrides}


def _remove(config: Config, parts: list[str]) -> None:
    """Removes the key at a path, given as a list of keys, if it exists."""
    node: Config | None = config
    for part in parts[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(parts[-1], None)


def sweep_id(*, _root_: DictConfig) -> str:
    """Returns the name of a sweep, which depends on the arguments of the command line only.

    It has the swept keys and a hash of all overrides, in any order. The same command therefore
    finds its folder, in which finished runs are not trained again. With `sweep=optuna`, it also
    depends on the search space and on how it is searched, but not on the number of trials.
    """
    given = sorted(
        argument for argument in sys.argv[1:] if "=" in argument and not argument.startswith(("-", "hydra.", "hydra/"))
    )
    swept = [override for override in given if swept_keys([override])]
    counted: list[object] = [override for override in given if override in swept or not _is_neutral(override.partition("=")[0])]
    keys = swept_keys(swept)
    if OmegaConf.select(_root_, "sweep.space") is not None:
        search: Config = OmegaConf.to_container(_root_.sweep, resolve=True)  # type: ignore[assignment]
        counted.append({key: search.get(key) for key in SEARCH})
        keys += [str(key) for key, values in search["space"].items() if values is not None]
    digest = hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()[:8]
    return "_".join([*(key.rpartition(".")[2] for key in keys[:4]), digest])


def _is_neutral(key: str) -> bool:
    key = key.lstrip("+~")
    return any(key == path or key.startswith(f"{path}.") for path in NEUTRAL)


def unless_steps(epochs: int, *, _parent_: DictConfig) -> int | None:
    """Returns the default number of epochs, or None if the trainer has a number of steps."""
    return epochs if _parent_.get("max_steps") in (None, -1) else None


def choices(group: str, indent: int) -> str:
    """Returns the names of a configuration group, of spine and of plug-ins, in lines for `--help`."""
    folders = [conf_folder(), *plugins.conf_folders()]
    names = sorted({path.stem for folder in folders for path in (folder / group).glob("[!_]*.yaml")})
    lines = textwrap.wrap(", ".join(names), HELP_WIDTH - indent, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(lines)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("run_id", run_id, replace=True)
OmegaConf.register_new_resolver("unless_steps", unless_steps, replace=True)
OmegaConf.register_new_resolver("sweep_id", sweep_id, replace=True)
