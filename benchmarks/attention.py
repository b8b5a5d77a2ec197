"""Measures why attention is computed explicitly in training in bfloat16 on a CPU, instead of by PyTorch's fused kernel.

    python benchmarks/attention.py [--rounds 7]

The first table has a forward and a backward pass of the attention alone, in milliseconds. The second one has a training step of whole
networks in bfloat16, in images per second. In every round the two take turns; the numbers are medians. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from throughput import interleaved_times
from torch import Tensor

import spine
from spine.layers import transformer

SHAPES = (  # batch, heads, tokens, width of a head
    (256, 4, 13, 32), (256, 4, 50, 16), (128, 4, 50, 32), (8, 12, 50, 64), (8, 12, 197, 64), (4, 12, 401, 64), (1, 12, 1025, 64),
)  # fmt: skip
NETWORKS = (  # backbone, variant, image size, patch size, batch
    ("vit", "micro", 28, 4, 128), ("vit", "tiny_patch16", 224, 16, 8), ("vit", "base_patch16", 224, 16, 4),
)  # fmt: skip


def explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(-1) @ v


def attention_step(
    function: Callable[[Tensor, Tensor, Tensor], Tensor], shape: tuple[int, ...], dtype: torch.dtype
) -> Callable[[], None]:
    batch, heads, tokens, width = shape
    q, k, v = (torch.randn(batch, tokens, heads, width, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(3))
    return lambda: function(q, k, v).sum().backward()


def training_step(net: torch.nn.Module, image: Tensor, longest: int) -> Callable[[], None]:
    """A step with explicit attention for up to `longest` tokens."""

    def run() -> None:
        transformer.LONGEST_EXPLICIT = longest
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(image).float().square().mean()
        loss.backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| batch, heads, tokens, width | dtype | fused, ms | explicit, ms |\n|---|---|---|---|")
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            steps = (attention_step(function, shape, dtype) for function in (F.scaled_dot_product_attention, explicit))
            times = zip(*interleaved_times(*steps, rounds), strict=True)
            print(
                f"| {shape} | {str(dtype)[6:]} | {' | '.join(f'{1e3 * statistics.median(each):.1f}' for each in times)} |",
                flush=True,
            )
    print("\n| network | pixels | batch | fused, images/s | explicit, images/s |\n|---|---|---|---|---|")
    for name, variant, size, patch, batch in NETWORKS:
        net = spine.create_model(name, variant=variant, task="cls", num_outputs=10, image_size=size, patch_size=patch)
        image = torch.randn(batch, 3, size, size)
        times = zip(*interleaved_times(training_step(net, image, 0), training_step(net, image, 512), rounds), strict=True)
        rates = " | ".join(f"{batch / statistics.median(each):.1f}" for each in times)
        print(f"| {name} {variant}, patch {patch} | {size} | {batch} | {rates} |", flush=True)


if __name__ == "__main__":
    main()
