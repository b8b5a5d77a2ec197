"""Options of `export.py`, and what they may be. Imports neither torch nor Lightning, so that mistakes are reported quickly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

from spine.errors import InputError, nearest
from spine.option_types import SWITCH, AboveZero, Allowed, Config, Count, Positive, Schema, Text

Precision = Literal["fp32", "fp16", "int8"]
Postprocessing = Literal["none", "softmax", "argmax"]

GRAPHS: Mapping[str, tuple[str, ...]] = {  # formats that contain the computation of the network, and the suffixes of their files
    "onnx": (".onnx",),
    "torch_export": (".pt2",),
    "torchscript": (".pt", ".ts", ".torchscript"),
}
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 0.05, "int8": 0.05}
POSTPROCESSED_TASKS = ("cls", "seg")

OPTIONS: Schema = {
    "format": Allowed(Text, "onnx, torch_export, torchscript, safetensors, or the publisher of a layout, such as timm"),
    "out": Allowed(Text, "the path of a file"),
    "precision": Allowed(Precision, "fp32, fp16 or int8"),
    "include_preprocessing": SWITCH,
    "postprocessing": Allowed(Postprocessing, "none, softmax or argmax"),
    "batch_size": Allowed(Positive | None, "a whole number of images, 1 or more, or null for any number"),
    "fixed_size": SWITCH,
    "opset": Allowed(Positive | None, "the number of an ONNX opset, such as 20, or null for PyTorch's default"),
    "samples": Allowed(Positive, "a whole number of images, 1 or more"),
    "calibration_samples": Allowed(Positive, "a whole number of images, 1 or more"),
    "tolerance": Allowed(AboveZero | None, "a fraction above 0, or null for the default of the precision"),
    "latency_rounds": Allowed(Count, "a whole number of runs, or 0 to measure no latency"),
}  # fmt: skip


@dataclass(frozen=True)
class ExportOptions:
    """How a network is exported. conf/export.yaml describes the keys."""

    format: str
    out: Path
    precision: Precision = "fp32"
    include_preprocessing: bool = False
    postprocessing: Postprocessing = "none"
    batch_size: int | None = None
    fixed_size: bool = False
    opset: int | None = None
    samples: int = 8
    calibration_samples: int = 128
    tolerance: float | None = None
    latency_rounds: int = 20

    @classmethod
    def take(cls, config: Config) -> Self:
        """Removes the options from a plain configuration of export.yaml, whose values were checked, and returns them.

        Raises InputError if they do not fit together.
        """
        values = {field.name: config.pop(field.name) for field in fields(cls)}
        options = cls(**{**values, "out": Path(values["out"]).expanduser()})
        options._check()
        return options

    @property
    def is_graph(self) -> bool:
        """Whether the file contains the computation of the network, not only its weights."""
        return self.format in GRAPHS

    @property
    def allowed_difference(self) -> float:
        """The tolerance: of outputs, as a fraction of the largest one; for int8 of the metric that selects the best checkpoint."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance

    def check_task(self, task: str) -> None:
        """Raises InputError if the outputs of a task have no postprocessing."""
        if self.postprocessing != "none" and task not in POSTPROCESSED_TASKS:
            raise InputError(
                f"postprocessing is {self.postprocessing}, which is for task {' and '.join(POSTPROCESSED_TASKS)}; this network is for "
                f"task '{task}'. Leave it out: spine.load decodes the raw output of every task."
            )

    def _check(self) -> None:
        if self.is_graph and self.out.suffix not in GRAPHS[self.format]:
            raise InputError(
                f"out is '{self.out}'; the name of a file of format={self.format} ends in {' or '.join(GRAPHS[self.format])}."
            )
        for key, only, unset in self._restricted():
            if self.format not in only and getattr(self, key) != unset:
                raise InputError(f"{key} is for format={' and '.join(only)}; format is {self.format}. Leave {key} out.")
        if not self.is_graph and self.out.suffix in (".onnx", ".pt2"):
            suggestion = nearest(self.out.suffix[1:], ["onnx", "pt2"])
            raise InputError(
                f"out is '{self.out}', and format={self.format} writes weights to safetensors, pth, pt or bin files.{suggestion} "
                f"Give format=onnx for an ONNX file, format=torch_export for a pt2 file."
            )

    @staticmethod
    def _restricted() -> list[tuple[str, tuple[str, ...], object]]:
        """The options that only some formats have: name, formats, and the value that changes nothing."""
        return [
            ("precision", ("onnx",), "fp32"),
            ("opset", ("onnx",), None),
            ("include_preprocessing", tuple(GRAPHS), False),
            ("postprocessing", tuple(GRAPHS), "none"),
            ("batch_size", tuple(GRAPHS), None),
            ("fixed_size", tuple(GRAPHS), False),
        ]
