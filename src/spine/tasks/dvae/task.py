"""Training of an image tokenizer: the discrete VAE of DALL-E (Ramesh et al., ICML 2021, arXiv 2102.12092, appendix A)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Unpack

from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import MeanMetric

from spine.layers.precision import at_least_float32
from spine.option_types import Config
from spine.reporting.figures import image_rows
from spine.tasks.base import Batch, Task, TaskArguments, ToPixels
from spine.tasks.dvae.losses import cosine_ramp, kl_to_uniform, logit_laplace_loss, squared_error
from spine.tasks.dvae.metrics import CodeCounts, perplexity
from spine.tasks.samples import SampleView, loss_of_each
from spine.tokenizers.dvae import STRIDE, DiscreteVAE, expected_pixels

LOSSES = {"logit_laplace": logit_laplace_loss, "mse": squared_error}
KL_WEIGHTS = {"logit_laplace": 6.6, "mse": 0.1}  # of the paper; and one for squared errors, which are far smaller
VALUES_PER_CODE = 3 * STRIDE**2  # the weight of the paper is for sums over values and codes, and the losses are means


class TokenizerTraining(Task):
    """Reconstruction loss plus KL divergence from the uniform distribution over codes. Training samples codes with Gumbel-softmax.

    Evaluation decodes the most probable codes, as users of the tokenizer do. Metrics: mse of pixels in 0..1; kl in nats per code; the
    perplexity of the codes of the split; codes_used, the share of the codes that occur. A loss of one's own replaces the reconstruction
    loss and is called with the output of the decoder (B, 6, H, W) and pixels (B, 3, H, W) in 0..1.
    """

    name = "dvae"
    monitor: ClassVar[str] = "val/mse"
    mode: ClassVar[str] = "min"
    model: DiscreteVAE

    def __init__(
        self,
        *,
        reconstruction: Literal["logit_laplace", "mse"] = "logit_laplace",
        kl_weight: float | None = None,
        kl_warmup: float = 0.1,
        start_temperature: float = 1.0,
        end_temperature: float = 0.0625,
        annealing: float = 0.5,
        **common: Unpack[TaskArguments],
    ):
        """`kl_weight`: beta of the paper; None for its 6.6, or for 0.1 with mse. It grows from 0 in the first `kl_warmup` of all steps.

        The temperature of the Gumbel-softmax goes from `start_temperature` to `end_temperature` in the first `annealing` of all steps.
        """
        super().__init__(**common)
        self.reconstruction, self.kl_weight, self.kl_warmup = reconstruction, kl_weight, kl_warmup
        self.start_temperature, self.end_temperature, self.annealing = start_temperature, end_temperature, annealing
        self.mse, self.kl, self.code_counts = MeanMetric(), MeanMetric(), CodeCounts(self.model.num_codes)
        self.evaluated: tuple[Tensor, Tensor] | None = None  # codes (B, h, w) and KL divergence () of the last evaluated batch

    def options(self) -> Config:
        """The losses and their weights, and the temperatures."""
        names = ("reconstruction", "kl_weight", "kl_warmup", "start_temperature", "end_temperature", "annealing")
        return {name: getattr(self, name) for name in names}

    def temperature(self) -> float:
        """The temperature of the Gumbel-softmax at this step."""
        return cosine_ramp(self.start_temperature, self.end_temperature, self._progress(self.annealing))

    def beta(self) -> float:
        """The weight of the KL divergence at this step. In evaluation, it is the final one."""
        final = KL_WEIGHTS[self.reconstruction] if self.kl_weight is None else self.kl_weight
        return cosine_ramp(0.0, final, self._progress(self.kl_warmup) if self.training else 1.0)

    def _progress(self, fraction: float) -> float:
        """The part of the first `fraction` of all optimizer steps that is done, 1 or more afterwards. 1 without a trainer."""
        if self._trainer is None or fraction == 0:
            return 1.0
        return self.trainer.global_step / (fraction * self.trainer.estimated_stepping_batches)

    def training_values(self) -> dict[str, float]:
        """The temperature and the weight of the KL divergence."""
        return {"temperature": self.temperature(), "kl_weight": self.beta()}

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss () per value of the images, and the output of the decoder (B, 6, H, W)."""
        logits, pixels = self.model(batch["image"], self.temperature() if self.training else None)
        pixels, kl = at_least_float32(pixels), kl_to_uniform(logits).mean()
        if not self.training:
            self.evaluated = logits.argmax(1), kl
        return self._reconstruction_loss(pixels, batch) + self.beta() / VALUES_PER_CODE * kl, pixels

    def _reconstruction_loss(self, pixels: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        if self.loss is not None:
            return self.loss(pixels, batch["image"])
        return LOSSES[self.reconstruction](pixels, batch["image"]).mean()

    def sample_losses(self, output: Tensor, batch: Batch) -> Tensor:
        """The reconstruction loss (B,) of each sample."""
        return loss_of_each(self._reconstruction_loss, output, batch)

    def view_samples(self, output: Tensor, batch: Batch) -> list[SampleView]:
        """The squared error of each reconstruction."""
        return [SampleView(prediction=f"mse {error:.4f}") for error in _errors(output, batch).tolist()]

    def predict_batch(self, batch: Batch) -> dict[str, Tensor]:
        """`tokens` (B, N): the most probable codes in raster order; `image` (B, 3, H, W): their reconstruction, in 0..1."""
        logits, pixels = self.model(batch["image"])
        return {"tokens": logits.argmax(1).flatten(1), "image": expected_pixels(at_least_float32(pixels))}

    def update_metrics(self, output: Tensor, batch: Batch) -> None:
        """Updates the errors and the counts of the codes with one evaluated batch."""
        assert self.evaluated is not None
        codes, kl = self.evaluated
        self.mse.update(_errors(output, batch))
        self.kl.update(kl, len(output))
        self.code_counts.update(codes)

    def compute_metrics(self) -> dict[str, float]:
        """mse, kl, perplexity and codes_used."""
        counts = self.code_counts.compute()
        values = {
            "mse": float(self.mse.compute()),
            "kl": float(self.kl.compute()),
            "perplexity": perplexity(counts),
            "codes_used": float((counts > 0).double().mean()),
        }
        for metric in (self.mse, self.kl, self.code_counts):
            metric.reset()
        return values

    def draw(self, batch: Batch, output: Tensor, to_pixels: ToPixels) -> dict[str, Figure]:
        """Originals, and reconstructions from the most probable codes."""
        rows = {"original": to_pixels(batch["image"]), "reconstructed": to_pixels(expected_pixels(output))}
        return {"reconstruction": image_rows(rows)}


def _errors(output: Tensor, batch: Batch) -> Tensor:
    """The mean squared error (B,) of the expected pixels of each image."""
    return (expected_pixels(output) - batch["image"]).square().mean((1, 2, 3))
