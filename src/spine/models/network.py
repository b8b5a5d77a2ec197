"""A backbone and a head as one network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from spine.interfaces import Backbone, Head

if TYPE_CHECKING:
    from spine.models.assembly import NetworkConfig


class Network(nn.Module):
    """Base of the networks: a backbone and a head. `config` is what it was built from, for checkpoints."""

    config: NetworkConfig | None = None

    def __init__(self, backbone: Backbone, head: Head):
        super().__init__()
        self.backbone = backbone
        self.head = head

    def compile_in_place(self, backend: str | Callable = "inductor") -> None:
        """Compiles the forward pass: encoder, pooling and head, masked or not. `backend` is torch.compile's.

        The names in the state dict stay. Compiling the backbone alone would leave out `pool` and `forward_masked`, because
        `nn.Module.compile` compiles `__call__` only.
        """
        self.compile(backend=backend)


class Model(Network):
    """Image (B, 3, H, W) -> output of the head."""

    @property
    def patch_size(self) -> int | None:
        """P of token networks, whose image sides must be multiples of it. None if any size is accepted."""
        return self.backbone.spec.patch_size

    def forward(self, image: Tensor) -> Tensor:
        """cls: logits (B, classes); pose: heatmaps (B, K, h, w) or logits of bins (B, K, X + Y); seg: logits (B, classes, h, w) at
        the stride of the head.
        """
        features = self.backbone(image)
        return self.head(self.backbone.pool(features) if self.head.reads == "pooled" else features)
