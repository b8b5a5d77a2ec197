"""Makes the facts of an exported file: names, types and shapes of its inputs and outputs, and the description of its model."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor

from spine.exporting.options import ExportOptions
from spine.prediction.description import ModelDescription
from spine.prediction.exported_file import FileFacts, TensorFacts

Shape = tuple[int | str, ...]
RAW = {  # meaning of the raw output, by task
    "cls": "logits (batch, classes)",
    "seg": "logits (batch, classes, rows, columns) at the stride of the head; resize them to the image before the softmax",
    "mae": "pixels (batch, patches, values) of every patch: row, column, channel",
    "beit": "logits of tokens (batch, patches, codes)",
    "dvae": "logits of codes (batch, codes, rows, columns)",
}
POSE = {4: "heatmaps (batch, keypoints, rows, columns)", 3: "logits of bins (batch, keypoints, columns then rows)"}
MORE = {
    "output_1": "means and logarithms of scales of pixels (batch, 6, height, width)",
    "probabilities": "softmax of the output, or sigmoids with several classes per image or pixel; of segmentation at the size of the image",
    "label": "index of the most probable class",
    "mask": "index of the most probable class of each pixel; 0 and 1 for each class if classes may overlap",
}


def make_facts(
    model: ModelDescription,
    options: ExportOptions,
    names: tuple[Sequence[str], Sequence[str]],
    tensors: tuple[Sequence[Tensor], Sequence[Tensor]],
    multiple: int | None,
) -> FileFacts:
    """Returns the facts of a file.

    names, tensors: of the inputs and of the outputs, with examples. multiple: of which the sides of images may be; None: they have the
    size of the example.
    """
    (input_names, output_names), (inputs, outputs) = names, tensors
    pixels = options.include_preprocessing
    image = inputs[0]
    size = (image.shape[1], image.shape[2]) if pixels else (image.shape[2], image.shape[3])
    meanings = {
        "image": "RGB pixels"
        if pixels
        else f"normalized image, channels in the order {model.channels}: (pixels / 255 - mean) / std",
        "patch_mask": "true for masked patches, in raster order",
        "output": POSE.get(outputs[0].ndim, "") if model.task == "pose" else RAW.get(model.task, "raw output of the network"),
        **MORE,
    }

    def facts(name: str, tensor: Tensor) -> TensorFacts:
        shape = _shape(name, tensor, options.batch_size, pixels, multiple is not None)
        return TensorFacts(name, str(tensor.dtype).removeprefix("torch."), shape, meanings[name])

    return FileFacts(
        format=options.format,
        precision=options.precision,
        spine=version("spine"),
        torch=str(torch.__version__),
        inputs=tuple(map(facts, input_names, inputs)),
        outputs=tuple(map(facts, output_names, outputs)),
        takes_pixels=pixels,
        batch_size=options.batch_size,
        image_size=size if multiple is None else None,
        size_multiple=multiple or 1,
        model=model,
    )


def _shape(name: str, tensor: Tensor, batch_size: int | None, pixels: bool, any_size: bool) -> Shape:
    """Returns the shape of a tensor, with names for the sizes that may change."""
    shape: list[int | str] = list(tensor.shape)
    shape[0] = batch_size or "batch"
    if not any_size:
        return tuple(shape)
    if name == "image" and pixels:
        shape[1:3] = "height", "width"
    elif name == "mask" or tensor.ndim == 4:
        shape[-2:] = ("rows", "columns") if name == "output" else ("height", "width")
    return tuple(shape)
