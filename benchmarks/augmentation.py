"""Compares the speed of RandAugment and AutoAugment with timm's: `python benchmarks/augmentation.py timm=<folder of the package timm>`.

Both run in spine's environment, in turns, on one thread. Of timm, only the file data/auto_augment.py is
imported, which needs Pillow and NumPy; so the package may be one of another environment. Prints images per
second (medians of the rounds) and the ratio.
"""

import importlib.util
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from spine.data.transforms import AutoAugment, RandAugment

SIZE, IMAGES, ROUNDS = 224, 200, 11
FILL = (124, 116, 104)


def load_timm(folder: Path) -> ModuleType:
    """Returns timm's module of AutoAugment, without the rest of the package."""
    spec = importlib.util.spec_from_file_location("timm_auto_augment", folder / "data" / "auto_augment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.NAME_TO_OP:  # Pillow 13 refuses to keep 0 bits, with which timm's images were black
        if name.startswith("Posterize"):
            original = module.NAME_TO_OP[name]
            module.NAME_TO_OP[name] = lambda image, bits_to_keep, o=original, **more: (
                image.point([0] * 768) if bits_to_keep == 0 else o(image, bits_to_keep, **more)
            )
    return module


def rate(change: Callable[[int], np.ndarray], turn: int) -> float:
    """The images per second of one round."""
    start = time.perf_counter()
    for number in range(turn * IMAGES, (turn + 1) * IMAGES):
        change(number)
    return IMAGES / (time.perf_counter() - start)


def main(folder: Path) -> None:
    timm = load_timm(folder)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (16, 12, 12, 3), np.uint8)
    images = [Image.fromarray(array).resize((SIZE, SIZE), Image.Resampling.BICUBIC) for array in coarse]
    arrays = [np.asarray(image) for image in images]
    print(f"{'images per second':24}{'spine':>9}{'timm':>9}{'ratio':>8}")
    for config, own, make in (
        ("rand-m9-mstd0.5-inc1", RandAugment, timm.rand_augment_transform),
        ("original", AutoAugment, timm.auto_augment_transform),
    ):
        ours, theirs = own(config, FILL), make(config, {"img_mean": FILL})
        random.seed(0)
        np.random.seed(0)
        rng = np.random.default_rng(0)

        def with_spine(number: int, step: RandAugment | AutoAugment = ours, rng: np.random.Generator = rng) -> np.ndarray:
            return step({"image": arrays[number % 16]}, rng)["image"]

        def with_timm(number: int, step: Callable[[Image.Image], Image.Image] = theirs) -> np.ndarray:
            return np.asarray(step(images[number % 16]))

        rates: list[tuple[float, float]] = [(rate(with_spine, turn), rate(with_timm, turn)) for turn in range(ROUNDS)]
        spine_rate, timm_rate = (statistics.median(column) for column in zip(*rates, strict=True))
        ratio = statistics.median(a / b for a, b in rates)
        print(f"{config:24}{spine_rate:9.0f}{timm_rate:9.0f}{ratio:8.2f}")


if __name__ == "__main__":
    given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    if "timm" not in given:
        sys.exit(
            "Give the folder of the package: python benchmarks/augmentation.py timm=<environment>/lib/python3.11/site-packages/timm"
        )
    main(Path(given["timm"]))
