"""The images that published weights were evaluated on: size, crop, interpolation, mean and standard deviation.

A configuration takes these settings if its own keys are null. If it sets other values, the differences
are reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from spine.components import component_name
from spine.option_types import Config

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF_MEAN, HALF_STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # images in -1..1, as for networks of Google and TensorFlow
DEFAULT_SIZE, DEFAULT_CROP, DEFAULT_INTERPOLATION = (224, 224), 0.875, "auto"

Changes = dict[str, object]  # values of a configuration by dotted key, such as "augment.eval.0.crop_pct"


@dataclass(frozen=True)
class InputSettings:
    """Preprocessing of the images when the published metrics of a network were measured. None if unknown.

    `image_size`: (height, width) in pixels. `crop_pct`: image size divided by the size before the center
    crop. `interpolation`: bilinear or bicubic, both antialiased. `mean`, `std`: one value for each channel,
    of RGB values in 0..1. `note`: a difference that spine cannot reproduce; completes "The weights were ...".
    `channels`: their order in the images, rgb or bgr.
    """

    image_size: tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    note: str = ""
    channels: str | None = None

    def over(self, other: InputSettings) -> InputSettings:
        """Returns these settings; those that are unknown are taken from `other`."""
        return InputSettings(*(getattr(self, field.name) or getattr(other, field.name) for field in fields(self)))


IMAGENET = InputSettings(mean=IMAGENET_MEAN, std=IMAGENET_STD)
IMAGENET_BICUBIC = replace(IMAGENET, interpolation="bicubic")
HALF = InputSettings(mean=HALF_MEAN, std=HALF_STD)


def settings_of_config(config: Mapping[str, object]) -> InputSettings:
    """Returns the settings of a run of spine from the configuration in its checkpoint. Unknown for any other configuration."""
    dataset, augment = _node(config, "dataset"), _node(config, "augment")
    steps = augment.get("eval")
    crops = [step for step in steps if isinstance(step, dict) and "crop_pct" in step] if isinstance(steps, list) else []
    crop = crops[0] if crops else {}
    size, interpolation = _numbers(config.get("image_size"), 2), crop.get("interpolation")
    return InputSettings(
        (int(size[0]), int(size[1])) if size else None,
        crop["crop_pct"] if isinstance(crop.get("crop_pct"), float | int) else None,
        interpolation if isinstance(interpolation, str) else None,
        _numbers(dataset.get("mean")),
        _numbers(dataset.get("std")),
        channels=order if isinstance(order := dataset.get("channels"), str) else None,
    )


def _node(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    node = config.get(key)
    return node if isinstance(node, dict) else {}


def _numbers(value: object, count: int | None = None) -> tuple[float, ...] | None:
    """A list of numbers as a tuple. None if it is something else or has not `count` elements."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(x, int | float) for x in value):
        return None
    return tuple(value) if count in (None, len(value)) else None


def input_changes(config: Config, settings: InputSettings) -> tuple[Changes, list[str]]:
    """Returns the values that a plain configuration takes from `settings`, and where it differs from them. Changes nothing.

    The values are for all keys that are null in `config`: those of `settings`, else the defaults (224x224
    pixels, mean and std of ImageNet, crop_pct 0.875). The differences are one message for each key that has
    another value. Each completes "The weights were ...".
    """
    changes: Changes = {}
    differences: list[str] = []
    _size_changes(config, settings, changes, differences)
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        known, given = getattr(settings, name), config["dataset"].get(name)
        if given is None:
            changes[f"dataset.{name}"] = list(known or default)
        elif known and _differ(given, known):
            differences.append(f"evaluated with {name} {_rounded(known)}; dataset.{name} is {_rounded(given)}.")
    _channel_changes(config, settings, changes, differences)
    for key, step in _steps(config):
        if key.startswith("augment.eval."):
            _crop_changes(key, step, settings, changes, differences)
        elif step.get("interpolation", "") is None and _is_own(step):
            changes[f"{key}.interpolation"] = settings.interpolation or DEFAULT_INTERPOLATION
        if step.get("fill", "") is None and _is_own(step):  # the mean color
            mean: Sequence[float] = config["dataset"].get("mean") or changes["dataset.mean"]  # type: ignore[assignment]
            changes[f"{key}.fill"] = [min(255, round(255 * value)) for value in mean]
    if settings.crop_pct and _is_classification(config) and not any("crop_pct" in step for _, step in _steps(config)):
        differences.append(f"evaluated on a center crop (crop_pct {settings.crop_pct:.4g}); augment.eval has no CenterCrop.")
    if settings.note:
        differences.append(settings.note)
    return changes, differences


def _size_changes(config: Config, settings: InputSettings, changes: Changes, differences: list[str]) -> None:
    """The image size, and the sizes of the data set and of the augmentation steps, which follow it."""
    known, given = list(settings.image_size or DEFAULT_SIZE), config.get("image_size")
    if given is None:
        changes["image_size"] = known
    elif settings.image_size and list(given) != known:
        shown = ["x".join(map(str, size)) for size in (known, given)]
        differences.append(f"evaluated at {shown[0]} pixels; image_size is {shown[1]}.")
    size = known if given is None else given
    changes |= {f"dataset.{key}": size for key in ("image_size", "size") if config["dataset"].get(key, size) is None}
    changes |= {f"{key}.size": size for key, step in _steps(config) if "size" in step and step["size"] is None}


def _channel_changes(config: Config, settings: InputSettings, changes: Changes, differences: list[str]) -> None:
    """The order of the channels."""
    known, given = settings.channels, config["dataset"].get("channels")
    if given is None:
        changes["dataset.channels"] = known or "rgb"
    elif known not in (None, given):
        differences.append(f"made for images in {known.upper()} order; dataset.channels is {given}.")


def _crop_changes(key: str, step: Config, settings: InputSettings, changes: Changes, differences: list[str]) -> None:
    """The crop and the interpolation of one evaluation step, if it has these options."""
    for name, default in (("crop_pct", DEFAULT_CROP), ("interpolation", DEFAULT_INTERPOLATION)):
        if name not in step:
            continue
        known, given = getattr(settings, name), step[name]
        if given is None:
            changes[f"{key}.{name}"] = known or default
        elif known and (_differ([given], [known]) if name == "crop_pct" else given != known):
            shown = f"{known:.4g}" if name == "crop_pct" else known
            differences.append(f"evaluated with {name} {shown}; {key}.{name} is {given}.")


def apply_changes(config: Config, changes: Changes) -> None:
    """Writes values by dotted key into a plain configuration."""
    for key, value in changes.items():
        *path, last = key.split(".")
        node: Any = config
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[last] = list(value) if isinstance(value, list) else value


def _steps(config: Config) -> Iterator[tuple[str, Config]]:
    """Dotted key and node of every augmentation step."""
    for mode in ("train", "eval"):
        for i, step in enumerate(config["augment"].get(mode) or ()):
            yield from _with_children(f"augment.{mode}.{i}", step)


def _with_children(key: str, step: Config) -> Iterator[tuple[str, Config]]:
    """Dotted key and node of a step, and of the transforms in it if it is a composite such as OneOf."""
    yield key, step
    children = step.get("transforms")
    for i, child in enumerate(children if isinstance(children, list) else ()):
        if isinstance(child, dict):
            yield from _with_children(f"{key}.transforms.{i}", child)


def _is_own(step: Config) -> bool:
    """Whether a step is not of albumentations, which has other values for keys of the same name."""
    return not str(step.get("_target_")).startswith("albumentations.")


def _is_classification(config: Config) -> bool:
    return component_name("task", config["task"]["_target_"]) == "cls"


def _differ(given: Sequence[float], known: Sequence[float]) -> bool:
    return len(given) != len(known) or any(abs(a - b) > 5e-4 for a, b in zip(given, known, strict=True))


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]
