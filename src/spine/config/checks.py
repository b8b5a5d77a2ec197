"""Checks whether the parts of a configuration fit one another, before data is read."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from spine.config.building import OF_LOADER, build_model, open_weights, parts, settle_head, settle_input
from spine.config.resume import check_resume
from spine.config.targets import augmentations, check_targets, instantiate, named, target_of
from spine.config.values import check_options, check_values, shown
from spine.errors import InputError

WITHOUT_FILES = ("spine.datasets.shapes.Shapes",)  # data sets that read no dataset.root


def check(config: dict[str, Any]) -> None:
    """InputError for the first mistake in a plain configuration. What needs no torch is checked before it is imported.

    Checked are names, types and ranges, then paths, then whether task, data set, head, backbone, image size and weights fit.
    """
    check_targets(config)
    check_values(config)
    check_paths(config)
    check_devices(config["trainer"])
    check_parts(config)


def check_paths(config: dict[str, Any]) -> None:
    """InputError where the folder of the data set or the checkpoint to go on from is not there."""
    checkpoint = config.get("ckpt_path")
    if config["dataset"].get("root") is not None:  # a root that is not set is reported later, if data set and task fit
        check_root(config["dataset"])
    if checkpoint not in (None, "last") and not Path(checkpoint).is_file():
        raise InputError(f"There is no checkpoint '{checkpoint}'. Give ckpt_path=logs/.../checkpoints/last.ckpt.")


def check_root(node: dict[str, Any]) -> None:
    """InputError where a data set that reads files has no folder."""
    if node["_target_"] not in WITHOUT_FILES:
        from spine.datasets.files import need_root

        need_root(node.get("root"), named(node))


def check_devices(trainer: dict[str, Any]) -> None:
    """InputError where the devices that the trainer asks for are not there."""
    import torch

    wanted, devices = trainer.get("accelerator", "auto"), trainer.get("devices", "auto")
    found = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    found["gpu"] = found["cuda"] or found["mps"]
    if wanted in found and not found[wanted]:
        raise InputError(f"trainer.accelerator is '{wanted}', but torch {torch.__version__} finds none here. Use auto or cpu.")
    on_cpu = wanted == "cpu" or (wanted == "auto" and not found["gpu"])
    if on_cpu and not (devices == "auto" or (isinstance(devices, int) and devices > 0) or str(devices).isdigit()):
        raise InputError(f"trainer.devices is {shown(devices)}; on the CPU it is a number of processes, 1 or more, or auto.")
    if on_cpu and trainer.get("precision") in ("16-mixed", "16", 16):
        raise InputError(
            f"trainer.precision is {shown(trainer['precision'])}, which needs a GPU. Use auto, bf16-mixed or 32-true."
        )
    if not on_cpu:
        _check_gpus(devices, found["gpu"])


def _check_gpus(devices: Any, count: int) -> None:
    listed = [int(one) for one in devices.split(",")] if isinstance(devices, str) and "," in devices else devices
    wanted = max(listed) + 1 if isinstance(listed, list) else int(listed) if str(listed).isdigit() else 1
    if wanted > count:
        raise InputError(f"trainer.devices is {shown(devices)}, but this machine has {count}, numbered from 0.")


def check_parts(config: dict[str, Any]) -> None:
    """InputError where task, data set, head, backbone, image size or weights of a configuration do not fit one another."""
    from spine.model import check_arguments, load_weights, task_facts

    task = named(config["task"])
    facts = task_facts(task)
    dataset = target_of("dataset", config["dataset"])
    provides = dataset.provides
    if missing := sorted(facts.needs - provides):
        others = sorted(name for name, kind in formats().items() if facts.needs <= kind.provides)
        raise InputError(
            f"Task '{task}' reads {', '.join(missing)}, which data set '{named(config['dataset'])}' does not provide "
            f"(it gives {', '.join(sorted(provides))}). Data sets that do: {', '.join(others)}."
        )
    check_root(config["dataset"])
    own = {key: value for key, value in config["dataset"].items() if key not in (*OF_LOADER, "_target_")}
    check_arguments(dataset.__init__, own, "dataset")
    check_options(dataset, own, "dataset")
    check_network_options(config)
    import torch

    outputs = None if task == "mae" else 2
    settle_input(config)
    opened = open_weights(config, outputs)
    settle_head(config)
    with torch.device("meta"):
        model = build_model(config, outputs)
    if opened is not None:
        load_weights(model, parts(config, outputs)[0], opened)  # on the meta device: only whether they fit
    if config.get("ckpt_path") not in (None, "last"):
        check_resume(config["ckpt_path"], config, model)
    for path, step in augmentations(config):  # last: the import of albumentations takes a second
        instantiate(path, step)


def check_network_options(config: dict[str, Any]) -> None:
    """InputError where an option of backbone or head is unknown, or not of the type that its signature states."""
    from spine.model import check_arguments

    for place, apart in (("backbone", ("_target_", "weights", "layout")), ("head", ("_target_", "levels"))):
        target = target_of(place, config[place])
        options = {key: value for key, value in config[place].items() if key not in apart}
        if options.get("variant", "") is None:
            del options["variant"]  # the builder's own default
        check_arguments(target if place == "backbone" else target.__init__, options, place)
        given = {key: value for key, value in options.items() if place != "head" or value is not None}  # null: the default
        check_options(target, given, place)


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
