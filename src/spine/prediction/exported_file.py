"""What an exported file says about itself: `FileFacts`, as JSON in its metadata and in a file beside it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self

from spine.errors import InputError
from spine.option_types import Config
from spine.prediction.description import ModelDescription

METADATA_KEY = "spine"  # of the whole JSON in the metadata of a file
FORMAT = 1  # of the JSON


@dataclass(frozen=True)
class TensorFacts:
    """An input or output of a file. Sizes of `shape` that may change have names."""

    name: str
    type: str
    shape: tuple[int | str, ...]
    meaning: str


@dataclass(frozen=True)
class FileFacts:
    """What an exported file contains.

    format, precision: those of `export.py`. spine, torch: versions of the writer. inputs, outputs: tensors in their order.
    takes_pixels: whether the input is pixels (B, H, W, 3) uint8 RGB; else it is a normalized image (B, 3, H, W) float32.
    batch_size: of every call; None: any. image_size: (height, width) of every image; None: any multiples of `size_multiple`.
    model: the description of the model.
    """

    format: str
    precision: str
    spine: str
    torch: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    takes_pixels: bool
    batch_size: int | None
    image_size: tuple[int, int] | None
    size_multiple: int
    model: ModelDescription

    def to_dict(self) -> Config:
        """Returns the facts as plain values."""
        return {"version": FORMAT, **dataclasses.asdict(self), "model": self.model.to_dict()}

    def to_json(self, indent: int | None = None) -> str:
        """Returns the facts as JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def metadata(self) -> dict[str, str]:
        """Returns texts for the metadata of a file: everything in one JSON, and what most programs need under keys of its own."""
        model = self.model
        texts = {
            "task": model.task,
            "summary": model.summary,
            "names": json.dumps(dict(enumerate(model.output_names))),
            "image_size": json.dumps(model.image_size),
            "mean": json.dumps(model.mean),
            "std": json.dumps(model.std),
            "channels": model.channels,
        }
        return {METADATA_KEY: self.to_json(), **texts}

    @classmethod
    def from_json(cls, text: str, path: str) -> Self:
        """Returns the facts of the JSON in the file `path`. Raises InputError if a newer version wrote it, or if it is damaged."""
        try:
            saved = json.loads(text)
            if saved["version"] > FORMAT:
                raise InputError(f"'{path}' was exported by a newer version of spine. Update spine.")
            model = ModelDescription.from_dict(saved.pop("model"))
            inputs, outputs = (
                tuple(TensorFacts(**{**each, "shape": tuple(each["shape"])}) for each in saved.pop(key))
                for key in ("inputs", "outputs")
            )
            size = saved.pop("image_size")
            known = {field.name for field in dataclasses.fields(cls)}
            values = {key: value for key, value in saved.items() if key in known}
            return cls(**values, inputs=inputs, outputs=outputs, image_size=None if size is None else tuple(size), model=model)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"The description of the model in '{path}' is damaged ({type(error).__name__}: {error}).") from error
