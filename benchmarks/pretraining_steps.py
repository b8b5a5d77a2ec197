"""Measures steps of masked pre-training next to the authors' code: forward pass, backward pass and optimizer.

    python benchmarks/pretraining_steps.py [--variant base_patch16] [--batch 8] [--rounds 7] [--dtype float32|bfloat16]

Needs timm, and the authors' code in the folder SPINE_CHECKOUTS (see tests/recording.py). Both networks reconstruct the same
images with 75 % of the patches masked, with the same dtype (autocast) and AdamW. Each network draws its masks as its training
does: ours on the CPU for every sample, theirs in the network. In every round both networks take turns. The ratio is the median
of the ratios of all rounds; above 1 our step is faster. Prints a Markdown table, with the hardware.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from throughput import describe, interleaved_times, make_settings, peak_megabytes
from torch import Tensor, nn

import spine
from spine.tasks.mae.losses import masked_pixel_loss, normalize_patches
from spine.tasks.mae.masking import RandomPatchMask
from spine.tasks.mae.patches import patchify

MASK_RATIO = 0.75
HEADER = """\
| network | ours, images/s | theirs, images/s | ratio (lowest to highest) | MB ours | MB theirs |
|---|---|---|---|---|---|"""


def our_loss(net: nn.Module, image: Tensor) -> Tensor:
    """The loss of `task=mae`, without Lightning."""
    grid = net.grid[0] * net.grid[1]
    draw, rng = RandomPatchMask(grid, MASK_RATIO), np.random.default_rng(0)
    patch_mask = torch.stack([draw(rng) for _ in image]).to(image.device)
    target = normalize_patches(patchify(image, net.patch_size))
    return masked_pixel_loss(net(image, patch_mask), target, patch_mask)


def their_loss(net: nn.Module, image: Tensor) -> Tensor:
    """The loss of the authors' `engine_pretrain.py`."""
    return net(image, mask_ratio=MASK_RATIO)[0]


def their_network(variant: str) -> nn.Module:
    """Builds the authors' network."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    build = importlib.import_module("references.mae").authors_network
    return build(f"mae_vit_{variant}_dec512d8b", norm_pix_loss=True)


def make_step(
    net: nn.Module, image: Tensor, dtype: torch.dtype, loss_of: Callable[[nn.Module, Tensor], Tensor]
) -> Callable[[], None]:
    """Returns a function that trains one step."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05)

    def run() -> None:
        with torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            loss = loss_of(net, image)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if image.is_cuda:
            torch.cuda.synchronize()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="base_patch16", choices=["base_patch16", "large_patch16", "huge_patch14"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    arguments.size, arguments.defaults = 224, False
    settings = make_settings(arguments)._replace(their_format=torch.contiguous_format)
    torch.manual_seed(0)
    image = torch.randn(arguments.batch, 3, 224, 224, device=settings.device)
    ours = spine.create_model("mae", variant=arguments.variant, task="mae").to(settings.device)
    theirs = their_network(arguments.variant).to(settings.device)
    our_step = make_step(ours, image.to(memory_format=torch.channels_last), settings.dtype, our_loss)
    their_step = make_step(theirs, image, settings.dtype, their_loss)
    times = interleaved_times(our_step, their_step, arguments.rounds)
    rates = [arguments.batch / statistics.median(of_one) for of_one in zip(*times, strict=True)]
    ratios = sorted(theirs / ours for ours, theirs in times)
    memory = [peak_megabytes(net, step, settings.device) for net, step in ((ours, our_step), (theirs, their_step))]
    print(f"{describe(arguments, settings)}\n\n{HEADER}")
    print(
        f"| MAE {arguments.variant} | {rates[0]:.2f} | {rates[1]:.2f} "
        f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) | {memory[0]:.0f} | {memory[1]:.0f} |"
    )


if __name__ == "__main__":
    main()
