"""Measures throughput and memory of every backbone next to another implementation of the same network.

    python benchmarks/throughput.py [--backbones convnext vit] [--batch 8] [--size 224] [--rounds 7] [--dtype float32|bfloat16] [--defaults]

The reference is timm's implementation, or the authors' own if timm has none. The authors' code is
read from checkouts in the folder SPINE_CHECKOUTS (see tests/recording.py). Both networks classify
the same images. A training step is a forward and a backward pass. In every round both networks take
turns, with the same dtype (autocast) and memory format. The ratio is the median of the ratios of
all rounds; above 1 our network is faster.

With --defaults each network runs as in its own training script: ours channels_last and with the
precision of `trainer.precision=auto`, the reference in float32 and contiguous memory format. Memory
is the peak that a training step allocates in addition to weights and optimizer states, measured by
torch's profiler. Prints a Markdown table, with the hardware.
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
from typing import NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

import spine
from spine.training.precision import resolve_precision

CLASSES = 10
REFERENCES = {  # backbone: variant and name in timm; None for the authors' network in tests/references
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
TIMM_OPTIONS = {"mae": {"global_pool": "avg", "fc_norm": True}}
FIXED_SIZE = ("beit", "mae", "swin", "vit")  # timm builds these for one image size
HEADER = """\
| backbone | variant | reference | what | ours | theirs | ratio (lowest to highest) | MB ours | MB theirs |
|---|---|---|---|---|---|---|---|---|"""


class Settings(NamedTuple):
    """Device, and dtype and memory format of both networks."""

    device: str
    dtype: torch.dtype
    their_dtype: torch.dtype
    their_format: torch.memory_format
    rounds: int


def reference(backbone: str, size: int) -> nn.Module:
    """Builds the reference implementation of the variant of a backbone."""
    variant, name = REFERENCES[backbone]
    if name is None:
        sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
        cases = importlib.import_module(f"references.{backbone}").CASES
        return next(case for case in cases if case.variant == variant).build()
    import timm

    sized = {"img_size": size} if backbone in FIXED_SIZE else {}
    return timm.create_model(name, num_classes=CLASSES, **TIMM_OPTIONS.get(backbone, {}), **sized)


def make_step(net: nn.Module, image: torch.Tensor, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    """Returns a function that runs one forward pass and, if `train`, one backward pass."""

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


def interleaved_times(ours: Callable[[], None], theirs: Callable[[], None], rounds: int) -> list[tuple[float, float]]:
    """Returns the seconds of both functions in each round, after two warm-up rounds.

    The order alternates between rounds.
    """
    for run in (ours, theirs, ours, theirs):
        run()
    times = []
    for i in range(rounds):
        if i % 2 == 0:
            ours_seconds, theirs_seconds = seconds(ours), seconds(theirs)
        else:
            theirs_seconds, ours_seconds = seconds(theirs), seconds(ours)
        times.append((ours_seconds, theirs_seconds))
    return times


def peak_megabytes(net: nn.Module, run: Callable[[], None], device: str) -> float:
    """Returns the peak memory that one step allocates, gradients included."""
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


def rows(backbone: str, batch: int, size: int, settings: Settings) -> list[str]:
    """Measures a backbone and its reference, and returns the table rows of inference and training."""
    variant, name = REFERENCES[backbone]
    device = settings.device
    torch.manual_seed(0)
    image = torch.randn(batch, 3, size, size, device=device)
    ours = spine.create_model(backbone, variant=variant, num_outputs=CLASSES, image_size=size)
    ours = ours.to(device, memory_format=torch.channels_last)
    theirs = reference(backbone, size).to(device, memory_format=settings.their_format)
    table = []
    for train in (False, True):
        our_step = make_step(ours, image.to(memory_format=torch.channels_last), settings.dtype, train)
        their_step = make_step(theirs, image.to(memory_format=settings.their_format), settings.their_dtype, train)
        times = interleaved_times(our_step, their_step, settings.rounds)
        rates = [batch / statistics.median(of_one) for of_one in zip(*times, strict=True)]
        ratios = sorted(b / a for a, b in times)
        spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        pairs = ((ours, our_step), (theirs, their_step))
        memory = [f"{peak_megabytes(*pair, device):.0f}" if train else "" for pair in pairs]
        what = "training step" if train else "inference"
        cells = (backbone, variant, name or "the authors'", what, *(f"{rate:.1f}" for rate in rates), spread, *memory)
        table.append(f"| {' | '.join(cells)} |")
    return table


def make_settings(arguments: argparse.Namespace) -> Settings:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if not arguments.defaults:
        dtype = getattr(torch, arguments.dtype)
        return Settings(device, dtype, dtype, torch.channels_last, arguments.rounds)
    dtypes = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
    dtype = dtypes[resolve_precision("auto", "auto")]
    return Settings(device, dtype, torch.float32, torch.contiguous_format, arguments.rounds)


def describe(arguments: argparse.Namespace, settings: Settings) -> str:
    """Returns one line with the hardware and the settings."""
    cuda = settings.device == "cuda"
    hardware = torch.cuda.get_device_name() if cuda else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    their_format = str(settings.their_format)[6:].removesuffix("_format")
    return (
        f"{hardware}; torch {torch.__version__}; batch {arguments.batch}, {arguments.size} px; "
        f"ours {str(settings.dtype)[6:]} channels_last, theirs {str(settings.their_dtype)[6:]} {their_format}; "
        f"images/s, medians of {arguments.rounds} interleaved rounds; ratio above 1: ours is faster"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(REFERENCES), choices=list(REFERENCES))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--defaults", action="store_true")
    arguments = parser.parse_args()
    settings = make_settings(arguments)
    print(f"{describe(arguments, settings)}\n\n{HEADER}")
    for backbone in arguments.backbones:
        for row in rows(backbone, arguments.batch, arguments.size, settings):
            print(row, flush=True)


if __name__ == "__main__":
    main()
