"""Answers a mistake in seconds and in one sentence, before data is read.

Names are checked when Hydra composes, without torch; whether the parts fit is asked of the parts themselves, built on the meta device.
"""

from __future__ import annotations

import importlib
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from spine.errors import InputError, nearest

ALLOWED_TARGETS = (
    "spine.backbones.", "spine.heads.", "spine.tasks.", "spine.datasets.", "spine.optim.", "spine.callbacks.", "spine.loggers.",
    "albumentations.", "pytorch_lightning.callbacks.", "pytorch_lightning.strategies.",
)  # fmt: skip
OF_LOADER = ("image_size", "batch_size", "num_workers", "mean", "std")  # keys of conf/dataset that are not the format's


# ---- names: Hydra's errors in our words ------------------------------------------------------------------------------


def sentence(error: BaseException) -> str | None:
    """What to tell a person of an error that is theirs; None where it is not theirs, and the trace is due."""
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException

    for link in _chain(error):
        if isinstance(link, InputError):
            return worker_sentence(str(link))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"Unknown {group or 'config'} '{choice}'.{nearest(choice, options)} Choices: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' cannot be read as key=value. {str(error).splitlines()[0]}"
    if isinstance(error, ConfigCompositionException):
        if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*'([^']*)'", str(error)):
            return _unknown_key(found[1].split("@")[0])
        return " ".join(str(error).split())
    if isinstance(error, HydraException) and not isinstance(error, MissingConfigException):
        return " ".join(str(error).split())
    return None


def _chain(error: BaseException | None):
    while error is not None:
        yield error
        error = error.__cause__


def worker_sentence(message: str) -> str:
    """The sentence alone, where a data worker wrapped it in its own trace."""
    found = re.search(r"Original Traceback.*InputError: (.*)", message, re.DOTALL)
    return found[1].strip() if found else message


def _unknown_key(key: str) -> str:
    """Names the nearest key of the configuration that the rest of the command line composes."""
    parent, _, name = key.rpartition(".")
    keys = [k for k in _keys_beside(parent, key) if not k.startswith("_")]
    prefix = f"{parent}." if parent else ""
    if not keys:
        return f"Unknown key '{key}': the configuration has nothing under '{parent}'."
    return f"Unknown key '{key}'.{nearest(name, keys, prefix)} Keys there: {', '.join(keys)}."


def _keys_beside(parent: str, bad: str) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    script = Path(sys.argv[0]).resolve()
    overrides = [a for a in sys.argv[1:] if "=" in a and not a.startswith("-") and "," not in a]
    overrides = [a for a in overrides if not a.lstrip("+~").startswith(bad)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(script.parent / "conf"), version_base="1.3"):
            config = compose(script.stem, overrides)
    except Exception:
        return []  # a second mistake on the same line: the first is still told
    node = OmegaConf.select(config, parent) if parent else config
    return sorted(map(str, node)) if node is not None else []


# ---- what a configuration may run ------------------------------------------------------------------------------------


def check_targets(node: Any, path: str = "") -> None:
    """InputError where a `_target_` is not one of ours: a configuration must not be able to run what it likes."""
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and not (isinstance(target, str) and target.startswith(ALLOWED_TARGETS)):
            raise InputError(
                f"{path.lstrip('.')}._target_='{target}' is not allowed: a configuration may name parts of "
                f"{', '.join(prefix.rstrip('.') for prefix in ALLOWED_TARGETS)} only."
            )
        for key, value in node.items():
            check_targets(value, f"{path}.{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            check_targets(value, f"{path}[{i}]")


# ---- whether the parts fit -------------------------------------------------------------------------------------------


def named(node: dict[str, Any]) -> str:
    """The name of a part: the file that its `_target_` lies in."""
    return node["_target_"].split(".")[2]


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
    if config["image_size"] is not None:
        check_image_size(config["image_size"])
    import torch

    outputs = None if task == "mae" else 2
    settle_input(config)
    opened = open_weights(config, outputs)
    settle_head(config)
    with torch.device("meta"):
        model = build_model(config, outputs)
    if opened is not None:
        load_weights(model, parts(config, outputs)[0], opened)  # on the meta device: only whether they fit


def check_image_size(size: Any) -> None:
    """InputError unless it is [height, width]."""
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise InputError(f"image_size is {size}; it is two numbers of pixels, [height, width], such as image_size=[180,240].")


def target_of(node: dict[str, Any]) -> Any:
    """The class or function that a part's `_target_` names."""
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def formats() -> dict[str, Any]:
    """Every data set format by its file."""
    import pkgutil

    from spine import datasets
    from spine.interfaces import DataSet

    found = {}
    for info in pkgutil.iter_modules(datasets.__path__):
        if info.name in ("module", "sampler", "transforms", "files"):
            continue
        module = importlib.import_module(f"spine.datasets.{info.name}")
        kinds = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, DataSet) and v is not DataSet]
        if kinds:
            found[info.name] = kinds[0]
    return found


def padded_size(config: dict[str, Any]) -> tuple[tuple[int, int], int]:
    """The size of the images that reach the network, and the multiple that dense tasks pad to for token models (else 1)."""
    import torch

    from spine.model import backbone_module

    height, width = config["image_size"]
    if named(config["task"]) != "seg":
        return (height, width), 1
    name = named(config["backbone"])
    options = {"variant": config["backbone"]["variant"]} if config["backbone"].get("variant") else {}
    with torch.device("meta"):
        patch = getattr(backbone_module(name), name)(**options, use="maps").spec.patch_size or 1
    return (height + -height % patch, width + -width % patch), patch


def settle_input(config: dict[str, Any], report: bool = True) -> None:
    """Fills in what is null of image size, crop, interpolation, mean and std: as the weights were evaluated, else as is usual.

    With `report`, prints one line for each of them that the configuration sets to something else.
    """
    from spine.inputs import InputSettings, apply_changes
    from spine.inputs import settle_input as settle
    from spine.model import read_weights

    node, settings = config["backbone"], InputSettings()
    if node.get("weights") is not None:
        settings = read_weights(named(node), node["weights"], {"variant": node.get("variant")}, node.get("layout")).input_settings
    changes, differences = settle(config, settings)
    apply_changes(config, changes)
    for difference in differences if report else ():
        print(f"The weights '{node['weights']}' were {difference}")


def settle_head(config: dict[str, Any]) -> None:
    """Writes the options of the head that are null into a plain configuration: the published network's, else the head's own."""
    from spine.model import settle_head_options

    own = {key: value for key, value in config["head"].items() if key not in ("_target_", "levels")}
    backbone = config["backbone"]
    config["head"].update(settle_head_options(named(backbone), named(config["head"]), backbone.get("variant"), own))


def parts(config: dict[str, Any], num_outputs: int | None) -> tuple[partial, dict[str, Any], dict[str, Any]]:
    """What makes the network of a plain configuration, to be called with the options of backbone and head; and these options."""
    from spine.model import build

    levels = config["head"].get("levels")
    make = partial(
        build,
        named(config["backbone"]),
        named(config["head"]),
        named(config["task"]),
        num_outputs,
        image_size=padded_size(config)[0],
        levels=tuple(levels) if levels is not None else None,
    )
    backbone = {key: value for key, value in config["backbone"].items() if key not in ("_target_", "weights", "layout")}
    head = {key: value for key, value in config["head"].items() if key not in ("_target_", "levels")}
    return make, backbone, head


def build_model(config: dict[str, Any], num_outputs: int | None) -> Any:
    """The network of a plain configuration, without weights."""
    make, backbone, head = parts(config, num_outputs)
    return make(backbone_options=backbone, head_options=head)


def open_weights(config: dict[str, Any], num_outputs: int | None) -> Any:
    """The weights file that a plain configuration names, or None; what it tells of conventions and variant is written into it."""
    if config["backbone"].get("weights") is None:
        return None
    from spine import model

    make, backbone, head = parts(config, num_outputs)
    opened = model.open_weights(make, config["backbone"]["weights"], backbone, head, config["backbone"].get("layout"))
    config["backbone"].update(opened.backbone_options)
    config["head"].update(opened.head_options)
    return opened
