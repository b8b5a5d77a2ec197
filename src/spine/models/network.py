"""A backbone and a head as one network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from spine.interfaces import Backbone, Features, Head, TrainingOutputs

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


@dataclass(frozen=True)
class Auxiliary:
    """A second head, which is used in training only, and the maps of the backbone that both heads read."""

    head: Head
    weight: float  # of its loss
    map: int  # number of its map among those of the backbone
    main_maps: tuple[int, ...]  # numbers of the maps of the main head


class Model(Network):
    """Image (B, 3, H, W) -> output of the head.

    In training mode it returns TrainingOutputs if it has an auxiliary head, or a head with auxiliary
    classifiers.
    """

    def __init__(self, backbone: Backbone, head: Head, auxiliary: Auxiliary | None = None, auxiliary_losses: bool = True):
        """`auxiliary_losses`: False for tasks without losses of auxiliary outputs: they are not returned."""
        super().__init__(backbone, head)
        self.auxiliary_losses, self.auxiliary = auxiliary_losses, auxiliary
        self.auxiliary_head = auxiliary.head if auxiliary is not None else None

    @property
    def patch_size(self) -> int | None:
        """P of token networks, whose image sides must be multiples of it. None if any size is accepted."""
        return self.backbone.spec.patch_size

    def forward(self, image: Tensor) -> Tensor | TrainingOutputs:
        """cls: logits (B, classes); pose: heatmaps (B, K, h, w); seg: logits (B, classes, h, w) at the stride of the head."""
        features = self.backbone(image)
        if self.head.reads == "pooled":
            return self.head(self.backbone.pool(features))
        output = self.head(features if self.auxiliary is None else features.select(*self.auxiliary.main_maps))
        return self._with_auxiliary(output, features) if self.training else output

    def _with_auxiliary(self, output: Tensor | TrainingOutputs, features: Features) -> Tensor | TrainingOutputs:
        """The output of the head in training mode, with that of the auxiliary head."""
        main, extra = TrainingOutputs.of(output)
        if self.auxiliary is not None and self.auxiliary_head is not None:
            extra += ((self.auxiliary_head(features.select(self.auxiliary.map)), self.auxiliary.weight),)
        return TrainingOutputs(main, extra) if extra and self.auxiliary_losses else main
