"""Everything about a trained model that its predictions need, except for its weights, as plain JSON."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Self

from spine.components import task_spec
from spine.errors import InputError
from spine.interfaces import Labels
from spine.models.assembly import network_of
from spine.option_types import Config
from spine.tasks.base import Task

FORMAT = 1  # of the JSON; a description of a newer version is refused


@dataclass(frozen=True)
class ModelDescription:
    """What is known about a trained model. Exported files contain it as JSON.

    task: the name of the task: cls, seg, pose, mae, beit or dvae. task_options: arguments of the task's constructor.
    labels: names of classes, mask classes and keypoints, palette, skeleton, flip pairs and more.
    num_outputs: classes, keypoints or codes; None if the patch size decides.
    image_size: (height, width) of evaluated images. mean, std: one value for each channel, of RGB values in 0..1.
    channels: their order in the images of the network, rgb or bgr.
    eval_steps: the transforms of evaluations before the normalization, each with its `_target_`.
    pad_multiple: images are padded with zeros at the bottom and right to a multiple of it, after the normalization.
    network: the network as plain values (`NetworkDefinition.to_dict`). summary: the same in a few words.
    patch_size, grid: P, and the number of patches down and across, of token networks and masked networks, else None.
    align_corners: of the bilinear filter that resizes the logits of segmentation.
    precision: that of evaluations, such as 32-true or bf16-mixed. seed: of the patch masks.
    tokenizer: its `sha256` and `num_codes`, of a network that predicts tokens.
    weights: the file that the weights were read from.
    """

    task: str
    task_options: Config
    labels: Labels
    num_outputs: int | None
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str
    eval_steps: tuple[Config, ...]
    pad_multiple: int
    network: Config
    summary: str
    patch_size: int | None = None
    grid: tuple[int, int] | None = None
    align_corners: bool = False
    precision: str = "32-true"
    seed: int = 0
    tokenizer: Config | None = None
    weights: str = ""

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the classes or keypoints that the outputs are for. Empty for masked networks and tokenizers."""
        field = task_spec(self.task).labels
        return getattr(self.labels, field) if field is not None else ()

    @classmethod
    def of_task(cls, config: Config, task: Task, weights: str = "") -> Self:
        """Describes a task with its network. `config`: the complete configuration that the task was built from."""
        network: Any = task.model
        definition, dataset = network.config, config["dataset"]
        tokenizer = task.tokenizer
        return cls(
            task=task.name,
            task_options=task.options(),
            labels=task.labels,
            num_outputs=getattr(network, "num_codes", config.get("num_outputs")),
            image_size=(config["image_size"][0], config["image_size"][1]),
            mean=tuple(map(float, dataset["mean"])),
            std=tuple(map(float, dataset["std"])),
            channels=dataset.get("channels") or "rgb",
            eval_steps=tuple(config["augment"]["eval"]),
            pad_multiple=network_of(config, None).padding_multiple,
            network=json.loads(json.dumps(definition.to_dict())),  # lists in place of tuples
            summary=definition.summary,
            patch_size=getattr(network, "patch_size", None),
            grid=getattr(network, "grid", None),
            align_corners=bool(getattr(getattr(network, "head", None), "align_corners", False)),
            precision=str(config["trainer"]["precision"]),
            seed=config["seed"],
            tokenizer=None if tokenizer is None else {"sha256": tokenizer.sha256, "num_codes": tokenizer.num_codes},
            weights=weights,
        )

    def to_dict(self) -> Config:
        """Returns the description as plain values."""
        return {"format": FORMAT, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """Returns the description as JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, saved: Config) -> Self:
        """Returns the description of plain values that `to_dict` returned, also after JSON. Unknown keys are ignored.

        Raises InputError if a key is missing, or if a newer version of spine wrote it.
        """
        if not isinstance(saved, dict) or saved.get("format", FORMAT + 1) > FORMAT:
            raise InputError("This description of a model was written by a newer version of spine, or it is none. Update spine.")
        known = {field.name: field for field in dataclasses.fields(cls)}
        required = [name for name, field in known.items() if field.default is dataclasses.MISSING]
        if missing := [name for name in required if name not in saved]:
            raise InputError(f"This description of a model has no '{missing[0]}'; it is damaged.")
        values = {key: value for key, value in saved.items() if key in known}
        sequences = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**{**values, **sequences, "labels": Labels.from_dict(saved["labels"])})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Returns the description of a JSON text. Raises InputError as `from_dict` does, or if it is not JSON."""
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise InputError(f"This description of a model is not JSON ({error}).") from error
