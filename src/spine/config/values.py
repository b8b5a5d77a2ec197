"""Checks the values of a plain configuration.

Messages name the key, the value and the allowed values.
"""

from __future__ import annotations

import inspect
import json
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Union

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from spine import components
from spine.config import schemas
from spine.config.dataset_parts import PART, dataset_parts
from spine.errors import InputError, nearest
from spine.option_types import Allowed, Config, Schema
from spine.task_spec import TaskSpec

FINETUNE = "finetune"  # the protocol that every task has
STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def check_values(config: Config) -> None:
    """Raises InputError for the first unknown key or invalid value.

    Checks everything that can be checked without importing torch or Lightning.
    """
    sections = (*schemas.SECTIONS, *schemas.OPTIONAL_SECTIONS)
    check_keys(config, {**schemas.TOP, **dict.fromkeys(sections)}, "")
    check_schema({key: value for key, value in config.items() if key not in sections}, schemas.TOP, "")
    check_finite(config, "")
    for section in schemas.SECTIONS:
        if section in schemas.NETWORK_SECTIONS and _has_own_network(config, section):
            continue
        if not isinstance(config.get(section), dict):
            raise InputError(
                f"{section} is {format_value(config.get(section))}; choose one: {section}=<name>. `--help` lists the names."
            )
    for key, reason in schemas.TRAINER_FIXED.items():
        if key in config["trainer"]:
            raise InputError(f"trainer.{key} cannot be set: {reason}.")
    check_schema(config["trainer"], {**schemas.TRAINER, **schemas.VALIDATION_STEPS}, "trainer")
    _check_end(config["trainer"])
    _check_validation_steps(config["trainer"])
    _check_pruner(config)
    check_schema(config["callbacks"], schemas.CALLBACKS, "callbacks")
    for key, options in schemas.CALLBACK_OPTIONS.items():
        check_schema(config["callbacks"].get(key) or {}, options, f"callbacks.{key}")
    check_schema(config.get("sweep") or {}, schemas.SWEEP, "sweep")
    _check_global_batch(config)
    _check_folds(config["dataset"])
    _check_protocol(config)
    check_keys(config.get("auxiliary_head") or {}, schemas.OPTIONS["auxiliary_head"], "auxiliary_head")
    for section, known in schemas.OPTIONS.items():
        check_schema({key: value for key, value in config.get(section, {}).items() if key in known}, known, section)
    for path, node in dataset_parts(config).items():
        known = {**schemas.OPTIONS["dataset"], **PART}
        check_schema({key: value for key, value in node.items() if key in known}, known, path)
    spec = _task_spec(config["task"]["_target_"])
    check_schema(config["task"], {**schemas.TASK, **spec.options, **spec.network_options, **spec.data_options}, "task")
    for path, node in _parts_with_schemas(config):
        place = path.split(".")[0]
        check_schema(node, schemas.PARTS[place][node["_target_"]], path)


def _has_own_network(config: Config, section: str) -> bool:
    """Returns whether the task has a network without backbone and head. Raises InputError if `section` names one anyway."""
    node = config.get("task")
    if not isinstance(node, dict) or (spec := _task_spec(node["_target_"])).network is None:
        return False
    if section in config:
        raise InputError(
            f"Task '{spec.name}' has a network of its own and takes no {section}. Leave out {section}=... and keys of {section}."
        )
    return True


def _task_spec(target: str) -> TaskSpec:
    return components.task_spec(components.component_name("task", target))


def _parts_with_schemas(config: Config) -> Iterator[tuple[str, Config]]:
    """Yields path and node of the parts whose targets have a schema.

    `check_targets` has accepted the targets.
    """
    for place in ("optimizer", "schedule"):
        yield place, config[place]
    for name, node in (config.get("logger") or {}).items():
        yield f"logger.{name}", node


def _check_end(trainer: Config) -> None:
    """Raises InputError if training has no end. Schedules need the total number of steps."""
    epochs, steps = trainer.get("max_epochs", 1), trainer.get("max_steps")
    if epochs in (None, -1) and steps in (None, -1):
        raise InputError(
            f"trainer.max_epochs is {format_value(epochs)}, which has no end, but the schedule needs one: set a whole number of "
            f"epochs, 1 or more, or set trainer.max_steps."
        )


def _check_validation_steps(trainer: Config) -> None:
    """Raises InputError if the interval of validations is given twice, or if it cannot be counted in optimizer steps."""
    every = trainer.get("val_every_n_steps")
    if every is None:
        return
    if trainer.get("val_check_interval") is not None or trainer.get("check_val_every_n_epoch") not in (None, 1):
        raise InputError(
            f"trainer.val_every_n_steps is {every}, and trainer.val_check_interval or trainer.check_val_every_n_epoch is also given. "
            f"Give one of them."
        )
    if trainer.get("accumulate_grad_batches", 1) != 1:
        raise InputError(
            f"trainer.val_every_n_steps is {every} and trainer.accumulate_grad_batches is "
            f"{format_value(trainer['accumulate_grad_batches'])}: an epoch may then end with an incomplete step. "
            f"Set dataset.global_batch_size instead of trainer.accumulate_grad_batches."
        )


def _check_pruner(config: Config) -> None:
    """Raises InputError if the trials of a study are pruned by epochs and have no number of epochs."""
    pruner = (config.get("sweep") or {}).get("pruner")
    if pruner is not None and config["trainer"].get("max_epochs") in (None, -1):
        raise InputError(f"sweep.pruner is {pruner}, which counts epochs: set trainer.max_epochs, or sweep.pruner=null.")


def _check_global_batch(config: Config) -> None:
    """Raises InputError if the size of an optimizer step is given twice."""
    size, accumulated = config["dataset"].get("global_batch_size"), config["trainer"].get("accumulate_grad_batches", 1)
    if size is not None and accumulated != 1:
        raise InputError(
            f"trainer.accumulate_grad_batches is {format_value(accumulated)} and dataset.global_batch_size is {format_value(size)}; "
            f"the global batch size determines how many batches are accumulated. Leave one of them out."
        )


def _check_folds(dataset: Config) -> None:
    """Raises InputError for a fold that does not exist."""
    fold, count = dataset.get("fold", 0), dataset.get("k_fold")
    if count is None and fold:
        raise InputError(
            f"dataset.fold is {fold}, but dataset.k_fold is null: set the number of folds, such as dataset.k_fold=5."
        )
    if count is not None and fold >= count:
        raise InputError(f"dataset.fold is {fold}, but dataset.k_fold={count} has folds 0 to {count - 1}.")


def _check_protocol(config: Config) -> None:
    """Raises InputError if the task does not have the protocol, or for a wrong value of its options."""
    node = config.get("protocol") or {"name": FINETUNE}
    task = components.component_name("task", config["task"]["_target_"])
    known = {one: {FINETUNE, *components.task_spec(one).protocols} for one in components.modules("task")}
    choices = sorted(set.union(*known.values()))
    name = node.get("name") if isinstance(node, dict) else node
    if name not in choices:
        raise InputError(f"protocol is {format_value(name)}.{nearest(str(name), choices)} Choices: {', '.join(choices)}.")
    if name not in known[task]:
        others = [f"task={one}" for one, names in known.items() if name in names]
        raise InputError(f"protocol={name} is for {', '.join(others)}; this run has task={task}. Use protocol={FINETUNE}.")
    protocol = components.task_spec(task).protocols.get(name)
    own = {key: value for key, value in node.items() if key != "name"}
    check_schema(own, protocol.options if protocol else {}, "protocol")
    if protocol and config["trainer"].get("strategy") == "fsdp":
        raise InputError(f"trainer.strategy is fsdp, which shards a network that is trained; protocol={name} needs ddp or auto.")
    for key in ("ema", "freeze", "reestimate_batch_norm"):
        if protocol and config["callbacks"].get(key) is not None:
            raise InputError(f"callbacks.{key} is for a network that is trained; protocol={name} leaves the backbone as it is.")
    if protocol and not protocol.trains and config["trainer"]["limit_val_batches"] == 0:
        raise InputError(f"trainer.limit_val_batches is 0, and protocol={name} does nothing but evaluate the validation split.")
    if protocol and not protocol.trains and config.get("ckpt_path") is not None:
        raise InputError(f"ckpt_path resumes a training, and protocol={name} trains nothing. Give the file as backbone.weights.")


def check_schema(node: Mapping[str, object], schema: Schema, owner: str) -> None:
    """Raises InputError for the first key or value of `node` that `schema` does not allow."""
    check_keys(node, schema, owner)
    for key, value in node.items():
        if key != "_target_" and not fits(value, schema[key].kind):
            raise InputError(f"{_joined(owner, key)} is {format_value(value)}; it must be {schema[key].description}.")


def check_keys(node: Mapping[str, object], allowed: Mapping[str, Allowed | None], owner: str) -> None:
    """Raises InputError for the first key of `node` that is not allowed.

    The message has the nearest spelling.
    """
    for key in node:
        if key not in allowed and key != "_target_":
            prefix = f"{owner}." if owner else ""
            choices = sorted(allowed)
            hint = nearest(str(key), choices, prefix)
            raise InputError(f"Unknown key '{_joined(owner, key)}'.{hint} Allowed keys: {', '.join(choices) or 'none'}.")


def check_finite(node: object, path: str) -> None:
    """Raises InputError for the first number that is nan or infinite."""
    if isinstance(node, float) and not math.isfinite(node):
        raise InputError(f"{path} is {node}; it must be a finite number.")
    if isinstance(node, dict):
        for key, value in node.items():
            check_finite(value, _joined(path, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_finite(value, f"{path}[{i}]")


def check_options(function: Callable, options: Mapping[str, object], owner: str) -> None:
    """Raises InputError for the first option that does not have the type in the signature.

    `function`: a function or a class. Options without an annotation, or with one that plain values
    cannot have (an object of torch), are not checked.
    """
    hints = typing.get_type_hints(function.__init__ if inspect.isclass(function) else function)
    for key, value in options.items():
        if key in hints and not fits(value, hints[key]):
            raise InputError(f"{owner}.{key} is {format_value(value)}; it must be {describe_type(hints[key])}.")


def fits(value: object, kind: Any) -> bool:
    """Returns whether a plain value has a type.

    The check is strict: a number in quotes is text, and 1 is not true. A list is also accepted as a
    tuple.
    """
    try:
        TypeAdapter(kind, config=STRICT).validate_json(json.dumps(value, default=str))
    except ValidationError:
        return False
    except PydanticSchemaGenerationError:
        return True
    return True


def describe_type(kind: object) -> str:
    """Returns a description of a type for messages: `int | None` is "a whole number or null"."""
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}
    if kind in names:
        return names[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(describe_type(argument) for argument in arguments)
    if origin is tuple and arguments and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: " + ", ".join(describe_type(argument) for argument in arguments)
    if origin in (list, tuple, Sequence):
        return f"a list, each item {describe_type(arguments[0])}"
    if origin in (dict, Mapping):
        return f"a dictionary: each key is {describe_type(arguments[0])}, each value is {describe_type(arguments[1])}"
    return getattr(kind, "__name__", str(kind))


def format_value(value: object) -> str:
    """Formats a value as in yaml: null, true, 'text', [1, 2]."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _joined(owner: str, key: object) -> str:
    return f"{owner}.{key}" if owner else str(key)
