"""Finds the samples with the highest losses of an evaluation, over all processes."""

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

    @property
    def rank(self) -> tuple[float, int]:
        """A key for sorting: the highest loss first."""
        return -self.loss, self.index


class WorstSamples:
    """Collects the `count` samples with the highest losses."""

    def __init__(self, count: int):
        self.count = count
        self.samples: list[EvaluatedSample] = []  # sorted, the highest loss first

    def update(self, losses: Tensor, output: Tensor, batch: Batch) -> None:
        """Takes in an evaluated batch. `losses`: (B,); a loss that is not a number counts as infinite."""
        values, indices = losses.detach().float().nan_to_num(nan=math.inf).tolist(), batch["index"].tolist()
        known = {sample.index for sample in self.samples}
        for i in sorted(range(len(values)), key=lambda i: (-values[i], indices[i])):
            full = len(self.samples) == self.count
            if full and (-values[i], indices[i]) >= self.samples[-1].rank:
                return
            if indices[i] not in known:  # a copy that only keeps a process in step with the others
                inputs = {key: value[i].detach().cpu().clone() for key, value in batch.items()}
                self.samples.append(EvaluatedSample(values[i], indices[i], inputs, output[i].detach().cpu().clone()))
                self.samples = sorted(self.samples, key=lambda sample: sample.rank)[: self.count]

    def gather(self, processes: int) -> list[EvaluatedSample]:
        """Returns the worst samples of all processes, and forgets them. Every process calls it.

        First only losses are exchanged, because outputs may be large.
        """
        own, self.samples = self.samples, []
        if processes == 1:
            return own
        ranks: list[list[tuple[float, int]]] = [[]] * processes
        torch.distributed.all_gather_object(ranks, [sample.rank for sample in own])
        worst = set(sorted({rank for part in ranks for rank in part})[: self.count])
        parts: list[list[EvaluatedSample]] = [[]] * processes
        torch.distributed.all_gather_object(parts, [sample for sample in own if sample.rank in worst])
        return sorted({s.index: s for part in parts for s in part}.values(), key=lambda sample: sample.rank)


def write_samples(path: Path, samples: Sequence[SampleView]) -> None:
    """Writes a CSV file with one row for each sample: loss, index, prediction, ground truth and file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["loss", "index", "prediction", "truth", "file"])
        writer.writerows([s.loss, s.index, s.prediction, s.truth, s.file] for s in samples)
