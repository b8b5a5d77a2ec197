"""Weighted k-nearest-neighbor classifier on the embeddings of a backbone (Wu et al., arXiv 1805.01978, section 3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from spine.errors import InputError
from spine.models.network import Model
from spine.tasks.base import Batch
from spine.tasks.cls.task import Classification
from spine.tasks.protocols import with_options_of_base

BLOCK = 65536  # training samples that are compared with a batch at a time, which limits the memory
LOWEST_SHARE = 1e-12  # of the votes, for the logarithm of a class without a vote


@with_options_of_base
class NearestNeighbors(Classification):
    """Each of the `k` most similar training samples votes for its class with weight exp(similarity / temperature).

    The similarity is the cosine of two embeddings. Nothing is trained: the training split is
    embedded before the evaluation, without augmentation, and every process stores all of it. The
    logits are the logarithms of the shares of the votes.
    """

    trains = False
    model: Model

    def __init__(self, *, k: int = 20, temperature: float = 0.07, **options: Any):
        """`options`: those of `Classification`."""
        super().__init__(**options)
        self.need_one_class("knn")
        self.k, self.temperature = k, temperature
        self.model.requires_grad_(False)
        self.embeddings = self.classes = torch.empty(0)  # (N, D) of norm 1 and (N,), of the training split

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D) of norm 1."""
        return F.normalize(self.model.backbone.pool(self.model.backbone(image)).float(), dim=1)

    def on_validation_start(self) -> None:
        """Embeds the training split."""
        if self.training_batches is None:
            raise InputError("protocol=knn has no training split to compare with: set training_batches to its loader.")
        with self.trainer.precision_plugin.val_step_context():
            self.embeddings, self.classes = self._embed_all(self.training_batches)
        if len(self.classes) < self.k:
            raise InputError(f"protocol.k is {self.k}, but the training split has {len(self.classes)} samples. Set fewer.")

    def on_test_start(self) -> None:
        """Embeds the training split."""
        self.on_validation_start()

    @torch.no_grad()
    def _embed_all(self, batches: Iterable[Batch]) -> tuple[Tensor, Tensor]:
        """Embeddings (N, D) and classes (N,) of all processes, in the order of the data set."""
        parts: list[tuple[Tensor, Tensor, Tensor]] = []
        for batch in batches:
            on_device: Batch = self.trainer.strategy.batch_to_device(batch)
            kept = slice(0, 0) if "spare" in batch else slice(None)
            parts.append((self.embed(on_device["image"])[kept], on_device["label"][kept], on_device["index"][kept]))
        gathered = [torch.cat(part) for part in zip(*parts, strict=True)]
        if self.trainer.world_size > 1:
            gathered = [torch.cat(gather_all_tensors(part)) for part in gathered]
        embeddings, classes, indices = gathered
        order = indices.argsort()
        return embeddings[order], classes[order]

    def vote(self, embedding: Tensor) -> Tensor:
        """The share of the votes (B, classes) that each class gets for embeddings (B, D) of norm 1."""
        nearest = embedding.new_empty(len(embedding), 0)
        classes = self.classes.new_empty(len(embedding), 0)
        for start in range(0, len(self.embeddings), BLOCK):
            similarity = torch.cat([nearest, embedding @ self.embeddings[start : start + BLOCK].T], dim=1)
            candidates = torch.cat([classes, self.classes[start : start + BLOCK].expand(len(embedding), -1)], dim=1)
            nearest, places = similarity.topk(min(self.k, similarity.shape[1]), dim=1)
            classes = candidates.gather(1, places)
        weights = (nearest / self.temperature).softmax(1)
        return weights.new_zeros(len(embedding), len(self.labels.classes)).scatter_add_(1, classes, weights)

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The cross entropy of the votes () and the logits (B, classes)."""
        logits = self.vote(self.embed(batch["image"])).clamp(min=LOWEST_SHARE).log()
        return self._loss(logits, batch), logits

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`label` (B,): the index of the predicted class; `probabilities` (B, classes): the shares of the votes."""
        shares = self.vote(self.embed(batch["image"]))
        return {"label": shares.argmax(1), "probabilities": shares}
