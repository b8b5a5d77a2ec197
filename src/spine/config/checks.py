"""Checks whether the parts of a configuration fit one another, before data is read."""

from __future__ import annotations

import importlib
from typing import Any

from spine.config.building import OF_LOADER, build_model, open_weights, parts, settle_input
from spine.config.targets import check_targets, named, target_of
from spine.errors import InputError


def check(config: dict[str, Any]) -> None:
    """InputError where task, data set, head, backbone, image size or weights of a plain configuration do not fit one another."""
    check_targets(config)
    from spine.model import check_arguments, load_weights, task_facts

    task = named(config["task"])
    facts = task_facts(task)
    dataset = target_of(config["dataset"])
    provides = dataset.provides
    if missing := sorted(facts.needs - provides):
        others = sorted(name for name, kind in formats().items() if facts.needs <= kind.provides)
        raise InputError(
            f"Task '{task}' reads {', '.join(missing)}, which data set '{named(config['dataset'])}' does not provide "
            f"(it gives {', '.join(sorted(provides))}). Data sets that do: {', '.join(others)}."
        )
    own = {key: value for key, value in config["dataset"].items() if key not in (*OF_LOADER, "_target_")}
    check_arguments(dataset.__init__, own, "dataset")
    check_image_size(config["image_size"])
    import torch

    outputs = None if task == "mae" else 2
    opened = open_weights(config, outputs)
    settle_input(config, opened.row if opened else None)
    with torch.device("meta"):
        model = build_model(config, outputs)
    if opened is not None:
        load_weights(model, parts(config, outputs)[0], opened)  # on the meta device: only whether they fit


def check_image_size(size: Any) -> None:
    """InputError unless it is [height, width]."""
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise InputError(f"image_size is {size}; it is two numbers of pixels, [height, width], such as image_size=[180,240].")


def formats() -> dict[str, Any]:
    """Every data set format by its file."""
    import pkgutil

    from spine import datasets
    from spine.interfaces import DataSet

    found = {}
    for info in pkgutil.iter_modules(datasets.__path__):
        if info.name in ("module", "relabel"):  # no formats; the first imports Lightning, which takes seconds
            continue
        module = importlib.import_module(f"spine.datasets.{info.name}")
        kinds = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, DataSet) and v is not DataSet]
        if kinds:
            found[info.name] = kinds[0]
    return found
