"""Scores of predicted objects, and the suppression of duplicates: what top-down evaluation does between decoding and COCO's protocol.

Source: HRNet's code (lib/dataset/coco.py, lib/nms/nms.py). There are N objects and K keypoints.
"""

from __future__ import annotations

import numpy as np

MAX_KEPT = 20  # objects of an image that soft suppression keeps: COCO's protocol evaluates no more


def rescore(keypoint_scores: np.ndarray, box_scores: np.ndarray, threshold: float | None) -> np.ndarray:
    """Returns the scores (N,) of objects: the score of the box times the mean of the keypoint scores above `threshold`.

    `keypoint_scores`: (N, K). `box_scores`: (N,). With threshold None, the scores of the boxes are returned.
    """
    if threshold is None:
        return box_scores
    counted = keypoint_scores > threshold
    return box_scores * np.where(counted, keypoint_scores, 0).sum(1) / np.maximum(counted.sum(1), 1)


def keep_objects(
    keypoints: np.ndarray,
    scores: np.ndarray,
    areas: np.ndarray,
    image_ids: np.ndarray,
    sigmas: np.ndarray,
    threshold: float | None,
    soft: bool = False,
) -> np.ndarray:
    """Returns the indices of the objects that remain after the suppression of duplicates in each image.

    Images are in the order of their first object, and the objects of an image in the order of suppression. `keypoints`:
    (N, K, 2). `areas`: (N,), of the crops. `threshold`: None keeps all objects, in their order.
    """
    if threshold is None:
        return np.arange(len(scores))
    suppress = soft_oks_nms if soft else oks_nms
    order = np.argsort(image_ids, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(image_ids[order])) + 1)
    groups.sort(key=lambda group: group[0])
    return np.concatenate([own[suppress(keypoints[own], scores[own], areas[own], sigmas, threshold)] for own in groups])


def similarity(one: np.ndarray, others: np.ndarray, area: float, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Returns the object keypoint similarity (M,) of the keypoints `one` (K, 2) and `others` (M, K, 2), over all keypoints.

    Its scale is the mean of both areas.
    """
    squared = ((others - one) ** 2).sum(-1)
    scale = (area + areas) / 2 + np.spacing(1)
    return np.exp(-squared / (2 * sigmas) ** 2 / scale[:, None] / 2).mean(1)


def oks_nms(keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, threshold: float) -> list[int]:
    """Returns the indices of the objects of one image that are kept, the highest score first.

    An object is dropped if its similarity to a kept one is above `threshold`.
    """
    kept: list[int] = []
    order = scores.argsort()[::-1]
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        overlap = similarity(keypoints[best], keypoints[order], areas[best], areas[order], sigmas)
        order = order[overlap <= threshold]
    return kept


def soft_oks_nms(keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, sigmas: np.ndarray, threshold: float) -> list[int]:
    """Returns the indices of at most MAX_KEPT objects of one image, in the order in which they were chosen.

    The score of an object decreases with its similarity to those that were chosen before. Decreased scores only determine the order.
    """
    kept: list[int] = []
    order = scores.argsort()[::-1]
    scores = scores[order]
    while len(order) and len(kept) < MAX_KEPT:
        best, order = order[0], order[1:]
        kept.append(int(best))
        overlap = similarity(keypoints[best], keypoints[order], areas[best], areas[order], sigmas)
        scores = scores[1:] * np.exp(-(overlap**2) / threshold)
        again = scores.argsort()[::-1]
        order, scores = order[again], scores[again]
    return kept
