"""How often each training sample is drawn in an epoch: by its class, or by a weight of its own."""

from __future__ import annotations

from typing import Literal

import numpy as np

from spine.errors import InputError
from spine.interfaces import DataSet

Sampling = Literal["shuffle", "class_balanced", "square_root", "weighted"]
CLASS_EXPONENTS = {"class_balanced": 0.0, "square_root": 0.5}  # a class of n samples has n ** exponent shares of the draws


class WeightedOrder:
    """Draws samples in proportion to their weights, with as little chance as possible (systematic sampling).

    A sample with the expected number of draws e is drawn floor(e) or ceil(e) times in every epoch, and
    so is each class as a whole: independent draws, as those of torch's WeightedRandomSampler, differ
    much more. The expected number of draws is exact.
    """

    def __init__(self, weights: np.ndarray, classes: np.ndarray | None = None):
        """`weights`: (N,) relative to each other, 0 or more. `classes`: (N,) int, whose numbers of draws are to be even too."""
        self.shares = weights / weights.sum()
        self.classes = classes

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Returns the indices of `count` draws in random order, (count,) int64."""
        order = rng.permutation(len(self.shares))
        if self.classes is not None:
            order = order[np.argsort(self.classes[order], kind="stable")]
        ends = np.cumsum(self.shares[order])
        ends *= count / ends[-1]
        times = np.diff(np.floor(ends + rng.random()), prepend=0).astype(np.int64)  # with one offset for all of them
        return rng.permutation(np.repeat(order, times))


def number_draws(indices: np.ndarray) -> np.ndarray:
    """Returns how often the index of each draw occurs before it, (N,) int64."""
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    numbers = np.empty(len(indices), np.int64)
    numbers[order] = np.arange(len(indices)) - np.repeat(starts, np.diff(starts, append=len(indices)))
    return numbers


def weighted_order(data: DataSet, sampling: Sampling) -> WeightedOrder | None:
    """Returns the order of `dataset.sampling`; None for "shuffle", which draws each sample once.

    "class_balanced": all classes have the same number of draws. "square_root": in proportion to the
    square root of their samples (Mahajan et al., arXiv 1805.00932). "weighted": each sample has the
    weight that the data set states. Raises InputError if the data set has no classes or weights, or
    if weights are not possible.
    """
    if sampling == "shuffle":
        return None
    classes = data.class_indices()
    if sampling == "weighted":
        return WeightedOrder(_stated_weights(data), classes)
    if classes is None:
        reason = "may have several classes" if data.labels.several_classes else "have no class of their own"
        raise InputError(
            f"dataset.sampling is {sampling}, but the images of this data set {reason}. Set dataset.sampling=shuffle, or weighted if "
            f"the data set has weights."
        )
    counts = np.bincount(classes)
    return WeightedOrder(counts[classes] ** (CLASS_EXPONENTS[sampling] - 1.0), classes)


def _stated_weights(data: DataSet) -> np.ndarray:
    """Returns the weights of a data set (N,) float64. Raises InputError if it has none, or if they are not possible."""
    weights = data.sample_weights()
    if weights is None:
        raise InputError(
            "dataset.sampling is weighted, but the data set has no weights of its samples. Add them, or set dataset.sampling to "
            "shuffle, class_balanced or square_root."
        )
    if (bad := np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))).size:
        raise InputError(
            f"dataset.sampling is weighted, and the weight of sample {bad[0]} is {weights[bad[0]]:g}; weights are numbers, 0 or more."
        )
    if not weights.any():
        raise InputError("dataset.sampling is weighted, and the weights of all samples are 0. At least one must be above 0.")
    return weights.astype(np.float64)
