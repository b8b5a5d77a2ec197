"""Static quantization of ONNX files to 8-bit integers with ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from torch import Tensor

from spine.errors import InputError
from spine.exporting.checking import Inputs
from spine.exporting.onnx_files import OnnxFile
from spine.exporting.tracing import quiet

# Layers with weights, and what ONNX Runtime computes with 8-bit integers between them. Products of two activations, norms, and
# sums stay in float32, as in ONNX Runtime's recipe for transformers.
QUANTIZED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MaxPool", "Relu", "Clip")


def quantize(path: Path, target: Path, calibration: Iterable[Inputs]) -> None:
    """Writes an ONNX file with 8-bit weights and activations.

    Weights have one scale for each output channel. Activations have one scale for each tensor, from its smallest and largest value
    in the calibration images. Raises InputError if there is no image, or if ONNX Runtime cannot quantize the file.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = OnnxFile(path).names
    reader = _Reader(names, calibration)
    if reader.is_empty:
        raise InputError("precision=int8 needs images of the training split for its calibration, and there are none.")
    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        try:
            quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                reader,
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTIZED),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
                extra_options={"MatMulConstBOnly": True},
            )
        except Exception as error:  # its own types have no common base
            raise InputError(f"ONNX Runtime cannot quantize this network: {str(error).strip().splitlines()[0]}") from error


class _Reader:
    """Calibration images for ONNX Runtime (`CalibrationDataReader`)."""

    def __init__(self, names: list[str], inputs: Iterable[Inputs]):
        self.rows: Iterator[dict[str, np.ndarray]] = (
            {name: _array(x) for name, x in zip(names, each, strict=True)} for each in inputs
        )
        self.first = next(self.rows, None)

    @property
    def is_empty(self) -> bool:
        """Whether there is no image."""
        return self.first is None

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Returns the inputs of the next call, or None at the end."""
        if self.first is not None:
            first, self.first = self.first, None
            return first
        return next(self.rows, None)


def _array(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.numpy())
