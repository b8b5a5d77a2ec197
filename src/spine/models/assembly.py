"""Builds a network from the names and options of its parts."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

import torch

from spine.components import (
    backbone_builder,
    backbone_module,
    check_arguments,
    component_name,
    default_variant,
    defaults,
    head_class,
    modules,
    task_spec,
)
from spine.errors import InputError, nearest
from spine.interfaces import Backbone, FeatureSpec, Head, pick_levels
from spine.models.masked import MaskedModel
from spine.models.network import Auxiliary, Model
from spine.network_definition import NetworkDefinition
from spine.option_types import Config, Options
from spine.task_spec import INPUT_NAMES, TaskSpec
from spine.variants import System

NOT_OF_BUILDER = ("_target_", "weights", "layout")  # keys of `backbone` in a configuration that are not arguments of its builder
NOT_OF_HEAD = ("_target_", "levels")
# Options of an auxiliary head, an FCN: those of most networks of OpenMMLab. It reads the second coarsest map.
AUXILIARY_HEAD: Options = {"level": -2, "weight": 0.4, "channels": 256, "num_convs": 1, "concat_input": False, "dropout": 0.1}


def task_of(config: Config) -> TaskSpec:
    """The specification of the task of a plain configuration."""
    return task_spec(component_name("task", config["task"]["_target_"]))


def network_class(task: TaskSpec) -> type[NetworkDefinition]:
    """What defines the networks of a task: NetworkConfig for a backbone and a head, unless the task names another class."""
    if task.network is None:
        return NetworkConfig
    module, _, name = task.network.rpartition(".")
    return getattr(importlib.import_module(module), name)


def network_of(config: Config, num_outputs: int | None) -> NetworkDefinition:
    """The network of a plain configuration, with the image size that token networks receive after padding."""
    return network_class(task_of(config)).from_config(config, num_outputs)


@functools.cache
def _patch_size(builder: Callable[..., Backbone], variant: str) -> int | None:
    """The patch size of a variant; None if it has no patches. Kept, since a run asks several times and a network takes long to build."""
    with torch.device("meta"):
        return builder(variant, use="maps").spec.patch_size


def head_fits(head: type[Head], task: TaskSpec) -> bool:
    """Whether a task passes the head's input to its head, and takes the head's output."""
    return head.reads == task.head_input and (head.tasks is None or task.name in head.tasks)


@dataclass(frozen=True)
class NetworkConfig(NetworkDefinition):
    """Everything that determines a network: a backbone, a head and a task by name, and their options.

    `backbone`, `head`: names of modules. `num_outputs`: classes or keypoints; None if the task or the patch size decides.
    `image_size`: (height, width), for networks with position embeddings. `levels`: the feature maps that the head reads; None for
    the head's own choice. `backbone_options`: arguments of the backbone's builder, `variant` among them; `head_options`:
    arguments of the head's constructor. `auxiliary_head`: changes of AUXILIARY_HEAD; a weight of 0 leaves it out; None for that of
    the published network, if it has one. Options that are None or missing are those of the published network (`System`).
    """

    backbone: str
    head: str
    task: TaskSpec
    num_outputs: int | None = None
    image_size: tuple[int, int] | None = None
    levels: tuple[int, ...] | None = None
    backbone_options: Options = field(default_factory=dict)
    head_options: Options = field(default_factory=dict)
    auxiliary_head: Options | None = None

    @classmethod
    def from_config(cls, config: Config, num_outputs: int | None) -> NetworkConfig:
        """The network of a plain configuration, with the image size that token networks receive after padding."""
        backbone, head = config["backbone"], config["head"]
        levels = head.get("levels")
        network = cls(
            component_name("backbone", backbone["_target_"]),
            component_name("head", head["_target_"]),
            task_of(config),
            num_outputs,
            levels=tuple(levels) if levels is not None else None,
            backbone_options={key: value for key, value in backbone.items() if key not in NOT_OF_BUILDER},
            head_options={key: value for key, value in head.items() if key not in NOT_OF_HEAD},
            auxiliary_head=config.get("auxiliary_head"),
        )
        network = network._with_options_of_older_versions()
        height, width = config["image_size"]
        multiple = network.padding_multiple
        return replace(network, image_size=(height + -height % multiple, width + -width % multiple))

    def _with_options_of_older_versions(self) -> NetworkConfig:
        """A copy in which published options that a configuration of an older version lacks have their defaults.

        It is of an older version if it lacks such an option of the head.
        """
        published = published_system(self)
        own = defaults(head_class(self.head).__init__)
        head = {key: own[key] for key in published.head if key not in self.head_options}
        if not head:
            return self
        of_builder = defaults(backbone_builder(self.backbone))
        backbone = {key: of_builder[key] for key in published.backbone}
        return self.with_options({**backbone, **self.backbone_options}, {**self.head_options, **head})

    @classmethod
    def from_dict(cls, saved: Config) -> NetworkConfig:
        """The network of a dictionary that `to_dict` returned."""
        pair = {key: tuple(saved[key]) if saved[key] is not None else None for key in ("image_size", "levels")}
        network = cls(**{**saved, "task": task_spec(saved["task"]), **pair})
        older = "auxiliary_head" not in saved and saved["head_options"]
        return network._with_options_of_older_versions() if older else network

    def to_dict(self) -> dict[str, object]:
        """The network as plain values, for checkpoints."""
        plain = {name: getattr(self, name) for name in ("backbone", "head", "num_outputs", "image_size", "levels")}
        options = {"backbone_options": dict(self.backbone_options), "head_options": dict(self.head_options)}
        auxiliary = None if self.auxiliary_head is None else dict(self.auxiliary_head)
        return {**plain, **options, "auxiliary_head": auxiliary, "task": self.task.name}

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return int(self.backbone_options.get("in_chans", 3))  # type: ignore[call-overload]

    @property
    def summary(self) -> str:
        """Backbone, variant and head, such as "convnext micro + linear"."""
        return f"{self.backbone} {self.variant} + {self.head}"

    @property
    def padding_multiple(self) -> int:
        """The multiple to which images are padded: the patch size of token networks if the task pads, else 1."""
        if not self.task.pads_images:
            return 1
        if isinstance(given := self.backbone_options.get("patch_size"), int):
            return given
        return _patch_size(backbone_builder(self.backbone), self.variant) or 1

    @property
    def variant(self) -> str:
        """The variant of the backbone: the one that the options name, else the builder's default."""
        return str(self.backbone_options.get("variant") or default_variant(self.backbone))

    def with_options(self, backbone_options: Options, head_options: Options) -> NetworkConfig:
        """A copy with other options. `levels` among those of the head are the levels that it reads, if none are given."""
        options = dict(head_options)
        found = cast(tuple[int, ...] | None, options.pop("levels", None))
        levels = self.levels if self.levels is not None else found
        return replace(self, backbone_options=dict(backbone_options), head_options=options, levels=levels)

    def build(self) -> Model | MaskedModel:
        """Builds the backbone for the input of the head, then the head from the backbone's FeatureSpec.

        Raises InputError if a name or option is unknown, or if the parts do not fit together.
        """
        net = self._build()
        net.config = self
        return net

    def _build(self) -> Model | MaskedModel:
        head_type = head_class(self.head)
        self._check_head(head_type)
        options = self._checked_backbone_options()
        check_arguments(head_type.__init__, self.head_options, "head")
        make, head_options = backbone_builder(self.backbone), resolve_head_options(self)
        if self.image_size is not None and "image_size" in inspect.signature(head_type.__init__).parameters:
            head_options["image_size"] = tuple(self.image_size)
        if head_type.reads == "pooled":
            net = make(**options, use="pooled")
            return Model(net, head_type(net.spec, self._known_outputs(), **head_options))
        offered = self.offered(options)
        if head_type.reads == "maps":
            return self._build_dense(head_type, head_options, options, offered)
        return self._build_masked(head_type, head_options, options, offered)

    def offered(self, options: Options | None = None) -> FeatureSpec:
        """The FeatureSpec of the backbone if it is built for all feature maps. Nothing is allocated."""
        options = self._checked_backbone_options() if options is None else options
        with torch.device("meta"):
            return backbone_builder(self.backbone)(**options, use="maps").spec

    def _build_dense(self, head_type: type[Head], head_options: Options, options: Options, offered: FeatureSpec) -> Model:
        """The backbone has the maps of the head and of the auxiliary head."""
        make, outputs, count = backbone_builder(self.backbone), self._known_outputs(), len(offered.levels)
        main = pick_levels(self.levels if self.levels is not None else head_type.choose_levels(offered), count)
        auxiliary = resolve_auxiliary_head(self)
        (extra,) = pick_levels((auxiliary.pop("level"),), count) if auxiliary else main[:1]  # type: ignore[arg-type]
        levels = tuple(sorted({*main, extra}))
        net = make(**options, use="maps", levels=levels)

        def build(kind: type[Head], chosen: tuple[int, ...], arguments: Options) -> Head:
            spec = replace(net.spec, levels=tuple(net.spec.levels[levels.index(level)] for level in chosen))
            return kind(spec, outputs, **arguments)

        head, second = build(head_type, main, head_options), None
        if auxiliary:
            weight = float(auxiliary.pop("weight"))  # type: ignore[arg-type]
            module = build(head_class("fcn"), (extra,), {**auxiliary, "join": False})
            second = Auxiliary(module, weight, levels.index(extra), tuple(map(levels.index, main)))
        return Model(net, head, second, self.task.auxiliary_losses)

    def _build_masked(self, head_type: type[Head], head_options: Options, options: Options, offered: FeatureSpec) -> MaskedModel:
        make, in_chans = backbone_builder(self.backbone), self.in_chans
        ways = offered.masking.intersection(self.task.masking)
        masking = next((way for way in head_type.masking if way in ways), "pixel")
        if masking == "pixel":
            net = make(**options, use="maps", levels=(-1,))
            spec = MaskedModel.mask_pixel_spec(net.spec, self.image_size or (224, 224))
        else:
            net = make(**options, use=masking)
            spec = net.spec
        patch_values = (spec.patch_size or 0) ** 2 * in_chans
        outputs = self.num_outputs or self.task.num_outputs or patch_values
        return MaskedModel(net, head_type(spec, outputs, **head_options), spec, masking, in_chans)

    def _check_head(self, head_type: type[Head]) -> None:
        (wanted, _), task = self.task.require_head(), self.task.name
        if not head_fits(head_type, self.task):
            fitting = [name for name in modules("head") if head_fits(head_class(name), self.task)]
            reason = f"'{self.head}' reads {INPUT_NAMES[head_type.reads]}"
            if head_type.reads == wanted:
                reason = f"the output of '{self.head}' is for {' and '.join(head_type.tasks or ())}"
            raise InputError(
                f"Task '{task}' passes {INPUT_NAMES[wanted]} to its head; {reason}. Heads for {task}: {', '.join(fitting)}."
            )
        if self.levels is not None and head_type.reads != "maps":
            raise InputError(f"head.levels selects feature maps; head '{self.head}' reads {INPUT_NAMES[head_type.reads]}.")

    def _checked_backbone_options(self) -> dict[str, object]:
        """The options for the builder, with `variant` and `image_size` if it takes one. Raises InputError for an unknown one."""
        make = backbone_builder(self.backbone)
        variants = list(backbone_module(self.backbone).VARIANTS)
        if self.variant not in variants:
            raise InputError(
                f"Unknown variant '{self.variant}' of {self.backbone}.{nearest(self.variant, variants)} "
                f"Choices: {', '.join(variants)}."
            )
        options = {**resolve_backbone_options(self), "variant": self.variant}
        check_arguments(make, options, "backbone")
        if self.image_size is not None and "image_size" in inspect.signature(make).parameters:
            options["image_size"] = tuple(self.image_size)
        return options

    def _known_outputs(self) -> int:
        if self.num_outputs is None:
            raise InputError(f"num_outputs is missing: task '{self.task.name}' needs the number of its classes or keypoints.")
        return self.num_outputs


def published_system(network: NetworkConfig) -> System:
    """Options that the published network of this backbone, variant and head has. Empty if none is known."""
    systems: dict[str, dict[str, System]] = getattr(backbone_module(network.backbone), "SYSTEMS", {})
    return systems.get(network.head, {}).get(network.variant, System())


def resolve_head_options(network: NetworkConfig) -> dict[str, object]:
    """The options of the head with every None replaced: by the published network's value, else by the head's default.

    Options that the published network sets and `network.head_options` does not mention are added.
    """
    return _resolved(network.head_options, published_system(network).head, head_class(network.head).__init__)


def resolve_backbone_options(network: NetworkConfig) -> dict[str, object]:
    """The options of the backbone, resolved like those of the head."""
    return _resolved(network.backbone_options, published_system(network).backbone, backbone_builder(network.backbone))


def _resolved(given: Options, published: Options, function: Callable) -> dict[str, object]:
    own = defaults(function)
    fallbacks = {key: own[key] for key, value in given.items() if value is None and key in own}
    return {**fallbacks, **published, **{key: value for key, value in given.items() if value is not None}}


def resolve_auxiliary_head(network: NetworkConfig) -> dict[str, object]:
    """The options of the auxiliary head, resolved like those of the head; empty if there is none.

    Raises InputError for an unknown option, or if the task has no auxiliary losses.
    """
    given, published, task = network.auxiliary_head, published_system(network).auxiliary_head, network.task
    if given is None and (published is None or not task.auxiliary_losses):
        return {}
    own = {key: value for key, value in (given or {}).items() if value is not None}
    if unknown := [key for key in own if key not in AUXILIARY_HEAD]:
        hint = nearest(unknown[0], list(AUXILIARY_HEAD))
        raise InputError(f"Unknown key 'auxiliary_head.{unknown[0]}'.{hint} Choices: {', '.join(sorted(AUXILIARY_HEAD))}.")
    options = {**AUXILIARY_HEAD, **(published or {}), **own}
    if not options["weight"]:
        return {}
    if not task.auxiliary_losses:
        raise InputError(
            f"auxiliary_head adds the loss of a second segmentation, and task '{task.name}' has none. Leave it out, or use task=seg."
        )
    return options
