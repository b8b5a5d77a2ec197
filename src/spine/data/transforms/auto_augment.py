"""RandAugment and AutoAugment, in timm's notation and with its magnitudes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from spine.data.transforms.augmentation_policies import POLICIES, RAND_INCREASING, RAND_OPERATIONS, RAND_SETS, RAND_THREE
from spine.data.transforms.image_operations import MAX_LEVEL, OPERATIONS, Magnitude, RandomOperation, make_resampling
from spine.errors import InputError
from spine.interfaces import RawSample, SampleTransform

UNIFORM_ABOVE = 100.0  # a larger `mstd` draws the level uniformly


class ImagePolicy(SampleTransform):
    """Base class of the transforms that apply random operations to the image. Masks and keypoints do not move with it."""

    targets = frozenset({"image"})

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the sample with a changed image."""
        image = Image.fromarray(sample["image"])
        if (changed := self.change(image, rng)) is not image:
            sample["image"] = np.asarray(changed)
        return sample

    def change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after random operations."""
        raise TypeError(f"{type(self).__name__} does not define change.")


class RandAugment(ImagePolicy):
    """Applies random operations to the image, all at one level (Cubuk et al., arXiv 1909.13719).

    `config` is timm's: "rand" and parts that dashes separate, in any order, such as
    "rand-m9-mstd0.5-inc1".

        m9       level of the operations, from 0 to 10; default 10
        n2       number of operations; default 2
        p0.5     probability of each of them; default 0.5
        mstd0.5  standard deviation of the level; above 100: the level is uniform between 0 and m
        mmax10   largest level; default 10
        inc1     every operation changes more at a higher level
        tweights, t3a, t3aw   another set of operations
    """

    def __init__(self, config: str, fill: Sequence[int] | None = None, interpolation: str = "random"):
        """`fill`: color (R, G, B) in 0..255 outside of a moved image; None is the mean of ImageNet.

        `interpolation` of a moved image: nearest, bilinear, bicubic, or random (bilinear or bicubic).
        Raises InputError if `config` is not in timm's notation.
        """
        name, *parts = config.split("-")
        sections = {part[0]: part[1:] for part in parts if part.startswith("t")}
        keys = {"m": int, "n": int, "p": float, "mstd": float, "mmax": int, "inc": int}
        numbers = _numbers("RandAugment", config, [part for part in parts if not part.startswith("t")], keys)
        if name != "rand":
            raise InputError(f"RandAugment: config is '{config}'; it must begin with 'rand', such as rand-m9-mstd0.5-inc1.")
        names, self.weights = _operation_set(config, sections.get("t"), bool(numbers.get("inc", 0)))
        self.count = int(numbers.get("n", 2))
        if self.weights is not None and self.count > len(names):
            raise InputError(f"RandAugment: config is '{config}', but there are {len(names)} different operations.")
        magnitude, resampling = _magnitude(numbers), make_resampling(interpolation, fill)
        level, probability = numbers.get("m", 10), numbers.get("p", 0.5)
        self.operations = [RandomOperation(each, probability, level, magnitude, resampling) for each in names]
        self.geometric = any(OPERATIONS[each].moves for each in names)

    def change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after `n` random operations. With weights, they are different ones."""
        for chosen in rng.choice(len(self.operations), self.count, replace=self.weights is None, p=self.weights):
            image = self.operations[chosen](image, rng)
        return image


class AutoAugment(ImagePolicy):
    """Applies a random part of a learned policy to the image (Cubuk et al., arXiv 1805.09501).

    `config` is timm's: a policy, and "mstd0.5" for a random level, such as "original-mstd0.5".
    Policies: original (the paper), v0 (EfficientNet), originalr and v0r (posterization grows with
    the level), and 3a (3-Augment of DeiT III: solarization, gray or blur).
    """

    def __init__(self, config: str = "original", fill: Sequence[int] | None = None, interpolation: str = "random"):
        """`fill`, `interpolation`: as those of RandAugment. Raises InputError for an unknown policy."""
        name, *parts = config.split("-")
        if name not in POLICIES:
            raise InputError(f"AutoAugment: config is '{config}'; it begins with a policy: {', '.join(POLICIES)}.")
        magnitude = _magnitude(_numbers("AutoAugment", config, parts, {"mstd": float}))
        resampling = make_resampling(interpolation, fill)
        self.policy = [
            [RandomOperation(operation, p, level, magnitude, resampling) for operation, p, level in steps]
            for steps in POLICIES[name]
        ]
        self.geometric = any(OPERATIONS[step.name].moves for steps in self.policy for step in steps)

    def change(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Returns the image after the operations of one part of the policy."""
        for operation in self.policy[rng.integers(len(self.policy))]:
            image = operation(image, rng)
        return image


def _operation_set(config: str, name: str | None, increasing: bool) -> tuple[Sequence[str], np.ndarray | None]:
    """The operations of RandAugment, and their probabilities; None if they are equally likely."""
    if name in RAND_SETS:
        weights = np.array([*RAND_SETS[name].values()])
        return tuple(RAND_SETS[name]), weights / weights.sum()
    if name not in (None, "3a"):
        choices = ", ".join(f"t{each}" for each in (*RAND_SETS, "3a"))
        raise InputError(f"RandAugment: config is '{config}'; there is no set of operations 't{name}', only {choices}.")
    return RAND_THREE if name else RAND_INCREASING if increasing else RAND_OPERATIONS, None


def _magnitude(numbers: Mapping[str, float]) -> Magnitude:
    std = numbers.get("mstd", 0.0)
    return Magnitude(float("inf") if std > UNIFORM_ABOVE else std, numbers.get("mmax") or MAX_LEVEL)


def _numbers(owner: str, config: str, parts: Sequence[str], keys: Mapping[str, type[int] | type[float]]) -> dict[str, float]:
    """The numbers of a configuration by key, such as {"m": 9, "mstd": 0.5}."""
    numbers: dict[str, float] = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)(\d+(\.\d+)?)", part)
        if match is None or match[1] not in keys or (keys[match[1]] is int and match[3]):
            listed = ", ".join(f"{key}<{'whole number' if kind is int else 'number'}>" for key, kind in keys.items())
            raise InputError(f"{owner}: config is '{config}', in which '{part}' is unknown. Parts after the first: {listed}.")
        numbers[match[1]] = keys[match[1]](match[2])
    return numbers
