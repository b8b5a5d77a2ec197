"""The interface of everything that determines a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from torch import nn

from spine.option_types import Config


class NetworkDefinition(ABC):
    """Everything that determines a network, as plain values. Checkpoints contain them.

    `spine.models.assembly.NetworkConfig` defines a network of a backbone and a head. A task whose
    network is neither names a subclass of its own in `TaskSpec.network`. A network keeps its
    definition as `network.config`.
    """

    image_size: tuple[int, int] | None  # (height, width) of the images; None: any

    @property
    def in_chans(self) -> int:
        """Channels of the images."""
        return 3

    @property
    def padding_multiple(self) -> int:
        """The multiple to which the data module pads images."""
        return 1

    @classmethod
    @abstractmethod
    def from_config(cls, config: Config, num_outputs: int | None) -> Self:
        """Returns the network of a plain configuration. Raises InputError for an unknown name."""

    @classmethod
    @abstractmethod
    def from_dict(cls, saved: Config) -> Self:
        """Returns the network of a dictionary that `to_dict` returned."""

    @abstractmethod
    def to_dict(self) -> dict[str, object]:
        """Returns the network as plain values, for checkpoints."""

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds the network. Raises InputError if options are unknown, or do not fit together."""

    @property
    @abstractmethod
    def summary(self) -> str:
        """The network in a few words, such as "convnext micro + linear"."""
