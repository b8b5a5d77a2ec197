"""Masked pre-training on visual tokens: BEiT: BERT Pre-Training of Image Transformers (Bao et al., ICLR 2022, arXiv 2106.08254)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

from spine.checkpoints.run_checkpoint import read_checkpoint, tokenizer_of_run
from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.errors import InputError
from spine.interfaces import SampleExtra
from spine.layers.precision import at_least_float32
from spine.models.masked import MaskedModel
from spine.option_types import Config
from spine.reporting.figures import image_rows
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.beit.masking import BlockPatchMask
from spine.tasks.samples import SampleView, loss_of_each
from spine.tokenizers.dvae import DiscreteVAE
from spine.tokenizers.frozen import FrozenTokenizer

NO_DECODER = "The tokenizer has no decoder: its tokens cannot be drawn."


class MaskedImageModeling(Task):
    """Cross entropy on the tokens of masked patches, which a frozen tokenizer takes from the complete image.

    Metric: masked_accuracy, over all masked patches of the split.

    A loss of one's own is called with the logits (M, codes) and the tokens (M,) of the masked patches of a batch.
    """

    name = "beit"
    monitor: ClassVar[str] = "val/masked_accuracy"
    model: MaskedModel

    tokenizer: FrozenTokenizer

    def __init__(self, tokenizer: DiscreteVAE, *, max_masked: int = 75, min_block: int = 16, **common: Unpack[TaskArguments]):
        """`tokenizer`: it is frozen, and no part of the network or of checkpoints.

        `max_masked`: masked patches of an image, at most. `min_block`: lower bound of the area that is drawn for a block of them.
        Both are numbers of patches of a 14x14 grid, and are scaled to that of the network. The data module draws the masks.
        """
        super().__init__(**common)
        self.tokenizer, self.max_masked, self.min_block = FrozenTokenizer(tokenizer), max_masked, min_block
        self.accuracy = MulticlassAccuracy(tokenizer.num_codes, average="micro", validate_args=False)

    def options(self) -> Config:
        """The number of masked patches and the size of their blocks."""
        return {"max_masked": self.max_masked, "min_block": self.min_block}

    def sample_extras(self) -> Mapping[str, SampleExtra]:
        """A patch_mask for every sample."""
        return {"patch_mask": BlockPatchMask.scaled(self.model.grid, self.max_masked, self.min_block)}

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Adds the `tokens` (B, N) of the complete images, once a batch is on the device."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return {**batch, "tokens": self.tokens(batch)} if "tokenizer_image" in batch else batch  # predictions need no tokens

    def tokens(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The tokens (B, N) of complete images.

        Raises InputError if there is no image for the tokenizer, or if it has not one token for each patch.
        """
        if "tokens" in batch:
            return batch["tokens"]
        height, width = self.tokenizer.image_size(self.model.grid)
        image = batch.get("tokenizer_image")
        if image is None or image.shape[-2:] != (height, width):
            found = "is missing" if image is None else f"has {image.shape[-2]}x{image.shape[-1]} pixels"
            raise InputError(
                f"The image for the tokenizer {found}. The network has {self.model.grid[0]}x{self.model.grid[1]} patches: end the "
                f"transforms with spine.data.transforms.TwoViews, with second_size=[{height},{width}]."
            )
        return self.tokenizer.encode(image)

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss () and logits: (M, codes) of the M masked patches in training, (B, N, codes) in evaluation."""
        logits = at_least_float32(self.model(batch["image"], batch["patch_mask"], masked_only=self.training))
        return self._loss(logits, batch), logits

    def _loss(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        patch_mask = batch["patch_mask"]
        masked = logits if logits.ndim == 2 else logits[patch_mask]
        return (self.loss or F.cross_entropy)(masked, self.tokens(batch)[patch_mask])

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss (B,) of each sample."""
        return loss_of_each(self._loss, output, batch)

    def loss_weight(self, batch: Batch) -> float | Tensor:
        """The number of images, each counted by the fraction of its patches that are masked."""
        return super().loss_weight(batch) * batch["patch_mask"].float().mean()

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Counts the masked patches of one evaluated batch whose token is predicted."""
        patch_mask = batch["patch_mask"]
        self.accuracy.update(output.argmax(-1)[patch_mask], self.tokens(batch)[patch_mask])

    def compute_metrics(self) -> dict[str, float]:
        """masked_accuracy in 0..1."""
        value = float(self.accuracy.compute())
        self.accuracy.reset()
        return {"masked_accuracy": value}

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`tokens` (B, N): the most probable code of each patch, masked or not; `patch_mask` (B, N): True = masked."""
        patch_mask = batch["patch_mask"]
        return {"tokens": self.model(batch["image"], patch_mask).argmax(-1), "patch_mask": patch_mask}

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """How many masked tokens are predicted."""
        correct = (output.argmax(-1) == self.tokens(batch)) & batch["patch_mask"]
        counts = zip(correct.sum(1).tolist(), batch["patch_mask"].sum(1).tolist(), strict=True)
        return [SampleView(prediction=f"{right} of {masked} masked tokens") for right, masked in counts]

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Masked input; decoded tokens, predicted where masked; decoded tokens of the complete image; original."""
        tokens, patch_mask = self.tokens(batch), batch["patch_mask"]
        image = batch["image"].float()
        hidden = F.interpolate(patch_mask.view(-1, 1, *self.model.grid).float(), image.shape[-2:]).bool()
        rows: dict[str, np.ndarray | str] = {
            "masked input": to_pixels(image.masked_fill(hidden, 0.0)),
            "predicted tokens": self._decode(torch.where(patch_mask, output.argmax(-1), tokens)),
            "true tokens": self._decode(tokens),
            "original": to_pixels(image),
        }
        return {"tokens": image_rows(rows)}

    def _decode(self, tokens: Tensor) -> np.ndarray | str:
        """Decoded tokens (B, N) as images (B, h, w, 3) uint8, or the reason why they cannot be drawn."""
        if not self.tokenizer.has_decoder:
            return NO_DECODER
        pixels = self.tokenizer.decode(tokens, self.model.grid)
        return (pixels * 255).round().byte().permute(0, 2, 3, 1).numpy()

    def on_save_checkpoint(self, checkpoint: Config) -> None:
        """Adds which tokenizer the network was trained with, but not the tokenizer."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["tokenizer"] = {"sha256": self.tokenizer.sha256, "num_codes": self.tokenizer.num_codes}

    def check_checkpoint(self, checkpoint: Config) -> None:
        """Raises InputError if a checkpoint was trained with another tokenizer."""
        saved, own = checkpoint.get("tokenizer"), self.tokenizer
        if saved is None or saved["sha256"] == own.sha256:
            return
        if saved["num_codes"] != own.num_codes:
            difference = f"a vocabulary of {saved['num_codes']} codes; this one has {own.num_codes}"
        else:
            difference = f"other weights (SHA-256 {saved['sha256'][:8]}; this one: {own.sha256[:8]})"
        raise InputError(
            f"The checkpoint was trained with another tokenizer, which has {difference}. Give the tokenizer of the checkpoint, or "
            f"start another run from its weights with backbone.weights=<checkpoint>."
        )

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **changes: object) -> Self:  # type: ignore[override]
        """As of every task. Without `tokenizer` among the `changes`, it is read from the run folder, or from where training found it."""
        if "tokenizer" not in changes:
            changes["tokenizer"] = load_tokenizer(_tokenizer_path(checkpoint_path))
        return super().load_from_checkpoint(checkpoint_path, **changes)


def _tokenizer_path(checkpoint_path: str | Path) -> str:
    """The tokenizer of a checkpoint. Raises InputError if nothing says which one it is."""
    config = read_checkpoint(checkpoint_path)["config"]
    path = tokenizer_of_run(config, Path(checkpoint_path).absolute().parent.parent)
    if path is None:
        raise InputError(f"'{checkpoint_path}' does not name its tokenizer. Give tokenizer=load_tokenizer(<file>).")
    return path
