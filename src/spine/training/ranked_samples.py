"""Finds the samples with the highest and the lowest losses of an evaluation, over all processes."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from spine.tasks.base import Batch
from spine.tasks.samples import SampleView


class EvaluatedSample(NamedTuple):
    """A sample with its loss. All tensors are copies on the CPU, without the batch dimension."""

    loss: float
    index: int  # type: ignore[assignment]  # in the data set
    inputs: Batch
    output: Tensor


class RankedSamples:
    """Collects the `count` samples with the highest losses, or with the lowest ones."""

    def __init__(self, count: int, lowest: bool = False):
        self.count, self.sign = count, 1 if lowest else -1
        self.samples: list[EvaluatedSample] = []  # sorted, the one that is looked for most first

    def rank(self, sample: EvaluatedSample) -> tuple[float, int]:
        """Returns a key for sorting."""
        return self.sign * sample.loss, sample.index

    def update(self, losses: Tensor, output: Tensor, batch: Batch) -> None:
        """Takes in an evaluated batch. `losses`: (B,); a loss that is not a number counts as infinite."""
        values, indices = losses.detach().float().nan_to_num(nan=math.inf).tolist(), batch["index"].tolist()
        known = {sample.index for sample in self.samples}
        ranks = [(self.sign * value, index) for value, index in zip(values, indices, strict=True)]
        for i in sorted(range(len(values)), key=ranks.__getitem__):
            if len(self.samples) == self.count and ranks[i] >= self.rank(self.samples[-1]):
                return
            if indices[i] not in known:  # a copy that only keeps a process in step with the others
                inputs = {key: value[i].detach().cpu().clone() for key, value in batch.items()}
                self.samples.append(EvaluatedSample(values[i], indices[i], inputs, output[i].detach().cpu().clone()))
                self.samples = sorted(self.samples, key=self.rank)[: self.count]

    def gather(self, processes: int) -> list[EvaluatedSample]:
        """Returns the samples of all processes, and forgets them. Every process calls it.

        First only losses are exchanged, because outputs may be large.
        """
        own, self.samples = self.samples, []
        if processes == 1:
            return own
        ranks: list[list[tuple[float, int]]] = [[]] * processes
        torch.distributed.all_gather_object(ranks, [self.rank(sample) for sample in own])
        chosen = set(sorted({rank for part in ranks for rank in part})[: self.count])
        parts: list[list[EvaluatedSample]] = [[]] * processes
        torch.distributed.all_gather_object(parts, [sample for sample in own if self.rank(sample) in chosen])
        return sorted({s.index: s for part in parts for s in part}.values(), key=self.rank)


def write_samples(path: Path, samples: Sequence[SampleView]) -> None:
    """Writes a CSV file with one row for each sample: loss, index, prediction, ground truth and file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["loss", "index", "prediction", "truth", "file"])
        writer.writerows([s.loss, s.index, s.prediction, s.truth, s.file] for s in samples)
