"""Images a second and memory of every backbone beside another implementation of the same network.

    python benchmarks/throughput.py [--backbones convnext vit] [--batch 8] [--size 224] [--rounds 7] [--dtype float32|bfloat16] [--defaults]

The other implementation is timm's, or the authors' own where timm has none (then SPINE_CHECKOUTS names the folder of their checkouts, see
tests/recording.py). Both classify the same images; a training step is a forward and a backward pass. In every round ours and theirs take
turns, in the same dtype (autocast) and memory format; the ratio is the median of the rounds' ratios, above 1 where ours is faster.
With --defaults each runs as its own training script would by default: ours channels_last and in the precision that `trainer.precision=auto`
picks, theirs in float32 and PyTorch's plain memory format. Memory is the peak of what a training step allocates beyond weights and
optimizer, by torch's profiler. Prints a table in Markdown with the hardware.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import spine
from spine.training.precision import resolve_precision

CLASSES = 10
PAIRS = {  # backbone: variant, and timm's name; None where the authors' network is that of tests/references
    "beit": ("base_patch16", "beit_base_patch16_224"),
    "convnext": ("tiny", "convnext_tiny"),
    "hrnet": ("w18", "hrnet_w18"),
    "mae": ("base_patch16", "vit_base_patch16_224"),
    "mobilenet_v2": ("w100", "mobilenetv2_100"),
    "mobilenet_v3": ("large_100", "mobilenetv3_large_100"),
    "resnest": ("resnest50", "resnest50d"),
    "segnext": ("tiny", None),
    "shufflenet_v1": ("x1_0_g3", None),
    "shufflenet_v2": ("x1_0", None),
    "swin": ("tiny", "swin_tiny_patch4_window7_224"),
    "vgg16": ("plain", "vgg16"),
    "vit": ("small_patch16", "vit_small_patch16_224"),
    "xception": ("standard", "legacy_xception"),
}
OPTIONS = {"mae": {"global_pool": "avg", "fc_norm": True}}  # of timm's constructor
SIZED = ("beit", "mae", "swin", "vit")  # timm builds these for one image size


def reference(backbone: str, size: int) -> nn.Module:
    """The other implementation of the backbone's variant."""
    variant, name = PAIRS[backbone]
    if name is None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        cases = importlib.import_module(f"references.{backbone}").CASES
        return next(case for case in cases if case.variant == variant).build()
    import timm

    sized = {"img_size": size} if backbone in SIZED else {}
    return timm.create_model(name, num_classes=CLASSES, **OPTIONS.get(backbone, {}), **sized)


def step(net: nn.Module, image: torch.Tensor, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    """One forward, and with `train` one backward, ready to be timed."""

    def run() -> None:
        net.train(train)
        grad = contextlib.nullcontext() if train else torch.inference_mode()
        with grad, torch.autocast(image.device.type, dtype, enabled=dtype != torch.float32):
            out = net(image)
        out = getattr(out, "logits", out)
        if train:
            net.zero_grad(set_to_none=True)
            out.float().square().mean().backward()
        if image.is_cuda:
            torch.cuda.synchronize()

    return run


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_megabytes(net: nn.Module, run: Callable[[], None], device: str) -> float:
    """The most that one step allocates at a time, its gradients among it."""
    net.zero_grad(set_to_none=True)
    gc.collect()
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--defaults", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    if arguments.defaults:
        formats = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
        dtype = formats[resolve_precision("auto", "auto")]
    their_dtype = torch.float32 if arguments.defaults else dtype
    their_format = torch.contiguous_format if arguments.defaults else torch.channels_last
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    print(f"{where}; torch {torch.__version__}; batch {arguments.batch}, {arguments.size} px;", end=" ")
    print(
        f"ours {str(dtype)[6:]} channels_last, theirs {str(their_dtype)[6:]} {str(their_format)[6:].removesuffix('_format')};",
        end=" ",
    )
    print(f"images/s, medians of {arguments.rounds} interleaved rounds; ratio above 1: ours is faster\n")
    print("| backbone | variant | reference | what | ours | theirs | ratio (lowest to highest) | MB ours | MB theirs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for backbone in arguments.backbones:
        variant, name = PAIRS[backbone]
        torch.manual_seed(0)
        image = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device)
        ours = spine.create_model(backbone, variant=variant, num_outputs=CLASSES, image_size=arguments.size)
        ours = ours.to(device, memory_format=torch.channels_last)
        theirs = reference(backbone, arguments.size).to(device, memory_format=their_format)
        images = image.to(memory_format=torch.channels_last), image.to(memory_format=their_format)
        for train in (False, True):
            mine, other = step(ours, images[0], dtype, train), step(theirs, images[1], their_dtype, train)
            for run in (mine, other, mine, other):
                run()
            rounds = []
            for i in range(arguments.rounds):  # who goes first changes from round to round
                pair = (mine, other) if i % 2 == 0 else (other, mine)
                times = [seconds(run) for run in pair]
                rounds.append(times if i % 2 == 0 else times[::-1])
            rate = [arguments.batch / statistics.median(times) for times in zip(*rounds, strict=True)]
            ratios = sorted(b / a for a, b in rounds)
            spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            memory = [f"{peak_megabytes(*pair, device):.0f}" if train else "" for pair in ((ours, mine), (theirs, other))]
            what = "training step" if train else "inference"
            cells = (backbone, variant, name or "the authors'", what, *(f"{r:.1f}" for r in rate), spread, *memory)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
