"""Metrics of the distance between predicted and labeled keypoints: PCK, PCKh and NME.

There are N objects and K keypoints. Unlabeled keypoints have the distance NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNSCORED = ("pelvis", "thorax")  # keypoints that the mean of PCKh leaves out (MPII)


def labeled_distances(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the distances (N, K) of keypoints (N, K, 3) in pixels."""
    distance = np.linalg.norm(prediction[..., :2] - truth[..., :2], axis=-1)
    return np.where(truth[..., 2] > 0, distance, np.nan)


def correct_fraction(distances: np.ndarray, units: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the fraction (K,) of the labeled keypoints that are at most `threshold` units from the truth. NaN without a label.

    `distances`: (N, K). `units`: (N,), such as the longer side of the box (PCK) or the size of the head (PCKh).
    """
    labeled = ~np.isnan(distances)
    correct = (distances <= threshold * units[:, None]).sum(0)
    return np.divide(correct, labeled.sum(0), out=np.full(distances.shape[1], np.nan), where=labeled.any(0))


def mean_fraction(distances: np.ndarray, units: np.ndarray, threshold: float, left_out: Sequence[int] = ()) -> float:
    """Returns the fraction of all labeled keypoints that are correct, see `correct_fraction`. `left_out`: indices of keypoints."""
    kept = np.delete(distances, list(left_out), axis=1)
    labeled = int((~np.isnan(kept)).sum())
    return float((kept <= threshold * units[:, None]).sum() / labeled) if labeled else float("nan")


def normalized_errors(distances: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Returns the normalized mean error of each object that has one: the mean distance of its labeled keypoints in units.

    Objects without labeled keypoints, and those whose unit (N,) is not above zero, have none.
    """
    valid = (~np.isnan(distances)).any(1) & (units > 0)
    return np.nanmean(distances[valid], axis=1) / units[valid] if valid.any() else np.zeros(0)


def group_distance(truth: np.ndarray, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Returns the distance (N,) between the centers of two groups of labeled keypoints (N, K, 3), such as the eyes.

    NaN if a keypoint of the groups is not labeled.
    """
    first, second = (list(group) for group in groups)
    labeled = (truth[:, [*first, *second], 2] > 0).all(1)
    distance = np.linalg.norm(truth[:, first, :2].mean(1) - truth[:, second, :2].mean(1), axis=-1)
    return np.where(labeled, distance, np.nan)


def failure_rate(errors: np.ndarray, threshold: float) -> float:
    """Returns the fraction of objects whose normalized error (N,) is above `threshold`."""
    return float((errors > threshold).mean())


def area_under_curve(errors: np.ndarray, threshold: float) -> float:
    """Returns the area under the cumulative distribution of the normalized errors (N,) from 0 to `threshold`, divided by it."""
    return float(np.clip(1 - errors / threshold, 0, None).mean())
