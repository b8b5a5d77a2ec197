"""Checks of keypoints: inside of image and box, and flip pairs that mirror left and right."""

from __future__ import annotations

import numpy as np

from spine.data.checks.kinds import Finding, counted
from spine.data.coco_json import OUTSIDE
from spine.data.faults import Fault
from spine.data.keypoint_flips import find_flip_pairs, find_side
from spine.interfaces import Labels, RawSample

NEAR = 0.1  # part of the longer side of an image by which a keypoint is a little outside
FAR = 0.2  # part of the longer side of a box by which a keypoint may be outside; those of COCO often are a little


def outside(sample: RawSample, size: tuple[int, int], files: tuple[str, ...], index: int) -> list[Fault]:
    """Returns the faults of the labeled keypoints (K, 3) of an object. `size`: (height, width) of the image."""
    keypoints, box = sample["keypoints"], np.asarray(sample["box"], float)
    points = keypoints[keypoints[:, 2] > 0, :2]
    high = np.array([size[1] - 1, size[0] - 1])
    beyond = np.maximum(-points, points - high).max(1, initial=0)  # pixels, of each point
    of_image = points[beyond > OUTSIDE]
    is_far = beyond.max(initial=0) > max(OUTSIDE, NEAR * max(size))
    margin = FAR * box[2:].max()
    of_box = points[((points < box[:2] - margin) | (points > box[:2] + box[2:] + margin)).any(1)]
    where, shown = files[0] if files else f"sample {index}", tuple(box.tolist())
    found: list[Fault] = []
    for kind, wrong, what in (
        (
            "keypoints_outside_image" if is_far else "keypoints_near_image",
            of_image,
            f"the image of {size[1]}x{size[0]} (width x height)",
        ),
        ("keypoints_outside_box", of_box, "the box"),
    ):
        if len(wrong) and not found:
            x, y = wrong[0]
            message = f"'{where}': {counted(len(wrong), 'labeled keypoint')} outside of {what}, one at ({x:.1f}, {y:.1f})."
            found.append(Fault(kind, message, files, points=tuple(map(tuple, points.tolist())), box=shown, index=index))
    return found


def flip_pairs(labels: Labels) -> list[Finding]:
    """Returns a finding if flip pairs do not fit the sides in the names of the keypoints."""
    names, given = labels.keypoints, {tuple(sorted(pair)) for pair in labels.flip_pairs}
    if not names or not labels.can_flip:
        return []
    expected, _ = find_flip_pairs(names)
    paired = {index for pair in given for index in pair}
    wrong = [f"{names[a]} and {names[b]} are not paired" for a, b in expected if (a, b) not in given]
    wrong += [
        f"{names[a]} is paired with {names[b]}"
        for a, b in sorted(given)
        if find_side(names[a], names[b]) is None and {a, b} & {index for pair in expected for index in pair}
    ]
    if not wrong:
        return []
    seen = f"{counted(len(paired) // 2, 'flip pair')}; {'; '.join(wrong[:4])}{' ...' if len(wrong) > 4 else ''}."
    return [Finding("flip_pairs", "all", len(wrong), seen)]
