"""Builders of backbones: functions that build a variant of a network by its name; and published systems."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from spine.errors import InputError

Network = TypeVar("Network", bound=nn.Module)
Hyperparameters = dict[str, Any]  # arguments of a constructor that a variant sets


@dataclass(frozen=True)
class System:
    """What makes a backbone and a head a published network: options that apply if the user does not give others.

    A backbone's module may have a table `SYSTEMS`: head -> variant -> System.
    """

    head: Hyperparameters = field(default_factory=dict)
    backbone: Hyperparameters = field(default_factory=dict)  # of the builder
    auxiliary_head: Hyperparameters | None = None  # None: the network has none


def variant_builder(*networks: type[nn.Module]) -> Callable[[Callable[..., Network]], Callable[..., Network]]:
    """Completes the signature of a builder with the options of the networks that it builds.

    A builder is a function `builder(variant="...", **options)`. This decorator replaces `**options`
    in its signature with the keyword-only arguments that all constructors of `networks` have in
    common. Their types and defaults are those of the first constructor. Arguments that the builder
    names itself are kept.

    Therefore a constructor lists its arguments in two groups: hyperparameters of the architecture
    before the `*`, which the table of variants sets, and options of the user after it. Builders
    raise TypeError for everything that is not an option:

        @variant_builder(ViT)
        def vit(variant: str = "base_patch16", **options: Any) -> ViT:
            return ViT(**VARIANTS[variant], **options)
    """

    def decorate(builder: Callable[..., Network]) -> Callable[..., Network]:
        signature = _complete_signature(builder, networks)

        @functools.wraps(builder)
        def build(*args: object, **options: object) -> Network:
            try:
                signature.bind(*args, **options)
            except TypeError as error:
                raise TypeError(f"{builder.__name__}() {error}") from None
            return builder(*args, **options)

        build.__signature__ = signature  # type: ignore[attr-defined]
        build.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
        build.__annotations__["return"] = signature.return_annotation
        return build

    return decorate


def with_patch_size(hyperparameters: Hyperparameters, patch_size: int | None) -> Hyperparameters:
    """Returns the hyperparameters of a variant with another patch size in pixels. None keeps that of the variant.

    Raises InputError for a hybrid, whose patches are cut from the map of a ResNet, and if `patch_size` is below 1.
    """
    if patch_size is None:
        return hyperparameters
    if "resnet" in hyperparameters:
        raise InputError(
            f"backbone.patch_size is {patch_size}, but the ResNet of a hybrid determines the patch size of this variant. "
            f"Leave it out, or choose a variant without a ResNet."
        )
    if patch_size < 1:
        raise InputError(f"backbone.patch_size is {patch_size}; it must be a whole number of pixels, 1 or more.")
    return {**hyperparameters, "patch_size": patch_size}


def _complete_signature(builder: Callable, networks: tuple[type[nn.Module], ...]) -> inspect.Signature:
    """Returns the signature of a builder with the common options of `networks`."""
    parameters = [p for p in _parameters(builder) if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named = {parameter.name for parameter in parameters}
    options = [[p for p in _parameters(network.__init__) if p.kind is inspect.Parameter.KEYWORD_ONLY] for network in networks]
    shared = set.intersection(*({option.name for option in of_one} for of_one in options)) - named
    parameters += [option for option in options[0] if option.name in shared]
    return inspect.Signature(parameters, return_annotation=typing.get_type_hints(builder)["return"])


def _parameters(function: Callable) -> list[inspect.Parameter]:
    """Returns the parameters of a function, with annotations as types instead of text."""
    hints = typing.get_type_hints(function)
    found = inspect.signature(function).parameters.values()
    return [parameter.replace(annotation=hints.get(parameter.name, parameter.annotation)) for parameter in found]
