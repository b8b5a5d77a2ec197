"""The network as other programs call it: with plain tensors in and out, perhaps with preprocessing and postprocessing."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from spine.exporting.options import Postprocessing
from spine.layers.conv import resize_map
from spine.prediction.description import ModelDescription


class Normalization(nn.Module):
    """Pixels (B, H, W, 3) uint8 RGB -> normalized images (B, 3, H, W), with the arithmetic of `spine.data.transforms.Transform`."""

    scale: Tensor
    shift: Tensor

    def __init__(self, description: ModelDescription):
        super().__init__()
        mean, std = np.array(description.mean), np.array(description.std)
        for name, values in (("scale", 1 / (255 * std)), ("shift", -mean / std)):
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)
        self.reverse = description.channels == "bgr"

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, H, W, 3) -> (B, 3, H, W)."""
        image = pixels.float() * self.scale + self.shift
        return (image.flip(-1) if self.reverse else image).permute(0, 3, 1, 2)


class ExportedNetwork(nn.Module):
    """What a file computes: image [, patch_mask] -> raw output of the network [, postprocessed output].

    image: normalized (B, 3, H, W) float32, or with preprocessing (B, H, W, 3) uint8 RGB. patch_mask: (B, N) bool, of masked networks.
    The raw output is that of the network in evaluation, in float32. Postprocessed outputs:
    softmax: probabilities (B, classes), or (B, classes, H, W); argmax: label (B,) int64, or mask (B, H, W) uint8; if an image or a pixel
    may have several classes, the probabilities are sigmoids, and label (B, classes) or mask (B, classes, H, W) is uint8.
    """

    def __init__(
        self,
        network: nn.Module,
        description: ModelDescription,
        *,
        include_preprocessing: bool = False,
        postprocessing: Postprocessing = "none",
        half: bool = False,
    ):
        """`half`: compute in float16. `network` is not changed."""
        super().__init__()
        self.network = copy.deepcopy(network).half() if half else network
        self.dtype = torch.float16 if half else torch.float32
        self.normalization = Normalization(description) if include_preprocessing else None
        self.postprocessing = postprocessing
        self.is_dense, self.align_corners = description.task == "seg", description.align_corners
        self.multi_label = description.labels.multi_label or description.labels.several_classes
        self.threshold = float(description.task_options.get("threshold", 0.5))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor, patch_mask: Tensor | None = None) -> tuple[Tensor, ...]:
        """Returns the raw output, further raw outputs if the network has several, then the postprocessed one."""
        if self.normalization is not None:
            image = self.normalization(image)
        image = image.to(self.dtype)
        found = self.network(image) if patch_mask is None else self.network(image, patch_mask)
        outputs = (found,) if isinstance(found, Tensor) else tuple(found)
        outputs = tuple(output.float() for output in outputs)
        if self.postprocessing == "none":
            return outputs
        return (*outputs, self._postprocess(outputs[0], (image.shape[-2], image.shape[-1])))

    def _postprocess(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        if self.is_dense:
            logits = resize_map(logits, size, align_corners=self.align_corners)
        if self.postprocessing == "softmax":
            return logits.sigmoid() if self.multi_label else logits.softmax(1)
        if self.multi_label:
            return (logits.sigmoid() > self.threshold).to(torch.uint8)
        return logits.argmax(1).to(torch.uint8) if self.is_dense else logits.argmax(1)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return ("image", "patch_mask") if getattr(self.network, "grid", None) is not None else ("image",)

    def output_names(self, count: int) -> tuple[str, ...]:
        """The names of `count` outputs."""
        last = {"none": (), "softmax": ("probabilities",), "argmax": ("mask" if self.is_dense else "label",)}[self.postprocessing]
        raw = ("output", *(f"output_{i}" for i in range(1, count - len(last))))
        return (*raw, *last)
