"""Measures what a backbone costs: parameters, multiply-adds, memory traffic and speed.

Multiply-adds are not speed: memory traffic is often the limit (ShuffleNet V2, Ma et al., arXiv 1807.11164, guidelines G1 to G4).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from spine.models.create import create_model
from spine.models.masked import MaskedModel
from spine.network_definition import NetworkDefinition
from spine.option_types import Options


class Cost(NamedTuple):
    """What one backbone costs."""

    backbone: str
    variant: str
    parameters: int
    macs: float  # multiply-adds of one image
    traffic: float  # bytes of one image: what every operation reads and writes, were nothing kept in a cache
    inference: float  # images a second
    training: float  # images a second of forward and backward


class Traffic(TorchDispatchMode):
    """Adds up the bytes of the tensors that operations read and write. Views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[object, ...] = (), kwargs: Options | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        read, written = ([x for x in tree_leaves(part) if isinstance(x, Tensor)] for part in ((args, kwargs), out))
        owners = {x.untyped_storage()._cdata for x in read}
        is_view = written and all(x.untyped_storage()._cdata in owners for x in written) and not func._schema.is_mutable
        if not is_view:
            self.bytes += sum(x.numel() * x.element_size() for x in (*read, *written))
        return out


def images_per_second(net: nn.Module, image: Tensor, train: bool, rounds: int) -> float:
    """Median over `rounds` steps after a first one that does not count."""
    net.train(train)
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        with torch.set_grad_enabled(train):
            out = net(image)
        if train:
            net.zero_grad(set_to_none=True)
            out.square().mean().backward()
        if image.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return len(image) / statistics.median(seconds[1:])


def count_multiply_adds(network: NetworkDefinition, more: Sequence[Tensor] = ()) -> float:
    """Returns the multiply-adds of the forward pass of one image at the image size of a network.

    `more`: further inputs of a batch of one: patch_mask (1, N) on the CPU for masked networks. The
    network is built on the meta device: nothing is allocated or computed, and the fused attention
    of the CPU is counted, which torch's counter does not know.
    """
    height, width = network.image_size or (224, 224)
    with torch.device("meta"):
        net, image = network.build().eval(), torch.empty(1, network.in_chans, height, width)
    if not (isinstance(net, MaskedModel) and net.masking == "drop"):  # dropping patches needs the values of the mask
        more = [tensor.to("meta") for tensor in more]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image, *more)
    return counter.get_total_flops() / 2


def count_saved_bytes(net: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Returns the bytes of the tensors that a forward pass in training keeps for the backward pass.

    Parameters and buffers are left out, and tensors that share memory are counted once. Works on the
    meta device.
    """
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}  # keeps the storages, so that their addresses are not used twice

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    net.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = net(*inputs)
        saved = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del out
    return saved


def measure_cost(backbone: str, variant: str, size: int, batch: int, rounds: int) -> Cost:
    """Builds one classifier, counts, and runs it on the accelerator where there is one, else on the processor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = create_model(backbone, variant=variant, num_outputs=1000, image_size=size)
    net = net.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    image = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    with torch.no_grad(), Traffic() as traffic:
        net(image[:1])
    return Cost(
        backbone,
        variant,
        sum(parameter.numel() for parameter in net.parameters()),
        count_multiply_adds(net.config),
        traffic.bytes,
        images_per_second(net, image, False, rounds),
        images_per_second(net, image, True, rounds),
    )
