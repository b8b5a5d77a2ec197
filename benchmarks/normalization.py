"""Measures how much of a training step the normalization of its images takes on a GPU.

    python benchmarks/normalization.py [--backbone convnext] [--variant tiny] [--batch 128] [--size 224] [--rounds 20]

The images arrive as uint8 pixels in pinned memory, as from the workers of a loader. Three parts are timed, in milliseconds, as medians:
their copy to the GPU, their normalization to float32, and a training step (forward, backward) in bfloat16. The cast of the normalized
images to bfloat16 is timed on its own: it is what a normalization that writes bfloat16 would save at most.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from throughput import CLASSES, make_step

import spine
from spine.checkpoints.input_settings import IMAGENET_MEAN, IMAGENET_STD
from spine.data.transforms.normalization import Normalization


def milliseconds(run: Callable[[], object], rounds: int) -> float:
    """Returns the median time of a function on the GPU, after three warm-up calls."""
    times = []
    for number in range(rounds + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(start.elapsed_time(end))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="convnext")
    parser.add_argument("--variant", default="tiny")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=20)
    given = parser.parse_args()
    shape = (given.batch, 3, given.size, given.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=torch.channels_last).pin_memory()
    normalization = Normalization(IMAGENET_MEAN, IMAGENET_STD)
    on_gpu = pixels.cuda()
    image = normalization.batch(on_gpu)
    network = spine.create_model(given.backbone, variant=given.variant, num_outputs=CLASSES, image_size=given.size)
    network = network.to("cuda", memory_format=torch.channels_last)
    times = {
        "copy of the uint8 pixels": milliseconds(lambda: pixels.to("cuda", non_blocking=True), given.rounds),
        "normalization to float32": milliseconds(lambda: normalization.batch(on_gpu), given.rounds),
        "cast to bfloat16": milliseconds(lambda: image.to(torch.bfloat16), given.rounds),
        "training step": milliseconds(make_step(network, image, torch.bfloat16, True), given.rounds),
    }
    print(f"{torch.cuda.get_device_name()}; torch {torch.__version__}; {given.backbone} {given.variant}, {given.batch} images\n")
    print("| part | ms | of the step |\n|---|---|---|")
    for name, time in times.items():
        print(f"| {name} | {time:.2f} | {time / times['training step']:.1%} |")


if __name__ == "__main__":
    main()
