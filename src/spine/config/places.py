"""Which classes and functions a configuration may name in `_target_`.

Each place of a configuration takes one kind of part. Names are compared with what the place allows before anything is imported, because
importing runs code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from spine import components, plugins
from spine.config import schemas
from spine.config.dataset_parts import dataset_parts
from spine.config.schemas import Config
from spine.errors import InputError

NAME = r"[A-Za-z][A-Za-z0-9_]*"  # no leading underscore: private names are no parts
COMPOSITES = ("OneOf", "SomeOf", "RandomOrder", "Sequential")  # albumentations' transforms that hold a list of others
# Transforms that a configuration cannot use, and why.
REFUSED_TRANSFORMS = {
    "Albumentations": "transforms of albumentations are steps themselves",
    "Lambda": "it calls functions, which a configuration cannot hold",
    "TextImage": "it opens a font file by its path",
    "FDA": "it reads other images by a function",
    "HistogramMatching": "it reads other images by a function",
    "PixelDistributionAdaptation": "it reads other images by a function",
    "TemplateTransform": "it reads other images",
    "Mosaic": "it needs further images in each sample",
    "OverlayElements": "it needs further images in each sample",
}
REFUSED_CALLBACKS = {
    "LambdaCallback": "it calls functions, which a configuration cannot hold",
    "OnExceptionCheckpoint": "with it, Lightning resumes from any earlier checkpoint in its folder without being asked",
}


@dataclass(frozen=True)
class Place:
    """What a `_target_` at one place of a configuration may name."""

    description: str  # for messages
    accepts: Callable[[str], bool]  # by the name alone
    base: str = ""  # the class that parts are subclasses of; none if they are functions


def _builder(target: str) -> bool:
    return target in {f"{module}.{name}" for name, module in components.modules("backbone").items()}


def _class_of(kind: str) -> Callable[[str], bool]:
    def accepts(target: str) -> bool:
        module, _, name = target.rpartition(".")
        return module in components.modules(kind).values() and re.fullmatch(NAME, name) is not None

    return accepts


def _task(target: str) -> bool:
    module, _, name = target.rpartition(".")
    in_task = module in {f"{task}.task" for task in components.modules("task").values()}
    return in_task and re.fullmatch(NAME, name) is not None and name != "Task"


def _protocol(target: str) -> bool:
    specs = map(components.task_spec, components.modules("task"))
    return any(target == protocol.target for spec in specs for protocol in spec.protocols.values())


def _in_folder(folder: str, target: str) -> bool:
    """Whether a name is in a module of a folder of spine or of a plug-in, such as data.transforms."""
    return any(
        re.fullmatch(rf"{re.escape(f'{package}.{folder}')}(\.{NAME})?\.{NAME}", target) is not None
        for package in plugins.packages()
    )


def _augmentation(target: str) -> bool:
    own = _in_folder("data.transforms", target)
    other = rf"albumentations(\.augmentations(\.{NAME})+)?\.{NAME}"
    name = target.rpartition(".")[2]
    return (own or re.fullmatch(other, target) is not None) and name not in REFUSED_TRANSFORMS


def _callback(target: str) -> bool:
    pattern = rf"pytorch_lightning\.callbacks(\.{NAME})?\.{NAME}|spine\.training\.{NAME}\.{NAME}"
    own = _in_folder("callbacks", target)
    return (own or re.fullmatch(pattern, target) is not None) and target.rpartition(".")[2] not in REFUSED_CALLBACKS


def _loss(target: str) -> bool:
    module, _, name = target.rpartition(".")
    in_task = module in {f"{task}.losses" for task in components.modules("task").values()}
    return (in_task and re.fullmatch(NAME, name) is not None) or _in_folder("losses", target)


def _of_schema(place: str, what: str) -> Place:
    targets = schemas.PARTS[place]
    return Place(f"{what}: {', '.join(targets)}", targets.__contains__)


PLACES = {
    "backbone": Place("the builder of a backbone, such as spine.backbones.vit.vit", _builder),
    "head": Place("a head, such as spine.heads.linear.Linear", _class_of("head"), "spine.interfaces.Head"),
    "dataset": Place(
        "a data set, such as spine.data.formats.image_folder.ImageFolder", _class_of("dataset"), "spine.interfaces.DataSet"
    ),
    "task": Place("a task, such as spine.tasks.cls.task.Classification", _task, "spine.tasks.base.Task"),
    "protocol": Place("the class of a protocol of the task", _protocol, "spine.tasks.base.Task"),
    "task.loss": Place(
        "a loss of the task, such as spine.tasks.seg.losses.Lovasz, or one in the folder `losses` of a plug-in",
        _loss,
        "torch.nn.Module",
    ),
    "optimizer": _of_schema("optimizer", "an optimizer"),
    "schedule": _of_schema("schedule", "a schedule"),
    "logger": _of_schema("logger", "a logger"),
    "augment": Place(
        "a transform of spine.data.transforms or of albumentations that needs plain values only, "
        "such as albumentations.HorizontalFlip",
        _augmentation,
    ),
    "augment.batch": Place(
        "a transform of batches, such as spine.data.transforms.Mixing",
        lambda target: _in_folder("data.transforms", target),
        "spine.interfaces.BatchTransform",
    ),
    "callbacks.more": Place(
        "a callback of pytorch_lightning.callbacks or of spine that needs plain values only, "
        "such as pytorch_lightning.callbacks.EarlyStopping",
        _callback,
        "pytorch_lightning.Callback",
    ),
}
PATHS = {  # where a `_target_` may be
    r"backbone|head|dataset|task|protocol|optimizer|schedule|task\.loss|augment\.batch": None,
    r"task\.loss\[\d+\]": "task.loss",
    rf"dataset\.parts\.{NAME}": "dataset",
    rf"logger\.{NAME}": "logger",
    r"augment\.(train|eval)\[\d+\](\.transforms\[\d+\])*": "augment",
    rf"callbacks\.more\.{NAME}": "callbacks.more",
}


def place_of(path: str) -> Place | None:
    """The place of a node by its path, such as `augment.train[0]`. None if no part belongs there."""
    for pattern, name in PATHS.items():
        if re.fullmatch(pattern, path):
            return PLACES[name or path]
    return None


def check_targets(config: Config) -> None:
    """Raises InputError if a `_target_` is not one that its place allows, or if a place has none. Imports nothing."""
    _check_node(config, "")
    for place, path, node in _parts(config):
        if not _is_interpolation(node) and not (isinstance(node, dict) and "_target_" in node):
            raise InputError(f"{path} has no _target_; it should name {PLACES[place].description}.")


def _parts(config: Config) -> Iterator[tuple[str, str, object]]:
    """Place, path and node of every part of a configuration. Interpolations are skipped: they are checked once resolved."""
    for name in PLACES:
        if isinstance(config.get(name), dict) and name not in ("augment", "logger", "protocol"):
            yield name, name, config[name]
    for path, part in dataset_parts(config).items():
        yield "dataset", path, part
    for path, step in augmentations(config):
        yield "augment", path, step
    if (batch := (config.get("augment") or {}).get("batch")) is not None:
        yield "augment.batch", "augment.batch", batch
    more = (config.get("callbacks") or {}).get("more") or {}
    for place, nodes in (("callbacks.more", more), ("logger", config.get("logger") or {})):
        if not isinstance(nodes, dict):
            raise InputError(f"{place} is {nodes!r}; it holds named nodes, each with its _target_.")
        for name, node in nodes.items():
            yield place, f"{place}.{name}", node


def augmentations(config: Config) -> list[tuple[str, Config]]:
    """Path and node of every step of augment.train and augment.eval."""
    augment = config.get("augment") or {}
    if not isinstance(augment, dict) or not augment.keys() <= {"train", "eval", "batch"}:
        raise InputError("augment holds two lists of transforms, augment.train and augment.eval, and augment.batch.")
    steps = []
    for mode, listed in augment.items():
        if mode == "batch":
            continue
        if isinstance(listed, list):
            steps += [(f"augment.{mode}[{i}]", step) for i, step in enumerate(listed)]
        elif not _is_interpolation(listed):
            raise InputError(f"augment.{mode} is {listed!r}; it is a list of transforms, each with its _target_.")
    return steps


def _is_interpolation(value: object) -> bool:
    return isinstance(value, str) and value.startswith("${")


def _check_node(node: object, path: str) -> None:
    if isinstance(node, dict):
        if "_target_" in node:
            check_target(node["_target_"], path)
            check_children(node, path)
        for key, value in node.items():
            _check_node(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            _check_node(value, f"{path}[{i}]")


def is_composite(target: object) -> bool:
    """Whether a target is one of albumentations' transforms that hold a list of others."""
    return target in {f"albumentations.{name}" for name in COMPOSITES}


def check_children(node: Config, path: str) -> None:
    """Raises InputError if the node is a composite of albumentations and its children are not transforms of albumentations."""
    if not is_composite(node["_target_"]) or _is_interpolation(node.get("transforms")):
        return
    name, children = node["_target_"].rpartition(".")[2], node.get("transforms")
    if "transforms" not in node:
        raise InputError(f"{path} has no key 'transforms': {name} needs a list of transforms of albumentations.")
    if not isinstance(children, list) or not children:
        raise InputError(
            f"{path}.transforms is {children!r}; it is a list of transforms of albumentations, each with its _target_."
        )
    for i, child in enumerate(children):
        if _is_interpolation(child):
            continue
        place = f"{path}.transforms[{i}]"
        if not isinstance(child, dict) or "_target_" not in child:
            raise InputError(f"{place} has no _target_; it should name a transform, such as albumentations.GaussianBlur.")
        if not str(child["_target_"]).startswith("albumentations."):
            raise InputError(
                f"{place}._target_='{child['_target_']}' is not allowed: {name} holds transforms of albumentations only, "
                f"such as albumentations.GaussianBlur."
            )


def check_target(target: object, path: str) -> Place:
    """The place of a node. Raises InputError if the place does not allow the node's `_target_`. Imports nothing."""
    place = place_of(path)
    if place is None:
        raise InputError(f"{path or 'The configuration'} cannot have a _target_ ('{target}'): no part is built there.")
    if isinstance(target, str) and place.accepts(target):
        return place
    reasons = {"augment": REFUSED_TRANSFORMS, "callbacks.more": REFUSED_CALLBACKS}
    known = next((table for name, table in reasons.items() if place is PLACES[name]), {})
    reason = known.get(str(target).rpartition(".")[2])
    because = f" ({reason})" if reason else ""
    raise InputError(
        f"{path}._target_='{target}' is not allowed{because}: it may name {place.description}.{_plugin_hint(str(target))}"
    )


def _plugin_hint(target: str) -> str:
    """A hint for names that can only be of a plug-in that was not given."""
    package = target.partition(".")[0]
    foreign = package not in (*plugins.packages(), "albumentations", "pytorch_lightning", "torch")
    return f" If '{package}' is a plug-in, give its folder with plugins=<folder>." if foreign and "." in target else ""
