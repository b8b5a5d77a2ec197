"""Runs exported ONNX files with ONNX Runtime, in place of a network of PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spine.data.transforms.pipeline import to_pixels
from spine.errors import InputError
from spine.prediction.description import ModelDescription
from spine.prediction.exported_file import METADATA_KEY, FileFacts

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INSTALL = "pip install -e .[export]"


def open_onnx(path: str | Path, device: str | torch.device = "auto") -> tuple[ModelDescription, OnnxBackend]:
    """Opens an ONNX file of `export.py`. Returns the description of its model, and what runs it.

    `device`: cpu, cuda, or auto for a GPU if ONNX Runtime has one. Raises InputError if the file is missing or damaged, if spine did
    not export it, or if ONNX Runtime is not installed.
    """
    backend = OnnxBackend(path, device)
    return backend.facts.model, backend


class OnnxBackend:
    """An ONNX file of `export.py` with the interface of a network: normalized images in, the raw output out."""

    def __init__(self, path: str | Path, device: str | torch.device = "auto"):
        self.session = open_session(path, device)
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise InputError(f"'{path}' has no description of its model: spine did not export it. Export a run with format=onnx.")
        self.facts = FileFacts.from_json(text, str(path))
        self.input_names = [each.name for each in self.session.get_inputs()]
        self.raw_outputs = [each.name for each in self.facts.outputs if each.name.startswith("output")]

    def run(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Returns all outputs for the inputs of the file."""
        return self._run(inputs, None)

    def __call__(self, image: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Returns what the network returns for normalized images (B, 3, H, W), and patch_mask (B, N) of masked networks.

        A file with preprocessing gets the pixels of the images, and one with a batch of fixed size gets the images in parts.
        Raises InputError if the file does not take images of this size.
        """
        self._check_size(image)
        if self.facts.takes_pixels:
            model = self.facts.model
            inputs = torch.from_numpy(to_pixels(image, model.mean, model.std, model.channels))
        else:
            inputs = image.float()
        size = self.facts.batch_size or len(image)
        parts = [self._run_part([x[start : start + size] for x in (inputs, *more)], size) for start in range(0, len(image), size)]
        outputs = tuple(torch.cat(each).to(image.device) for each in zip(*parts, strict=True))
        return outputs[0] if len(outputs) == 1 else outputs

    def _run_part(self, inputs: Sequence[Tensor], size: int) -> tuple[Tensor, ...]:
        """Returns the raw outputs of at most `size` images. They are repeated if the file needs more of them."""
        count = len(inputs[0])
        full = inputs if count == size else [x[torch.arange(size) % count] for x in inputs]
        return tuple(output[:count] for output in self._run(full, self.raw_outputs))

    def _run(self, inputs: Sequence[Tensor], outputs: Sequence[str] | None) -> tuple[Tensor, ...]:
        arrays = [np.ascontiguousarray(x.detach().cpu().numpy()) for x in inputs]
        found = self.session.run(outputs, dict(zip(self.input_names, arrays, strict=True)))
        return tuple(torch.from_numpy(array) for array in found)

    def _check_size(self, image: Tensor) -> None:
        size, facts = (image.shape[-2], image.shape[-1]), self.facts
        if facts.image_size is not None and size != facts.image_size:
            raise InputError(
                f"This file takes images of {facts.image_size[0]}x{facts.image_size[1]} pixels, and got one of {size[0]}x{size[1]}. "
                f"Export it with image_size=[{size[0]},{size[1]}]."
            )
        if facts.image_size is None and any(side % facts.size_multiple for side in size):
            raise InputError(
                f"This file takes images whose sides are multiples of {facts.size_multiple} pixels, and got one of {size[0]}x{size[1]}."
            )


def open_session(path: str | Path, device: str | torch.device = "auto", threads: int | None = None) -> InferenceSession:
    """Opens any ONNX file with ONNX Runtime. `threads`: None for those of PyTorch.

    Raises InputError if the file is missing or damaged, or if ONNX Runtime is not installed or has no such device.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise InputError(f"ONNX files need ONNX Runtime, which is not installed: {INSTALL}") from error
    if not Path(path).is_file():
        raise InputError(f"There is no file '{path}'.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=_providers(device, onnxruntime.get_available_providers())
        )
    except InputError:
        raise
    except Exception as error:  # its own types have no common base
        raise InputError(f"ONNX Runtime cannot open '{path}': {str(error).strip().splitlines()[0]}") from error


def _providers(device: str | torch.device, available: Sequence[str]) -> list[str | tuple[str, dict[str, int]]]:
    """Returns the execution providers for a device, the preferred one first. Raises InputError if it is not available."""
    kind, _, number = str(device).partition(":")
    if kind == "cpu" or (kind == "auto" and "CUDAExecutionProvider" not in available):
        return ["CPUExecutionProvider"]
    if kind in ("auto", "cuda") and "CUDAExecutionProvider" in available:
        return [("CUDAExecutionProvider", {"device_id": int(number or 0)}), "CPUExecutionProvider"]
    raise InputError(
        f"This ONNX Runtime has no '{kind}'; it has {', '.join(available)}. Give device=cpu, or install onnxruntime-gpu for CUDA."
    )
