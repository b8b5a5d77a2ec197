"""Fully sharded data parallelism (FSDP2): each process stores a part of every parameter (Zhao et al., arXiv 2304.11277)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from spine.models.network import Network

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shards the parameters of a network over the processes of a mesh, in place.

    The parameters of a block are gathered for its forward and its backward pass, those of all other
    layers for the pass of the whole network. A network without a backbone is gathered as a whole.
    Does nothing if the network is sharded.
    """
    from torch.distributed.fsdp import fully_shard  # takes half a second

    if is_sharded(model):
        return
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # FSDP2 does not shard channels_last weights
    for block in blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yields the blocks of the backbone: the modules of its layer groups that are in a list or a sequence."""
    if not isinstance(model, Network):
        return
    modules = dict(model.backbone.named_modules())
    for prefixes in model.backbone.layer_groups():
        for prefix in prefixes:
            name = prefix.removesuffix(".")
            module, parent = modules.get(name), modules.get(name.rpartition(".")[0])
            if module is None or not isinstance(parent, nn.ModuleList | nn.ModuleDict | nn.Sequential):
                continue  # a parameter, or a module that is not one of several
            is_called = not isinstance(module, nn.ModuleList | nn.ModuleDict)
            if is_called and any(True for _ in module.parameters()):
                yield module


def is_sharded(module: nn.Module) -> bool:
    """Returns whether parameters of a module are sharded."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def local_part(tensor: Tensor) -> Tensor:
    """Returns the part of a sharded tensor that this process stores, and other tensors unchanged. Shares memory."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """Returns a sharded tensor as a whole, and other tensors unchanged. All processes must call this."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def load_full_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads whole tensors into a module that may be sharded. Raises RuntimeError if the names differ."""
    if not is_sharded(module):
        module.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(module, dict(state), options=StateDictOptions(full_state_dict=True))
