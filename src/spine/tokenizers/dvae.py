"""Discrete VAE: the image tokenizer of DALL-E (Ramesh et al., ICML 2021, arXiv 2102.12092, appendix A).

BEiT predicts its tokens (Bao et al., ICLR 2022, arXiv 2106.08254, section 2.1). The encoder maps an image to logits over a
vocabulary of codes, one position for each 8x8 pixels; the decoder maps codes to the parameters of a distribution of pixels. The
published networks are the variant `dalle`. Pixels are in 0..1, not normalized.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.errors import InputError, nearest
from spine.layers.precision import at_least_float32
from spine.network_definition import NetworkDefinition
from spine.option_types import Config

STRIDE = 8  # pixels per code, down and across
EPS = 0.1  # of map_pixels


@dataclass(frozen=True)
class DVAEVariant:
    """Hyperparameters of a discrete VAE."""

    codes: int  # size of the vocabulary
    width: int  # channels of the first group of the encoder; the groups have 1, 2, 4 and 8 times as many
    decoder_input: int  # channels of the first layer of the decoder
    blocks: int  # residual blocks in a group


VARIANTS = {
    "small": DVAEVariant(codes=512, width=32, decoder_input=64, blocks=2),  # for one CPU
    "dalle": DVAEVariant(codes=8192, width=256, decoder_input=128, blocks=2),
}


def map_pixels(image: Tensor) -> Tensor:
    """Maps pixels from 0..1 to EPS..1 - EPS, so that their logit is finite (DALL-E, appendix A.3)."""
    return (1 - 2 * EPS) * image + EPS


def unmap_pixels(pixels: Tensor) -> Tensor:
    """The inverse of `map_pixels`, limited to 0..1."""
    return ((pixels - EPS) / (1 - 2 * EPS)).clamp(0, 1)


def conv(channels_in: int, channels_out: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size. Weights are normal with variance 1 / fan_in, biases zero."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=1 / math.sqrt(channels_in * kernel**2))
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """A bottleneck of four convolutions, each after a ReLU, added to the input with the factor `gain`."""

    def __init__(self, channels_in: int, channels_out: int, kernels: tuple[int, int, int, int], gain: float):
        """`kernels`: sizes of the convolutions."""
        super().__init__()
        hidden = channels_out // 4
        widths = (channels_in, hidden, hidden, hidden, channels_out)
        layers: list[tuple[str, nn.Module]] = []
        for i, kernel in enumerate(kernels, 1):
            layers += [(f"relu_{i}", nn.ReLU()), (f"conv_{i}", conv(widths[i - 1], widths[i], kernel))]
        self.id_path = conv(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        self.res_path = nn.Sequential(OrderedDict(layers))
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w)."""
        return self.id_path(x) + self.gain * self.res_path(x)


def make_groups(
    widths: tuple[int, ...], blocks: int, kernels: tuple[int, int, int, int], resize: tuple[str, type[nn.Module]]
) -> list[tuple[str, nn.Module]]:
    """Four groups of blocks. All but the last end with a layer that changes the size.

    `widths`: input channels, then the channels of each group. `resize`: name and class of the layer, which gets the factor 2.
    """
    groups: list[tuple[str, nn.Module]] = []
    gain = 1 / ((len(widths) - 1) * blocks) ** 2
    for i, (before, width) in enumerate(pairwise(widths), 1):
        layers: list[tuple[str, nn.Module]] = [
            (f"block_{j}", Block(before if j == 1 else width, width, kernels, gain)) for j in range(1, blocks + 1)
        ]
        if i < len(widths) - 1:
            name, layer = resize
            layers.append((name, layer(**{"kernel_size" if layer is nn.MaxPool2d else "scale_factor": 2})))
        groups.append((f"group_{i}", nn.Sequential(OrderedDict(layers))))
    return groups


class Encoder(nn.Module):
    """Image (B, 3, H, W), mapped by `map_pixels` -> logits of codes (B, codes, H / 8, W / 8)."""

    def __init__(self, variant: DVAEVariant):
        super().__init__()
        width = variant.width
        groups = make_groups(
            (width, width, 2 * width, 4 * width, 8 * width), variant.blocks, (3, 3, 3, 1), ("pool", nn.MaxPool2d)
        )
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv(8 * width, variant.codes, 1)))
        self.blocks = nn.Sequential(OrderedDict([("input", conv(3, width, 7)), *groups, ("output", output)]))

    def forward(self, image: Tensor) -> Tensor:
        """Returns the logits."""
        return self.blocks(image)


class Decoder(nn.Module):
    """One-hot codes, or their probabilities, (B, codes, h, w) -> (B, 6, 8 h, 8 w).

    The output holds, for each color, the mean and the logarithm of the scale of a logit-Laplace distribution.
    """

    def __init__(self, variant: DVAEVariant):
        super().__init__()
        width = variant.width
        widths = (variant.decoder_input, 8 * width, 4 * width, 2 * width, width)
        groups = make_groups(widths, variant.blocks, (1, 3, 3, 3), ("upsample", nn.Upsample))
        output = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=conv(width, 6, 1)))
        self.blocks = nn.Sequential(
            OrderedDict([("input", conv(variant.codes, variant.decoder_input, 1)), *groups, ("output", output)])
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Returns means (channels 0 to 2) and logarithms of scales (channels 3 to 5)."""
        return self.blocks(codes)


class DVAEOutput(NamedTuple):
    """Output of `DiscreteVAE.forward`.

    logits: of the codes, (B, codes, h, w). pixels: means and logarithms of scales, (B, 6, H, W).
    """

    logits: Tensor
    pixels: Tensor


class DiscreteVAE(nn.Module):
    """Encoder and decoder. The decoder may be missing in published files; such a tokenizer only encodes."""

    stride = STRIDE
    config: TokenizerConfig | None = None  # what it was built from, for checkpoints

    def __init__(self, variant: str = "small", decoder: bool = True):
        """Raises InputError if the variant is unknown."""
        super().__init__()
        if variant not in VARIANTS:
            raise InputError(
                f"Unknown variant '{variant}' of dvae.{nearest(variant, list(VARIANTS))} Choices: {', '.join(VARIANTS)}."
            )
        self.variant, self.num_codes = variant, VARIANTS[variant].codes
        self.encoder = Encoder(VARIANTS[variant])
        self.decoder = Decoder(VARIANTS[variant]) if decoder else None

    def forward(self, image: Tensor, temperature: float | None = None) -> DVAEOutput:
        """Encodes and decodes images (B, 3, H, W) with pixels in 0..1.

        With a `temperature`, the decoder reads a sample of the Gumbel-softmax relaxation (Jang et al., arXiv 1611.01144), with noise
        of the global generator of the device. Without one, it reads the most probable codes. Raises InputError if there is no decoder.
        """
        logits = at_least_float32(self.logits(image))
        if temperature is None:
            codes = torch.zeros_like(logits).scatter(1, logits.argmax(1, keepdim=True), 1.0)
        else:
            codes = F.gumbel_softmax(logits, tau=temperature, dim=1)
        return DVAEOutput(logits, self._checked_decoder()(codes))

    def logits(self, image: Tensor) -> Tensor:
        """Pixels in 0..1 (B, 3, H, W) -> logits of codes (B, codes, H / 8, W / 8). Raises InputError for a size that does not fit."""
        check_image_size(image.shape[-2], image.shape[-1])
        return self.encoder(map_pixels(image))

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Pixels in 0..1 (B, 3, H, W) -> the most probable code of each position (B, H / 8 * W / 8), in raster order."""
        return self.logits(image).argmax(1).flatten(1)

    def decode(self, codes: Tensor) -> Tensor:
        """One-hot codes or probabilities (B, codes, h, w) -> the expected pixels in 0..1 (B, 3, 8 h, 8 w).

        Raises InputError if there is no decoder.
        """
        return expected_pixels(self._checked_decoder()(codes))

    def decode_tokens(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Tokens (B, N) int64 in raster order -> pixels in 0..1 (B, 3, 8 h, 8 w). `grid`: (h, w), with N = h * w."""
        one_hot = F.one_hot(tokens, self.num_codes).movedim(-1, 1).float()  # (B, codes, N)
        return self.decode(one_hot.unflatten(2, grid))

    def _checked_decoder(self) -> Decoder:
        if self.decoder is None:
            raise InputError(
                "This tokenizer has no decoder, which drawing its tokens needs. Give the file of the decoder as well."
            )
        return self.decoder


def expected_pixels(output: Tensor) -> Tensor:
    """The pixels (B, 3, H, W) in 0..1 of an output of the decoder (B, 6, H, W): the sigmoid of the means (DALL-E, appendix A.3)."""
    return unmap_pixels(output[:, :3].sigmoid())


def check_image_size(height: int, width: int) -> None:
    """Raises InputError with the nearest sizes that fit if a side is not a multiple of STRIDE."""
    if height % STRIDE == 0 and width % STRIDE == 0:
        return
    wrong = next(side for side in (height, width) if side % STRIDE)
    below, above = wrong // STRIDE * STRIDE, (wrong // STRIDE + 1) * STRIDE
    sizes = f"{below} and {above}" if below else str(above)
    raise InputError(
        f"The tokenizer has one token for {STRIDE}x{STRIDE} pixels; {height}x{width} is not a multiple. "
        f"Nearest to {wrong} that fit: {sizes}."
    )


@dataclass(frozen=True)
class TokenizerConfig(NetworkDefinition):
    """The network of `task=dvae`: the variant of a discrete VAE. `image_size`: (height, width)."""

    variant: str = "small"
    image_size: tuple[int, int] | None = None

    @classmethod
    def from_config(cls, config: Config, num_outputs: int | None = None) -> TokenizerConfig:
        """The tokenizer of a plain configuration. `num_outputs` is not used: the variant has a number of codes."""
        height, width = config["image_size"]
        return cls(config["task"].get("variant") or cls.variant, (height, width))

    @classmethod
    def from_dict(cls, saved: Config) -> TokenizerConfig:
        """The tokenizer of a dictionary that `to_dict` returned."""
        size = saved["image_size"]
        return cls(saved["variant"], tuple(size) if size is not None else None)

    def to_dict(self) -> dict[str, object]:
        """The tokenizer as plain values, for checkpoints."""
        return {"variant": self.variant, "image_size": self.image_size}

    def build(self) -> DiscreteVAE:
        """Builds the discrete VAE. Raises InputError if the variant is unknown, or the image size is not a multiple of 8."""
        if self.image_size is not None:
            check_image_size(*self.image_size)
        net = DiscreteVAE(self.variant)
        net.config = self
        return net

    @property
    def summary(self) -> str:
        """Such as "dvae small"."""
        return f"dvae {self.variant}"
