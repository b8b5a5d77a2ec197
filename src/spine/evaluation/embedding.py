"""Embeds the images of a split with the backbone of a network."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
import torch

from spine.data.data_module import DataModule
from spine.layers.image_sizes import images_by_size, pad_to_multiple
from spine.models.network import Model


class Embeddings(NamedTuple):
    """The embeddings of a split, in the order of the data set.

    `vectors`: (N, D) float32. `files`: the image file of each sample, relative to the root of the
    data set; empty if images have no files of their own. `labels`: (N,) int64 indices into
    `classes`, or (N, classes) int64 if images may have several; None if the data set has no class labels.
    """

    vectors: np.ndarray
    files: list[str]
    labels: np.ndarray | None
    classes: tuple[str, ...]


@torch.inference_mode()
def embed_split(model: Model, data: DataModule, split: str, device: torch.device, root: str | None = None) -> Embeddings:
    """Returns the pooled embeddings of a split, with the evaluation steps, in float32. `root`: folder of the data set."""
    samples = data.split(split)
    data.needs |= {"label"} & samples.provides
    data.on_error = "raise"  # every sample has an embedding
    net = model.backbone.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    vectors = np.empty((len(samples), net.spec.embed_dim), np.float32)
    shape = (len(samples), len(samples.labels.classes)) if samples.labels.several_classes else (len(samples),)
    labels = np.empty(shape, np.int64)
    for batch in data.loader(split):
        index = batch["index"].numpy()
        for rows, images in images_by_size(batch):
            images = pad_to_multiple(images.to(device), net.spec.patch_size or 1)
            vectors[index[rows]] = net.pool(net(images)).float().cpu().numpy()
        if "label" in batch:
            labels[index] = batch["label"].numpy()
    files = [samples.files(index)[:1] for index in range(len(samples))]
    relative = [os.path.relpath(file[0], root) if root is not None and file else "".join(file) for file in files]
    return Embeddings(vectors, relative, labels if "label" in data.needs else None, samples.labels.classes)
