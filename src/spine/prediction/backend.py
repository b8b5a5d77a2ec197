"""What runs the network of a predictor: PyTorch, or a runtime for exported files."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Protocol

from torch import Tensor, nn

from spine.prediction.description import ModelDescription


class Backend(Protocol):
    """Runs a network. The networks of PyTorch are backends as they are.

    A runtime for exported files implements this protocol and is wrapped in a `BackendNetwork`:

        class OnnxBackend:
            def __call__(self, image: Tensor, *more: Tensor) -> Tensor: ...

        Predictor(description, BackendNetwork(description, OnnxBackend(path)))
    """

    def __call__(self, image: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Returns the raw output of the network for normalized images (B, 3, H, W) float32.

        `more`: patch_mask (B, N) bool, True = masked, of masked networks. The result is what the network returns in
        evaluation: logits (B, classes), heatmaps (B, K, h, w) or bins (B, K, X + Y), logits (B, classes, h, w), patches
        (B, N, P * P * 3), logits of tokens (B, N, codes), or of discrete VAEs the logits (B, codes, h, w) and pixels (B, 6, H, W).
        """
        ...


class BackendNetwork(nn.Module):
    """A backend in the place of a network of PyTorch. It has the properties of the network that tasks read."""

    def __init__(self, description: ModelDescription, backend: Backend):
        super().__init__()
        self.backend = backend
        self.patch_size, self.grid = description.patch_size, description.grid
        self.num_codes = description.num_outputs
        size = description.network.get("image_size")
        self.config = SimpleNamespace(image_size=None if size is None else tuple(size))
        self.head = SimpleNamespace(align_corners=description.align_corners)

    def forward(self, image: Tensor, *more: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Returns the output of the backend."""
        return self.backend(image, *more)
