"""Images a second of every backbone beside a reference implementation of the same network.

    python benchmarks/throughput.py [--backbones convnext vit] [--batch 8] [--size 224] [--rounds 7] [--dtype float32|bfloat16]

The reference is timm's network where timm can be imported, else that of transformers. Both compute a classifier of 1000 classes from the
same images, in the same dtype (autocast) and memory format. In every round ours and theirs take turns; the ratio is the median of the
rounds' ratios, above 1 where ours is faster. Prints a table in Markdown with the hardware.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import spine

PAIRS = {  # backbone: variant, timm's name
    "convnext": ("tiny", "convnext_tiny"),
    "hrnet": ("w18_small_v1", "hrnet_w18_small"),
    "mobilenet_v2": ("w100", "mobilenetv2_100"),
    "vit": ("small_patch16", "vit_small_patch16_224"),
}


def reference(backbone: str, size: int) -> tuple[nn.Module, str] | None:
    """Another implementation of the backbone's variant, and where it is from."""
    try:
        import timm

        options = {"img_size": size} if backbone == "vit" else {}
        return timm.create_model(PAIRS[backbone][1], num_classes=1000, **options), f"timm {importlib.metadata.version('timm')}"
    except (ImportError, RuntimeError):  # timm without a working torchvision
        pass
    try:
        import transformers as t
    except ImportError:
        return None
    configs = {
        "convnext": lambda: t.ConvNextForImageClassification(t.ConvNextConfig(num_labels=1000)),
        "vit": lambda: t.ViTForImageClassification(
            t.ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536, image_size=size, num_labels=1000)
        ),
        "mobilenet_v2": lambda: t.MobileNetV2ForImageClassification(t.MobileNetV2Config(num_labels=1000, tf_padding=False)),
    }
    return (configs[backbone](), f"transformers {t.__version__}") if backbone in configs else None


def step(net: nn.Module, image: torch.Tensor, dtype: torch.dtype, train: bool) -> Callable[[], None]:
    """One forward, and with `train` one backward, ready to be timed."""
    net.train(train)

    def run() -> None:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(PAIRS), choices=list(PAIRS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    hardware = (
        torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    )
    print(
        f"{hardware}; torch {torch.__version__}; batch {arguments.batch}, {arguments.size} px, {arguments.dtype}, channels_last; "
    )
    print(f"images/s, medians of {arguments.rounds} interleaved rounds; ratio above 1: ours is faster\n")
    print("| backbone | variant | reference | what | ours | theirs | ratio (lowest to highest) |")
    print("|---|---|---|---|---|---|---|")
    for backbone in arguments.backbones:
        torch.manual_seed(0)
        image = torch.randn(arguments.batch, 3, arguments.size, arguments.size, device=device).to(
            memory_format=torch.channels_last
        )
        ours = spine.create_model(backbone, variant=PAIRS[backbone][0], num_outputs=1000, image_size=arguments.size)
        ours = ours.to(device, memory_format=torch.channels_last)
        found = reference(backbone, arguments.size)
        theirs = found[0].to(device, memory_format=torch.channels_last) if found else None
        for train in (False, True):
            mine = step(ours, image, dtype, train)
            other = step(theirs, image, dtype, train) if theirs is not None else None
            for run in (mine, other):
                for _ in range(2 if run else 0):
                    run()
            rounds = [(seconds(mine), seconds(other) if other else float("nan")) for _ in range(arguments.rounds)]
            rate = [arguments.batch / statistics.median(times) for times in zip(*rounds, strict=True)]
            ratios = sorted(b / a for a, b in rounds)
            what = "forward + backward" if train else "forward"
            if found:
                spread = f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
                print(
                    f"| {backbone} | {PAIRS[backbone][0]} | {found[1]} | {what} | {rate[0]:.1f} | {rate[1]:.1f} | {spread} |",
                    flush=True,
                )
            else:
                print(f"| {backbone} | {PAIRS[backbone][0]} | none here | {what} | {rate[0]:.1f} | | |", flush=True)


if __name__ == "__main__":
    main()
