"""Finds backbones, heads, tasks and data set formats by name, in spine and in plug-ins.

There is no registry. A part exists because its module is in the right folder, and it is imported when it is used.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING

from spine import plugins
from spine.errors import InputError, nearest

if TYPE_CHECKING:
    from spine.interfaces import DataSet, Head
    from spine.task_spec import TaskSpec

FOLDERS = {
    "backbone": "backbones",
    "head": "heads",
    "task": "tasks",
    "dataset": "data.formats",
    "prediction": "prediction.results",
}
WORDS = {"dataset": "data set format"}


def modules(kind: str) -> dict[str, str]:
    """Part names and dotted modules of one kind (a key of FOLDERS), in alphabetical order of the names."""
    folder = FOLDERS[kind]
    found = {
        name: f"{package}.{folder}.{name}"
        for package, path in plugins.packages().items()
        for name in plugins.part_names(path, folder)
    }
    return dict(sorted(found.items()))


def module_name(kind: str, name: str) -> str:
    """The dotted module of a part. Raises InputError with the nearest spelling if there is none of that name."""
    known = modules(kind)
    if name not in known:
        what = WORDS.get(kind, kind)
        raise InputError(f"Unknown {what} '{name}'.{nearest(name, list(known))} Choices: {', '.join(known)}.")
    return known[name]


def component_name(kind: str, target: str) -> str:
    """The name of the part that a `_target_` is in. Raises InputError if no folder of this kind has it."""
    for name, module in modules(kind).items():
        if target.startswith(f"{module}."):
            return name
    raise InputError(f"'{target}' is not in a module of a known {WORDS.get(kind, kind)}.")


def backbone_module(name: str) -> ModuleType:
    """The module of a backbone: its builder has the same name, and `VARIANTS` its hyperparameters."""
    return importlib.import_module(module_name("backbone", name))


def backbone_builder(name: str) -> Callable:
    """The function that builds a backbone: `builder(variant, *, use=..., levels=..., **options)`."""
    return getattr(backbone_module(name), name)


def default_variant(name: str) -> str:
    """The variant that the builder of a backbone takes by default: the middle size of the paper."""
    return inspect.signature(backbone_builder(name)).parameters["variant"].default


def head_class(name: str) -> type[Head]:
    """The head in a module of `heads`."""
    from spine.interfaces import Head

    return subclass_in(importlib.import_module(module_name("head", name)), Head)


def dataset_class(name: str) -> type[DataSet]:
    """The data set format in a module of `data.formats`."""
    from spine.interfaces import DataSet

    return subclass_in(importlib.import_module(module_name("dataset", name)), DataSet)


def task_spec(name: str) -> TaskSpec:
    """The specification of a task, which is known without importing Lightning or torch."""
    return importlib.import_module(f"{module_name('task', name)}.spec").SPEC


def check_arguments(function: Callable, arguments: Iterable[str], owner: str) -> None:
    """Raises InputError for the first of `arguments` that `function` does not take, with the nearest spelling."""
    parameters = inspect.signature(function).parameters.values()
    allowed = [p.name for p in parameters if p.name != "self" and p.kind is not inspect.Parameter.VAR_KEYWORD]
    for key in arguments:
        if key not in allowed:
            raise InputError(f"Unknown key '{owner}.{key}'.{nearest(key, allowed)} Choices: {', '.join(sorted(allowed))}.")


def defaults(function: Callable) -> Mapping[str, object]:
    """Default values of the parameters of a function by name."""
    return {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}


def subclass_in(module: ModuleType, base: type) -> type:
    """The first subclass of `base` that a module defines. Raises InputError if there is none."""
    own = [kind for kind in vars(module).values() if inspect.isclass(kind) and kind.__module__ == module.__name__]
    found = [kind for kind in own if issubclass(kind, base)]
    if not found:
        raise InputError(f"{module.__name__} defines no {base.__name__}.")
    return found[0]
