"""Records mmsegmentation's transforms with the random numbers that they draw, for tests/test_segmentation_transforms.py.

    python tests/recording_segmentation_transforms.py       (with mmsegmentation 1.2.2 and mmcv-lite 2.1.0; spine is not needed)

Every random number is recorded with its distribution. The tests give the same numbers to spine's
transforms, which must ask for the same distributions and make the same images.
"""

# ruff: noqa: E402

import base64
import json
import sys
from pathlib import Path
from unittest import mock

sys.modules["mmcv._ext"] = mock.MagicMock()  # mmcv-lite has no compiled operations; mmseg imports them, and none is used here

import cv2
import mmcv
import mmseg
import numpy as np
from mmcv.transforms import RandomFlip, RandomResize, Resize
from mmseg.datasets.transforms import PhotoMetricDistortion, RandomCrop, ResizeToMultiple
from mmseg.registry import TRANSFORMS

RECORD = Path(__file__).with_name("records") / "segmentation_transforms.json"
SIZE = 24, 40  # height, width of the images
IGNORE = 255


class Recorder:
    """Replaces functions that draw random numbers by ones that also record them: [kind, value, arguments of the distribution]."""

    def __init__(self):
        self.drawn = []

    def add(self, kind, value, *arguments):
        self.drawn.append([kind, value, *arguments])
        return value

    def patches(self):
        sample, uniform, randint, choice = np.random.random_sample, np.random.uniform, np.random.randint, np.random.choice

        def integers(low, high=None):
            low, high = (0, low) if high is None else (low, high)
            return self.add("integers", int(randint(low, high)), int(low), int(high) - 1)

        def choose(options, p):
            chosen = choice(len(options), p=p)
            self.add("choice", options[chosen])
            return options[chosen]

        return [
            mock.patch.object(np.random, "random_sample", lambda: self.add("random", sample())),
            mock.patch.object(np.random, "uniform", lambda a, b: self.add("uniform", uniform(a, b), a, b)),
            mock.patch.object(np.random, "randint", integers),
            mock.patch.object(np.random, "choice", choose),
        ]


def recorded(transform, seed, data_seed):
    """Applies a transform with a seed and returns the numbers that it drew, the image (RGB) and the mask."""
    np.random.seed(seed)
    recorder = Recorder()
    image, mask = sample(data_seed)
    results = {"img": np.ascontiguousarray(image[..., ::-1]), "gt_seg_map": mask, "seg_fields": ["gt_seg_map"]}
    patches = recorder.patches()
    for patch in patches:
        patch.start()
    try:
        results = transform(results)
    finally:
        for patch in patches:
            patch.stop()
    made = {"image": encoded(results["img"][..., ::-1]), "mask": encoded(results["gt_seg_map"])}
    return {"data": data_seed, "drawn": recorder.drawn, **made}


def encoded(array):
    """An array as base64 text with its shape."""
    return {"shape": array.shape, "data": base64.b64encode(np.ascontiguousarray(array, np.uint8).tobytes()).decode()}


def sample(seed):
    """Returns an image (RGB) with smooth colors and noise, and a mask in which one of four classes is frequent."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = [110 + 70 * np.sin(rows / a) + 60 * np.cos(columns / b) for a, b in rng.uniform(2, 7, (3, 2))]
    image = np.clip(np.stack(waves, -1) + rng.normal(0, 12, (*SIZE, 3)), 0, 255).astype(np.uint8)
    mask = np.zeros(SIZE, np.uint8)
    for value in (1, 2, 3, IGNORE):
        top, left = rng.integers(0, SIZE[0] - 6), rng.integers(0, SIZE[1] - 8)
        mask[top : top + 9, left : left + 11] = value
    return image, mask


def entries(make, options, seeds):
    for one in options:
        for seed in seeds:
            yield {"options": one, **recorded(make(**one), seed, seed % 2)}


def sizes():
    """Sizes to which mmcv resizes with the aspect ratio kept."""
    rng = np.random.default_rng(0)
    for scale in ((2048, 512), (2048, 1024), (480, 360), (97, 33)):
        for height, width in rng.integers(20, 1500, (25, 2)).tolist():
            new_width, new_height = mmcv.rescale_size((width, height), scale)
            yield {"scale": scale, "size": [height, width], "resized": [new_height, new_width]}


def keep_ratio(scale, ratio_range):
    with TRANSFORMS.switch_scope_and_registry("mmseg"):
        return RandomResize(scale=tuple(scale), ratio_range=tuple(ratio_range), keep_ratio=True)


if __name__ == "__main__":
    cv2.setNumThreads(0)
    content = {
        "made_with": {"mmsegmentation": mmseg.__version__, "mmcv": mmcv.__version__, "OpenCV": cv2.__version__},
        "samples": [{"image": encoded(image), "mask": encoded(mask)} for image, mask in map(sample, (0, 1))],
        "sizes": [*sizes()],
        "resize": [*entries(keep_ratio, [{"scale": [64, 20], "ratio_range": [0.5, 2.0]}], range(5))],
        "scale": [*entries(lambda scale: Resize(scale=tuple(scale), keep_ratio=True), [{"scale": [90, 31]}], range(2))],
        "multiple": [*entries(lambda divisor: ResizeToMultiple(size_divisor=divisor), [{"divisor": 16}], range(2))],
        "crop": [
            *entries(
                lambda size, cat_max_ratio: RandomCrop(crop_size=tuple(size), cat_max_ratio=cat_max_ratio),
                [
                    {"size": [14, 18], "cat_max_ratio": 0.6},
                    {"size": [30, 18], "cat_max_ratio": 0.75},
                    {"size": [9, 9], "cat_max_ratio": 1.0},
                ],
                range(4),
            )
        ],
        "flip": [*entries(lambda p: RandomFlip(prob=p), [{"p": 0.5}], range(4))],
        "distortion": [*entries(PhotoMetricDistortion, [{}], range(24))],
    }  # fmt: skip
    RECORD.write_text(json.dumps(content, separators=(",", ":")) + "\n")
    print(f"{RECORD}: {RECORD.stat().st_size // 1024} KiB", file=sys.stderr)
