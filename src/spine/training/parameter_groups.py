"""Parameter groups: the learning rate scale and the weight decay of every parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict, cast

from torch import nn

from spine.errors import InputError
from spine.interfaces import Backbone

# names of parameters that get no weight decay by default, whatever their shape
NO_WEIGHT_DECAY = (
    r"(^|\.)cls_token$", r"(^|\.)mask_token$", r"(^|\.)pos_embed$", r"(^|\.)relative_position_bias_table$",
    r"(^|\.)mask_pixel$", r"(^|\.)scale$",
)  # fmt: skip


class ParameterGroup(TypedDict):
    """Parameters with one learning rate and one weight decay."""

    params: list[nn.Parameter]
    names: list[str]  # of the parameters, in the network
    lr: float
    lr_scale: float  # lr relative to optimizer.lr
    weight_decay: float


class GroupOptions(TypedDict, total=False):
    """Options of `parameter_groups` that every optimizer takes."""

    layer_decay: float
    no_decay: Sequence[str] | None
    decay_norm_and_bias: bool
    head_lr_scale: float
    lr_scales: Mapping[str, float] | None


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float,
    layer_decay: float = 1.0,
    *,
    no_decay: Sequence[str] | None = None,
    decay_norm_and_bias: bool = False,
    head_lr_scale: float = 1.0,
    lr_scales: Mapping[str, float] | None = None,
) -> list[ParameterGroup]:
    """Returns the parameter groups of a network for an optimizer. Works on the meta device.

    Frozen parameters are left out.

    `layer_decay`: below 1, lower layers get lower learning rates: `lr` for the head and the last norm
    of the backbone, then lr * layer_decay, lr * layer_decay^2, ... for the layer groups of the backbone
    from the last one to the stem (BEiT's code, `optim_factory.py`).
    `no_decay`: regular expressions; parameters with a match in their name, such as
    `backbone.blocks.0.norm1.weight`, get no weight decay. None: NO_WEIGHT_DECAY.
    `decay_norm_and_bias`: False gives vectors, biases and scales of channels no weight decay.
    `head_lr_scale`: factor of the learning rate of the heads. `lr_scales`: further factors by regular
    expression; if several match, their product.

    Raises InputError if a value is out of range, if an expression is not valid, or if one of
    `lr_scales` matches no parameter.
    """
    if not 0 < layer_decay <= 1:
        raise InputError(
            f"optimizer.layer_decay is {layer_decay}; it must be above 0 and at most 1. 1 gives all layers the same learning rate."
        )
    if layer_decay < 1 and not isinstance(getattr(model, "backbone", None), Backbone):
        raise InputError(
            f"optimizer.layer_decay is {layer_decay}, but this network has no backbone, whose layers it is for. Use 1.0."
        )
    undecayed = _compiled(NO_WEIGHT_DECAY if no_decay is None else no_decay, "no_decay")
    scales = dict(zip(_compiled(lr_scales or {}, "lr_scales"), (lr_scales or {}).values(), strict=True))
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    _require_matches(scales, parameters)
    depths = _depths(model, parameters) if layer_decay < 1 else {}
    groups: dict[tuple[float, bool], ParameterGroup] = {}
    for name, parameter in parameters.items():
        scale = layer_decay ** depths.get(name, 0)
        scale *= head_lr_scale if name.startswith(("head.", "auxiliary_head.")) else 1.0
        for pattern, factor in scales.items():
            scale *= factor if pattern.search(name) else 1.0
        decayed = (decay_norm_and_bias or not _is_vector(parameter)) and not any(p.search(name) for p in undecayed)
        empty: ParameterGroup = {
            "params": [],
            "names": [],
            "lr": lr * scale,
            "lr_scale": scale,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        group = groups.setdefault((scale, decayed), empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def _is_vector(parameter: nn.Parameter) -> bool:
    return parameter.ndim < 2 or parameter[0].numel() == 1  # (C, 1, 1) scales the channels of a feature map


def _depths(model: nn.Module, names: Iterable[str]) -> dict[str, int]:
    """Returns how many layer groups are above each parameter of the backbone."""
    layer_groups = cast(Backbone, model.backbone).layer_groups()
    depths = {}
    for name in names:
        if name.startswith("backbone."):
            own_name = name.removeprefix("backbone.")
            level = next(i for i, prefixes in enumerate(layer_groups) if own_name.startswith(prefixes))
            depths[name] = len(layer_groups) - 1 - level
    return depths


def _compiled(patterns: Iterable[str], key: str) -> list[re.Pattern[str]]:
    """Compiles regular expressions. Raises InputError for the first that is not valid."""
    compiled = []
    for pattern in patterns:
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise InputError(f"optimizer.{key}: '{pattern}' is not a regular expression ({error}).") from error
    return compiled


def _require_matches(scales: Iterable[re.Pattern[str]], names: Iterable[str]) -> None:
    for pattern in scales:
        if not any(pattern.search(name) for name in names):
            examples = ", ".join(list(names)[:3])
            raise InputError(
                f"optimizer.lr_scales: '{pattern.pattern}' matches no parameter that is trained. Their names are such as {examples}."
            )
