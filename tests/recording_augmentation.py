"""Records timm's and torchvision's augmentations with the random numbers that they draw, for tests/test_augmentation_records.py.

    python tests/recording_augmentation.py       (in an environment with timm and torchvision; spine is not needed)

Every random number is recorded with its distribution. The tests give the same numbers to spine's
transforms, which must ask for the same distributions and make the same images.
"""

import base64
import json
import random
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import auto_augment, mixup, random_erasing
from timm.data.distributed_sampler import RepeatAugSampler
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torchvision.transforms import functional as F

RECORD = Path(__file__).with_name("records") / "augmentation.json"
SIZE = 12, 16  # height, width of the images
FILL = (124, 116, 104)
RAND_CONFIGS = (
    "rand-m9-mstd0.5-inc1", "rand-m9-n3", "rand-m15-p1-n2-mmax20-inc1", "rand-m7-mstd101-inc1", "rand-m8-n2-tweights-mstd0.5",
    "rand-m8-t3a", "rand-m8-n3-t3aw-inc1",
)  # fmt: skip
AUTO_CONFIGS = ("original", "originalr", "v0", "v0r-mstd0.5", "3a")
ERASINGS = [
    {"mode": "pixel"},
    {"mode": "rand", "min_count": 1, "max_count": 3},
    {"mode": "const", "max_area": 0.9, "min_aspect": 0.1},
]
MIXINGS = [
    {"mixup": 0.8, "cutmix": 1.0}, {"mixup": 0.2, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0, "prob": 0.7},
    {"mixup": 0.8, "cutmix": 0.0, "cutmix_minmax": [0.2, 0.8], "prob": 0.8},
]  # fmt: skip


class Recorder:
    """Replaces functions that draw random numbers by ones that also record them: [kind, value, arguments of the distribution]."""

    def __init__(self):
        self.drawn = []

    def add(self, kind, value, *arguments):
        self.drawn.append([kind, value.tolist() if hasattr(value, "tolist") else value, *arguments])
        return value

    def patches(self):
        uniform, gauss, randint = random.uniform, random.gauss, random.randint
        rand, beta, np_randint, np_choice = np.random.rand, np.random.beta, np.random.randint, np.random.choice
        number, torch_randint, normal = random.random, torch.randint, torch.Tensor.normal_

        def choose(options):
            return options[self.add("integers", randint(0, len(options) - 1), 0, len(options) - 1)]

        def np_choose(options, count, replace=True, p=None):
            weights = None if p is None else [float(x) for x in p]
            chosen = self.add("choice", np_choice(len(options), count, replace, p), len(options), replace, weights)
            return [options[i] for i in chosen]

        def shape(values):
            return self.add("normal", normal(values), 0.0, 1.0)

        return [
            mock.patch.object(random, "random", lambda: self.add("random", number())),
            mock.patch.object(random, "uniform", lambda a, b: self.add("uniform", uniform(a, b), a, b)),
            mock.patch.object(random, "gauss", lambda m, s: self.add("normal", gauss(m, s), m, s)),
            mock.patch.object(random, "randint", lambda a, b: self.add("integers", randint(a, b), a, b)),
            mock.patch.object(random, "choice", choose),
            mock.patch.object(np.random, "rand", lambda *n: self.add("random", rand(*n))),
            mock.patch.object(np.random, "beta", lambda a, b, size=None: self.add("beta", beta(a, b, size), a, b)),
            mock.patch.object(
                np.random, "randint", lambda a, b, size=None: self.add("integers", int(np_randint(a, b)), int(a), int(b) - 1)
            ),
            mock.patch.object(np.random, "choice", np_choose),
            mock.patch.object(torch, "randint", lambda n, *a, **k: self.add("integers", torch_randint(n, *a, **k), 0, n - 1)),
            mock.patch.object(torch.Tensor, "normal_", shape),
        ]


def recorded(make, seed):
    """Calls a function with a seed and returns the numbers that it drew and its result."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    recorder = Recorder()
    patches = recorder.patches()
    for patch in patches:
        patch.start()
    try:
        result = make()
    finally:
        for patch in patches:
            patch.stop()
    return {"drawn": recorder.drawn, "result": encoded(result)}


def encoded(result):
    """An image, or an array, as base64 text with its type and shape."""
    array = np.ascontiguousarray(result.numpy() if isinstance(result, torch.Tensor) else np.asarray(result))
    return {"type": array.dtype.name, "shape": array.shape, "data": base64.b64encode(array.tobytes()).decode()}


def image(seed=0, size=SIZE):
    """Returns an image with smooth colors and noise, the same for each call."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [100 + 60 * np.sin(rows / a) + 50 * np.cos(columns / b) for a, b in rng.uniform(1.5, 5, (3, 2))]
    return Image.fromarray(np.clip(np.stack(waves, -1) + rng.normal(0, 12, (*size, 3)), 0, 255).astype(np.uint8))


def posterize(image, bits_to_keep, **_):
    """timm's posterize, where 0 bits give a black image as before Pillow 13, which refuses them."""
    return Image.fromarray(np.asarray(image) & np.uint8(256 - 2 ** (8 - bits_to_keep)))


def options(**more):
    return {"img_mean": FILL, **more}


def operations():
    """Every operation at several levels."""
    names = [name for name in auto_augment.LEVEL_TO_ARG if name not in ("TranslateX", "TranslateY")]
    for name in names:
        for level in (0, 3, 7.3, 10):
            operation = auto_augment.AugmentOp(name, prob=1.0, magnitude=level, hparams=options())
            yield {"name": name, "level": level, **recorded(lambda op=operation: op(image()), len(name) + int(level))}


def policies():
    for config in RAND_CONFIGS:
        for seed in range(6):
            change = auto_augment.rand_augment_transform(config, options())
            yield {"class": "RandAugment", "config": config, **recorded(lambda op=change: op(image()), seed)}
    for config in AUTO_CONFIGS:
        for seed in range(6):
            change = auto_augment.auto_augment_transform(config, options())
            yield {"class": "AutoAugment", "config": config, **recorded(lambda op=change: op(image()), seed)}
    for seed in range(60):
        wide = torchvision.transforms.TrivialAugmentWide()
        yield {"class": "TrivialAugment", "config": None, **recorded(lambda op=wide: op(image()), seed)}


def erasings():
    for arguments in ERASINGS:
        change = random_erasing.RandomErasing(probability=0.8, device="cpu", **arguments)
        for seed in range(6):
            blank = torch.linspace(-1, 1, 3 * 10 * 14).reshape(3, 10, 14)
            yield {"options": {"probability": 0.8, **arguments}, **recorded(lambda op=change, x=blank: op(x), seed)}


def mixings():
    for mode in ("batch", "pair", "elem"):
        for arguments in MIXINGS:
            names = {"mixup": "mixup_alpha", "cutmix": "cutmix_alpha"}
            theirs = {names.get(key, key): value for key, value in arguments.items()}
            change = mixup.Mixup(**theirs, mode=mode, label_smoothing=0.1, num_classes=5)
            for seed in range(3):
                images, labels = torch.linspace(-2, 2, 4 * 3 * 6 * 9).reshape(4, 3, 6, 9), torch.tensor([0, 3, 2, 0])
                targets = []

                def mixed(op=change, x=images, y=labels, kept=targets):
                    x, target = op(x, y)
                    kept.append(target)
                    return x

                yield {
                    "options": {"mode": mode, **arguments}, "smoothing": 0.1, **recorded(mixed, seed), "target": encoded(targets[0]),
                }  # fmt: skip


def crops():
    for size in ((40, 60), (7, 90)):
        for interpolation in ("random", "bilinear"):
            change = RandomResizedCropAndInterpolation((12, 10), interpolation=interpolation)
            for seed in range(4):
                record = recorded(lambda op=change, s=size: op(image(1, s)), seed)
                yield {"size": size, "interpolation": interpolation, **record}


def jitters():
    """torchvision's color jitter with given factors, in a given order."""
    steps = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    for factors, order in (
        ([1.3, 0.7, 1.2, 0.0], [0, 1, 2, 3]),
        ([0.65, 1.35, 0.6, 0.0], [2, 3, 1, 0]),
        ([1, 1.2, 0.8, 0.1], [3, 1, 0, 2]),
    ):
        changed = image(2)
        for step in order:
            changed = steps[step](changed, factors[step])
        yield {"factors": factors, "order": order, "result": encoded(changed)}


def losses():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(4, 5, generator=generator), torch.tensor([0, 3, 2, 0])
    soft = torch.softmax(2 * torch.randn(4, 5, generator=generator), 1)
    weights = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.0])
    criteria = {
        "smoothed": LabelSmoothingCrossEntropy(0.1)(logits, labels),
        "soft": SoftTargetCrossEntropy()(logits, soft),
        "bce": BinaryCrossEntropy(0.1)(logits, labels),
        "bce_soft": BinaryCrossEntropy(0.0)(logits, soft),
        "bce_thresh": BinaryCrossEntropy(0.0, target_threshold=0.2)(logits, soft),
        "bce_sum": BinaryCrossEntropy(0.1, sum_classes=True)(logits, labels),
        "bce_weighted": BinaryCrossEntropy(0.1, weight=weights)(logits, labels),
    }
    given = {"logits": logits.tolist(), "labels": labels.tolist(), "shares": soft.tolist(), "weights": weights.tolist()}
    return given | {name: float(value) for name, value in criteria.items()}


def repeats():
    """Places in the order of an epoch that each process draws."""
    with mock.patch.object(torch, "randperm", lambda n, generator: torch.arange(n)):
        for world in (1, 2, 3):
            samplers = [RepeatAugSampler(range(24), world, rank, num_repeats=3, selected_round=0) for rank in range(world)]
            yield {"world": world, "places": [[int(i) for i in sampler] for sampler in samplers]}


if __name__ == "__main__":
    with mock.patch.dict(auto_augment.NAME_TO_OP, {name: posterize for name in auto_augment.NAME_TO_OP if "Posterize" in name}):
        content = {
            "made_with": {"timm": timm.__version__, "torchvision": torchvision.__version__, "Pillow": Image.__version__},
            "images": {str(seed): encoded(image(seed, size)) for seed, size in ((0, SIZE), (2, SIZE))},
            "crop_images": [encoded(image(1, size)) for size in ((40, 60), (7, 90))],
            "operations": [*operations()], "policies": [*policies()], "erasings": [*erasings()], "mixings": [*mixings()],
            "crops": [*crops()], "jitters": [*jitters()], "losses": losses(), "repeats": [*repeats()],
        }  # fmt: skip
    RECORD.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{RECORD}: {RECORD.stat().st_size // 1024} KiB", file=sys.stderr)
