"""Which images a published network was evaluated on: size, crop, interpolation, mean and standard deviation.

A configuration takes them over where its own keys are null; where it says otherwise, the difference is reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from spine.components import component_name

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
USUAL_SIZE, USUAL_CROP, USUAL_INTERPOLATION = (224, 224), 0.875, "auto"
Triple = tuple[float, ...]  # one number a channel


@dataclass(frozen=True)
class InputSettings:
    """How images reached a network when its published numbers were measured. None where it is not known.

    `image_size`: (height, width) in pixels; `crop_pct`: image size by size before the center crop; `interpolation`: bilinear or
    bicubic, both antialiased; `mean`, `std`: of RGB values in 0..1; `note`: what spine cannot take over, as a sentence.
    """

    image_size: tuple[int, int] | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: Triple | None = None
    std: Triple | None = None
    note: str = ""

    def over(self, other: InputSettings) -> InputSettings:
        """These settings, with those of `other` where this one does not know."""
        return InputSettings(*(getattr(self, field.name) or getattr(other, field.name) for field in fields(self)))


IMAGENET = InputSettings(mean=IMAGENET_MEAN, std=IMAGENET_STD)
IMAGENET_BICUBIC = replace(IMAGENET, interpolation="bicubic")
HALF = InputSettings(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # values of -1..1, as Google's and TensorFlow's


def settings_of_config(config: Mapping[str, Any]) -> InputSettings:
    """The settings of one of our own runs, from the configuration in its checkpoint. Unknown where it is not one of ours."""
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
    )


def _node(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    node = config.get(key)
    return node if isinstance(node, dict) else {}


def _numbers(value: Any, count: int | None = None) -> tuple | None:
    """A list of numbers as a tuple; None where it is none, or has not `count` of them."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(x, int | float) for x in value):
        return None
    return tuple(value) if count in (None, len(value)) else None


def input_changes(config: Mapping[str, Any], settings: InputSettings) -> tuple[dict[str, Any], list[str]]:
    """What a plain configuration takes over from `settings`, and where it differs from them. Nothing is changed.

    Returns values by dotted key ("augment.eval.0.crop_pct") for every key that is null in `config`: those of `settings`, else the
    usual ones (224x224, ImageNet's mean and std, a crop of 0.875); and one sentence for every key that says something else.
    """
    changes: dict[str, Any] = {}
    differences: list[str] = []
    size: Any = list(settings.image_size or USUAL_SIZE)
    if config.get("image_size") is None:
        changes["image_size"] = size
    elif settings.image_size and list(config["image_size"]) != size:
        differences.append(f"evaluated at {_shown(size)} pixels; image_size is {_shown(config['image_size'])}.")
    for name, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        known, given = getattr(settings, name), config["dataset"].get(name)
        if given is None:
            changes[f"dataset.{name}"] = list(known or usual)
        elif known and _differ(given, known):
            differences.append(f"made with {name} {_rounded(known)}; dataset.{name} is {_rounded(given)}.")
    size = changes.get("image_size", config.get("image_size"))
    changes |= {f"dataset.{key}": size for key in ("image_size", "size") if config["dataset"].get(key, size) is None}
    for key, step in _steps(config):
        if "size" in step and step["size"] is None:
            changes[f"{key}.size"] = size
        if key.startswith("augment.eval."):
            _crop_changes(key, step, settings, changes, differences)
    if settings.crop_pct and _is_classification(config) and not any("crop_pct" in step for _, step in _steps(config)):
        differences.append(f"evaluated on a center crop (crop_pct {settings.crop_pct:.4g}); augment.eval has no CenterCrop.")
    if settings.note:
        differences.append(settings.note)
    return changes, differences


def _crop_changes(
    key: str, step: Mapping[str, Any], settings: InputSettings, changes: dict[str, Any], differences: list[str]
) -> None:
    """The crop and the interpolation of one evaluation step, where it has such keys."""
    for name, usual in (("crop_pct", USUAL_CROP), ("interpolation", USUAL_INTERPOLATION)):
        if name not in step:
            continue
        known, given = getattr(settings, name), step[name]
        if given is None:
            changes[f"{key}.{name}"] = known or usual
        elif known and (_differ([given], [known]) if name == "crop_pct" else given != known):
            shown = f"{known:.4g}" if name == "crop_pct" else known
            differences.append(f"evaluated with {name} {shown}; {key}.{name} is {given}.")


def apply_changes(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Writes values by dotted key into a plain configuration."""
    for key, value in changes.items():
        *path, last = key.split(".")
        node: Any = config
        for part in path:
            node = node[int(part)] if isinstance(node, list) else node[part]
        node[last] = list(value) if isinstance(value, list) else value


def _steps(config: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and node of every augmentation step."""
    for mode in ("train", "eval"):
        for i, step in enumerate(config["augment"].get(mode) or ()):
            yield from _with_children(f"augment.{mode}.{i}", step)


def _with_children(key: str, step: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Dotted key and node of a step, and of the transforms in it if it is a composite such as OneOf."""
    yield key, step
    children = step.get("transforms")
    for i, child in enumerate(children if isinstance(children, list) else ()):
        if isinstance(child, dict):
            yield from _with_children(f"{key}.transforms.{i}", child)


def _is_classification(config: Mapping[str, Any]) -> bool:
    return component_name("task", config["task"]["_target_"]) == "cls"


def _differ(given: Any, known: Any) -> bool:
    return len(given) != len(known) or any(abs(a - b) > 5e-4 for a, b in zip(given, known, strict=True))


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]


def _shown(size: Any) -> str:
    return "x".join(map(str, size))
