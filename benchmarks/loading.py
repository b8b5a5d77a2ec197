"""Measures how many images per second one core loads for training: spine, timm's loader and torchvision's transforms.

    python benchmarks/loading.py --root PHOTOS [--peers PYTHON] [--rounds 7] [--modes plain,strong] [--size 224]

Reads all JPEG files below PHOTOS, in batches of 32, without worker processes and with one thread. Each library runs in a process of
its own, and they take turns: in every round each loads all images once, and reports its CPU time. `--peers` is the Python of an
environment that has timm and torchvision; without it, only spine is measured. The result of every library is a batch of
normalized float32 images.

plain: random resized crop (bilinear), flip. strong: also RandAugment and random erasing (of torchvision and timm: their own).
timm's loader is measured with its prefetcher, which normalizes whole batches, and without it; torchvision's transforms on tensors
and on Pillow's images, which its ImageFolder reads. Ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

BATCH = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = "rand-m9-inc1"  # with "mstd0.5", timm asks Pillow for posterization with 0 bits, which it refuses
LIBRARIES = ("spine", "timm, prefetcher", "timm", "torchvision, tensors", "torchvision, Pillow")
Loader = Callable[[], Iterable]  # makes one pass over all batches


def spine_loader(folder: Path, size: int, strong: bool) -> Loader:
    """Returns spine's loader."""
    from functools import partial

    import cv2

    from spine.data.data_module import DataModule
    from spine.data.formats.image_folder import ImageFolder
    from spine.data.transforms import HorizontalFlip, RandAugment, RandomErasing, RandomResizedCrop, Step

    cv2.setNumThreads(0)
    steps: list[Step] = [RandomResizedCrop((size, size), interpolation="bilinear", fast=True), HorizontalFlip()]
    if strong:
        steps += [RandAugment(POLICY, interpolation="bilinear"), RandomErasing(0.25, "pixel")]
    data = DataModule(
        partial(ImageFolder, root=str(folder)),
        steps,
        needs={"image", "label"},
        batch_size=BATCH,
        num_workers=0,
        mean=MEAN,
        std=STD,
    )
    loader = data.loader("train", training=True)

    def batches() -> Iterable:
        loader.batch_sampler.set_epoch(loader.batch_sampler.epoch + 1)
        return loader

    return batches


def timm_loader(folder: Path, size: int, strong: bool, prefetcher: bool) -> Loader:
    """Returns timm's loader."""
    import torch
    from timm.data import create_dataset, create_loader

    dataset = create_dataset("", root=str(folder / "train"), split="", is_training=True)
    loader = create_loader(
        dataset,
        (3, size, size),
        BATCH,
        is_training=True,
        use_prefetcher=prefetcher,
        device=torch.device("cpu"),
        num_workers=0,
        persistent_workers=False,
        interpolation="bilinear",
        color_jitter=0.0,
        auto_augment=POLICY if strong else None,
        re_prob=0.25 if strong else 0.0,
        re_mode="pixel",
        mean=MEAN,
        std=STD,
    )
    return lambda: loader


def torchvision_loader(folder: Path, size: int, strong: bool, tensors: bool) -> Loader:
    """Returns a loader with torchvision's data set and its transforms v2."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.PILToTensor()] if tensors else []
    steps += [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
    steps += [v2.RandAugment(2, 9)] if strong else []
    steps += [] if tensors else [v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    steps += [v2.RandomErasing(0.25)] if strong else []
    dataset = ImageFolder(str(folder / "train"), v2.Compose(steps))
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True)
    return lambda: loader


def serve(library: str, mode: str, folder: Path, size: int) -> None:
    """Loads all images once for each line of the input, and prints the images per second of CPU time."""
    import torch

    torch.set_num_threads(1)
    name, _, variant = library.partition(", ")
    if name == "spine":
        loader = spine_loader(folder, size, mode == "strong")
    elif name == "timm":
        loader = timm_loader(folder, size, mode == "strong", variant == "prefetcher")
    else:
        loader = torchvision_loader(folder, size, mode == "strong", variant == "tensors")
    for _ in sys.stdin:
        start, count = time.process_time(), 0
        for batch in loader():
            image = batch["image"] if isinstance(batch, dict) else batch[0]
            assert image.shape[1:] == (3, size, size) and image.dtype == torch.float32
            count += len(image)
        print(count / (time.process_time() - start), flush=True)


def started(python: str, library: str, mode: str, folder: str, size: int) -> subprocess.Popen[str]:
    """Starts the process of a library."""
    command = [python, __file__, "--serve", library, "--modes", mode, "--root", folder, "--size", str(size)]
    return subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def measured(process: subprocess.Popen[str]) -> float:
    """Returns the images per second of one pass."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def measure(mode: str, folder: str, given: argparse.Namespace) -> list[str]:
    """Measures all libraries in turn. Returns the rows of the table."""
    names = LIBRARIES if given.peers else LIBRARIES[:1]
    processes = {
        name: started(sys.executable if name == "spine" else given.peers, name, mode, folder, given.size) for name in names
    }
    for process in processes.values():
        measured(process)
    rates: dict[str, list[float]] = {name: [] for name in names}
    for number in range(given.rounds):
        for name in names if number % 2 else reversed(names):
            rates[name].append(measured(processes[name]))
        print(
            f"{mode}, round {number + 1}: " + ", ".join(f"{name} {rates[name][-1]:.0f}" for name in names),
            file=sys.stderr,
            flush=True,
        )
    for process in processes.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    rows = []
    for name in names:
        ratio = statistics.median(own / other for own, other in zip(rates["spine"], rates[name], strict=True))
        low, high = min(rates[name]), max(rates[name])
        rows.append(f"| {mode} | {name} | {statistics.median(rates[name]):.0f} | {low:.0f} to {high:.0f} | {ratio:.2f} |")
    return rows


def main() -> None:
    """Measures every mode, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--peers")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--modes", default="plain,strong")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.modes, given.root, given.size)
        return
    files = sorted(path.resolve() for path in given.root.rglob("*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "train" / "images"  # one class folder, which all libraries read
        images.mkdir(parents=True)
        for number, file in enumerate(files):
            (images / f"{number}.jpg").symlink_to(file)
        rows = [row for mode in given.modes.split(",") for row in measure(mode, folder, given)]
    print(f"{len(files)} files of {given.root.name}, size {given.size}, {given.rounds} rounds\n")
    print("| mode | library | images/s of one core, median | range | spine / library |")
    print("|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
