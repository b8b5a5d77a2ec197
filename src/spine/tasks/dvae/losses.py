"""Losses of discrete VAEs (DALL-E, arXiv 2102.12092, appendix A)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from spine.tokenizers.dvae import EPS, map_pixels

MIN_LOG_SCALE = (
    -5.0
)  # exp(-5) is about half the distance of two gray levels: a constant area does not make the likelihood infinite


def logit_laplace_loss(output: Tensor, image: Tensor) -> Tensor:
    """Negative logarithm of the likelihood of each value (B, 3, H, W) of images, in nats (appendix A.3).

    `output`: the decoder's (B, 6, H, W), means and logarithms of scales of a logit-Laplace distribution. `image`: pixels in 0..1.
    """
    mean, log_scale = output.chunk(2, dim=1)
    log_scale = log_scale.clamp(min=MIN_LOG_SCALE)
    x = map_pixels(image)
    return math.log(2) + log_scale + (x * (1 - x)).log() + (x.logit() - mean).abs() * (-log_scale).exp()


def squared_error(output: Tensor, image: Tensor) -> Tensor:
    """Squared error of each value (B, 3, H, W) of images: the sigmoid of the means, mapped back to pixels in 0..1."""
    pixels = (output[:, :3].sigmoid() - EPS) / (1 - 2 * EPS)
    return (pixels - image).square()


def kl_to_uniform(logits: Tensor) -> Tensor:
    """Kullback-Leibler divergence (B, h, w) of the distribution over codes from the uniform one, in nats. `logits`: (B, codes, h, w)."""
    log_probabilities = F.log_softmax(logits, dim=1)
    return math.log(logits.shape[1]) + (log_probabilities.exp() * log_probabilities).sum(1)


def cosine_ramp(start: float, end: float, progress: float) -> float:
    """A value that goes from `start` to `end` on half a cosine while `progress` goes from 0 to 1, and stays there."""
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
