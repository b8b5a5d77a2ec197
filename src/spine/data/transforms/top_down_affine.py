"""The crop of one object by its box (top-down pose estimation)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist

import cv2
import numpy as np

from spine.data.half_body import PADDING, choose_half, find_upper_body
from spine.data.image_files import format_names, log_warning
from spine.data.transforms.geometry import GeometricTransform
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, Labels, RawSample
from spine.pixel_grids import AREAS, GRIDS

NORMAL = NormalDist()


def _uniform(rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, 4)


def _clipped_normal(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.standard_normal(4), (-1, -2, -1, -1), (1, 2, 1, 1))  # HRNet's code draws larger angles


def _truncated_normal(rng: np.random.Generator) -> np.ndarray:
    return np.array([NORMAL.inv_cdf(p) for p in rng.uniform(NORMAL.cdf(-1), NORMAL.cdf(1), 4)])


# Random numbers (4,) that are multiplied with scale, rotate, shift and shift.
DISTRIBUTIONS: Mapping[str, Callable[[np.random.Generator], np.ndarray]] = {
    "uniform": _uniform, "clipped_normal": _clipped_normal, "truncated_normal": _truncated_normal,
}  # fmt: skip


class TopDownAffine(GeometricTransform):
    """Crops one object by its box with one affine warp (top-down pose estimation).

    Scale, rotation, shift, flip and the choice of half a body are random. The box is extended to the
    aspect ratio of `size` and by `padding`. The warp maps it to the crop on the pixel grid of the
    codec (`spine.pixel_grids`), and a flip mirrors the crop on this grid.
    """

    def __init__(
        self,
        size: Sequence[int],
        padding: float = 1.25,
        scale: float = 0.0,
        rotate: float = 0.0,
        shift: float = 0.0,
        flip: float = 0.0,
        *,
        rotate_probability: float = 1.0,
        shift_probability: float = 1.0,
        half_body: float = 0.0,
        upper_body: Sequence[int] | None = None,
        distribution: str = "uniform",
        codec: str | None = None,
    ):
        """`padding`: factor of the box size. `scale`, `shift`: largest change relative to the box;
        `rotate`: largest angle in degrees; `flip`: probability of a horizontal flip.

        `rotate_probability`, `shift_probability`: of a rotation and of a shift. `half_body`: probability of a crop of the upper or
        the lower half of a body with nine or more labeled keypoints. `upper_body`: indices of its keypoints; None: by their names.
        `distribution` of scale, angle and shift: "uniform"; "clipped_normal", a normal number cut at `scale` and `shift` and at
        twice `rotate` (HRNet's code); "truncated_normal", a normal number within 1 times all three (mmpose).
        `codec`: of the keypoints, for its pixel grid; None: `task.codec` in a run, otherwise fractional.
        """
        self.size, self.padding = (int(size[0]), int(size[1])), padding
        self.scale, self.rotate, self.shift, self.flip = scale, rotate, shift, flip
        self.rotate_probability, self.shift_probability = rotate_probability, shift_probability
        self.half_body, self.upper_body = half_body, None if upper_body is None else tuple(upper_body)
        if distribution not in DISTRIBUTIONS:
            raise InputError(f"distribution is '{distribution}'; choices: {', '.join(DISTRIBUTIONS)}.")
        self.draw = DISTRIBUTIONS[distribution]
        self.codec, self.grid = codec, AREAS
        if codec is not None:
            self.set_codec(codec)

    def set_codec(self, codec: str) -> None:
        """Sets the pixel grid to that of a codec. Raises InputError if the step was made for another one."""
        if codec not in GRIDS:
            raise InputError(f"codec is '{codec}'; choices: {', '.join(GRIDS)}.")
        if self.codec not in (None, codec):
            raise InputError(
                f"TopDownAffine has codec='{self.codec}', and task.codec is '{codec}'. Leave it out of the step: it follows the task."
            )
        self.codec, self.grid = codec, GRIDS[codec]

    def prepare(self, labels: Labels, needs: frozenset[str]) -> None:
        """Takes the flip pairs and the upper body of the data set.

        Turns flips and halves of bodies off, with a warning, if these are not known.
        """
        super().prepare(labels, needs)
        if not self.half_body or "keypoints" not in needs:
            return
        if self.upper_body is None:
            self.upper_body = find_upper_body(labels.keypoints)
        if unknown := [index for index in self.upper_body if index >= len(labels.keypoints)]:
            raise InputError(f"upper_body has index {unknown[0]}; the keypoints are 0 to {len(labels.keypoints) - 1}.")
        if not self.upper_body:
            self.half_body = 0.0
            log_warning(
                f"Bodies are not halved: it is not known which keypoints are of the upper body ({format_names(labels.keypoints)}). "
                f"Set upper_body=[0,1,...] (indices from 0) of TopDownAffine, or half_body=0."
            )

    def __call__(self, sample: RawSample, rng: np.random.Generator) -> RawSample:
        """Returns the crop of the object at `size`."""
        scale, angle, *shift = self.draw(rng) * (self.scale, self.rotate, self.shift, self.shift)
        flipped = rng.random() < self.flip
        if self.rotate_probability < 1 and rng.random() >= self.rotate_probability:
            angle = 0.0
        if self.shift_probability < 1 and rng.random() >= self.shift_probability:
            shift = [0.0, 0.0]
        box, scale = self._choose_box(sample, 1 + scale, rng)
        affine = self.matrix(box, scale, angle, shift, flipped)

        def warp(array: np.ndarray, is_mask: bool) -> np.ndarray:
            return cv2.warpAffine(
                array,
                affine,
                (self.size[1], self.size[0]),
                flags=cv2.INTER_NEAREST if is_mask else cv2.INTER_LINEAR,
                borderValue=IGNORE_INDEX if is_mask else (0, 0, 0),
            )

        self.transform_image_and_mask(sample, warp)
        self.transform_keypoints(sample, affine, flipped)
        return sample

    def _choose_box(self, sample: RawSample, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Returns the box and the scale of the crop: of the object, or of half a body."""
        if self.half_body and rng.random() < self.half_body and "keypoints" in sample:
            half = choose_half(sample["keypoints"], self.upper_body or (), rng)
            if half is not None:
                corner = half.center - half.size / 2 - self.grid.start
                return np.concatenate([corner, half.size]), scale * PADDING / self.padding
        return sample["box"], scale

    def matrix(self, box: np.ndarray, scale: float, angle: float, shift: Sequence[float], flipped: bool) -> np.ndarray:
        """Affine matrix (2, 3) from pixels of the image to pixels of the crop."""
        height, width = self.size
        x, y, w, h = (float(value) for value in box)
        crop_width = max(w, h * width / height) * self.padding * scale  # in pixels of the image
        zoom = width / crop_width
        cos, sin = np.cos(np.deg2rad(angle)) * zoom, np.sin(np.deg2rad(angle)) * zoom
        lengths = np.array([self.grid.length(width), self.grid.length(height)])
        rotation = np.array([[cos, sin], [-sin, cos]]) * (lengths / (width, height))[:, None]
        if flipped:
            rotation[0] *= -1
        start = self.grid.start
        box_center = np.array([x + w / 2 + start + shift[0] * w, y + h / 2 + start + shift[1] * h])
        crop_center = lengths / 2 + start
        return np.concatenate([rotation, (crop_center - rotation @ box_center)[:, None]], axis=1)
