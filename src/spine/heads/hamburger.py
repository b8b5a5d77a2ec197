"""SegNeXt's decoder: joins three maps and adds global context by matrix factorization.

SegNeXt (Guo et al., arXiv 2209.08575, section 3.2); Hamburger: Is Attention Better Than Matrix
Decomposition? (Geng et al., arXiv 2109.04553).

One difference from the authors' code: they draw random initial bases in every forward pass, also in
evaluation, so their predictions depend on the random state. Here evaluation starts from fixed
bases.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError
from spine.interfaces import Features, FeatureSpec, Head
from spine.layers.conv import resize_map
from spine.layers.initialization import kaiming_fan_out
from spine.layers.precision import at_least_float32, without_autocast
from spine.layers.pyramid import pyramid_for
from spine.task_spec import HeadInput

GROUPS = 32  # of all group norms
EPS = 1e-6  # in the denominators


class ConvGroupNorm(nn.Module):
    """1x1 convolution without bias, group norm, and ReLU if `relu`."""

    def __init__(self, in_channels: int, out_channels: int, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.gn = nn.GroupNorm(GROUPS, out_channels)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h, w)."""
        return self.relu(self.gn(self.conv(x)))


class NMF(nn.Module):
    """Non-negative matrix factorization by multiplicative updates. Gradients pass through all steps."""

    def __init__(self, channels: int, rank: int, train_steps: int = 6, eval_steps: int = 7):
        """`channels`: C of the input."""
        super().__init__()
        self.rank, self.train_steps, self.eval_steps = rank, train_steps, eval_steps
        generator = torch.Generator().manual_seed(0)
        # no buffer, which a network in half precision would round
        self.start = torch.rand(1, channels, rank, generator=generator, device="cpu")

    def _start(self, x: Tensor) -> Tensor:
        """Returns initial bases (B, C, R), which are not normalized.

        They are random in training, and equal for all images and calls in evaluation.
        """
        B, C, _ = x.shape
        if self.training:
            return torch.rand(B, C, self.rank, device=x.device, dtype=x.dtype)
        return self.start.to(x).expand(B, -1, -1)

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """Non-negative (B, C, N), initial bases (B, C, R) or None -> bases @ coefficients^T (B, C, N)."""
        bases = F.normalize(self._start(x) if bases is None else bases.to(x), dim=1)
        coefficients = F.softmax(x.transpose(1, 2) @ bases, dim=-1)  # (B, N, R)
        for _ in range(self.train_steps if self.training else self.eval_steps):
            coefficients = self._update_coefficients(x, bases, coefficients)
            numerator = x @ coefficients
            bases = bases * numerator / (bases @ (coefficients.transpose(1, 2) @ coefficients) + EPS)
        coefficients = self._update_coefficients(x, bases, coefficients)
        return bases @ coefficients.transpose(1, 2)

    @staticmethod
    def _update_coefficients(x: Tensor, bases: Tensor, coefficients: Tensor) -> Tensor:
        numerator = x.transpose(1, 2) @ bases
        return coefficients * numerator / (coefficients @ (bases.transpose(1, 2) @ bases) + EPS)


class Hamburger(nn.Module):
    """1x1 convolution (bread), matrix factorization (ham), 1x1 convolution, residual connection."""

    def __init__(self, channels: int, rank: int):
        super().__init__()
        self.ham_in = nn.ModuleDict({"conv": nn.Conv2d(channels, channels, 1)})  # the only convolution here with a bias
        self.ham = NMF(channels, rank)
        self.ham_out = ConvGroupNorm(channels, channels, relu=False)

    def forward(self, x: Tensor, bases: Tensor | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        enjoy = F.relu(self.ham_in["conv"](x))
        with without_autocast(x):  # divisions by small sums need float32
            ham = self.ham(at_least_float32(enjoy.flatten(2)), bases).to(enjoy.dtype)
        return F.relu(x + self.ham_out(ham.unflatten(2, enjoy.shape[-2:])))


class HamburgerHead(Head):
    """Joins three maps at the finest of them, then squeeze, hamburger, align and classifier."""

    reads: ClassVar[HeadInput] = "maps"
    levels: ClassVar[tuple[int, ...] | None] = (1, 2, 3)

    def __init__(self, spec: FeatureSpec, num_outputs: int, *, channels: int = 256, rank: int = 16, dropout: float = 0.1):
        super().__init__()
        if channels % GROUPS:
            raise InputError(f"head.channels is {channels}; the hamburger's group norms need a multiple of {GROUPS}.")
        self.pyramid, levels = pyramid_for(spec)
        self.squeeze = ConvGroupNorm(sum(level.channels for level in levels), channels)
        self.hamburger = Hamburger(channels, rank)
        self.align = ConvGroupNorm(channels, channels)
        self.drop = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_outputs, 1)
        self.apply(kaiming_fan_out)

    def forward(self, features: Features, bases: Tensor | None = None) -> Tensor:
        """Features -> logits (B, classes, h, w) at the finest stride of the three maps.

        `bases`: non-negative initial bases (B, channels, rank); None for those of NMF.
        """
        maps = features.maps if self.pyramid is None else self.pyramid(features.maps)
        x = self.squeeze(torch.cat([resize_map(x, maps[0].shape[-2:]) for x in maps], dim=1))
        return self.conv_seg(self.drop(self.align(self.hamburger(x, bases))))
