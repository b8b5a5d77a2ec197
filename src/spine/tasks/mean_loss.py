"""Weighted mean of the losses of batches, over all processes."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class MeanLoss:
    """Sums losses and weights in float64 on their device, so that no batch waits for the device.

    The sum depends on the division into batches and processes only in its last bits, which the
    float32 mean does not show.
    """

    def __init__(self) -> None:
        self.sums = _zeros(torch.device("cpu"))  # (2,): of weight * loss, and of the weights

    def reset(self, device: torch.device) -> None:
        """Starts a new mean on a device."""
        self.sums = _zeros(device)

    def update(self, loss: Tensor, weight: float | Tensor) -> None:
        """Adds the loss () of a batch."""
        sums = self.sums.to(loss.device)
        weights = torch.as_tensor(weight, dtype=sums.dtype, device=loss.device)
        self.sums = sums + torch.stack([loss.detach().to(sums.dtype) * weights, weights])

    def compute(self) -> Tensor:
        """Returns the mean () over all processes, which must all call this. NaN without any weight."""
        sums = self.sums.clone()
        if _several_processes():
            dist.all_reduce(sums)
        return (sums[0] / sums[1]).float()

    def state(self) -> list[list[float]]:
        """Returns the two sums of each process, for a checkpoint. All processes must call this."""
        own: list[float] = self.sums.tolist()
        states = [own]
        if _several_processes():
            gathered: list[list[float] | None] = [None] * dist.get_world_size()
            dist.all_gather_object(gathered, own)
            states = [state for state in gathered if state is not None]
        return states

    def load(self, states: list[list[float]], rank: int, world: int) -> None:
        """Continues with the sums of a checkpoint, also with another number of processes."""
        if len(states) != world:
            states = [[sum(column) for column in zip(*states, strict=True)], *[[0.0, 0.0]] * (world - 1)]
        self.sums = torch.tensor(states[rank], dtype=self.sums.dtype, device=self.sums.device)


def _zeros(device: torch.device) -> Tensor:
    dtype = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
    return torch.zeros(2, dtype=dtype, device=device)


def _several_processes() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
