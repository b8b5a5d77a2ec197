"""Collects predicted objects of all processes, and evaluates them by the protocols of keypoint data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from spine.interfaces import KeypointAnnotations, Labels
from spine.tasks.pose import distances
from spine.tasks.pose.coco_protocol import KeypointResult, average_precision
from spine.tasks.pose.rescoring import keep_objects, rescore

PCK_THRESHOLD = 0.2  # of the longer side of the box
DECIMALS = 3  # of the pixels in results


class Instances(NamedTuple):
    """The objects of an evaluation, in the order of the data set. Coordinates are in pixels of the original images."""

    index: np.ndarray  # type: ignore[assignment]  # (N,) int64: of the sample
    prediction: np.ndarray  # (N, K, 3): x, y, score
    target: np.ndarray  # (N, K, 3): x, y, visibility
    area: np.ndarray  # (N,)
    box: np.ndarray  # (N, 4): x, y, width, height
    image_id: np.ndarray  # (N,) int64
    box_score: np.ndarray  # (N,): 1 for given boxes
    crop_area: np.ndarray  # (N,): of what the network saw of the image
    head_size: np.ndarray  # (N,): NaN if the data set has none


INTEGERS = ("index", "image_id")


class KeypointScores(Metric):
    """Collects objects of all processes."""

    full_state_update = False

    def __init__(self, num_keypoints: int):
        super().__init__()
        pair = (num_keypoints, 3)
        self.shapes = dict.fromkeys(Instances._fields, ()) | {"prediction": pair, "target": pair, "box": (4,)}
        for name in Instances._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, **values: Tensor) -> None:
        """Adds a batch of B objects: tensors by the names of `Instances`.

        `box_score`, `crop_area` and `head_size` may be left out: they are then 1, the area of the box, and NaN.
        """
        some = values["area"]
        defaults = {
            "box_score": torch.ones_like(some),
            "crop_area": values["box"][:, 2:].prod(1),
            "head_size": torch.full_like(some, float("nan")),
        }
        for name in Instances._fields:
            getattr(self, name).append((values[name] if name in values else defaults[name]).detach())

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gathers the states of all processes.

        A process without samples takes part with empty tensors, because torchmetrics does not
        gather empty lists.
        """
        for name, shape in self.shapes.items():
            if not getattr(self, name):
                dtype = torch.int64 if name in INTEGERS else torch.float32
                getattr(self, name).append(torch.zeros((0, *shape), dtype=dtype, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> Instances:
        """Returns the objects of all processes."""
        found = {name: dim_zero_cat(getattr(self, name)).cpu().numpy() for name in Instances._fields}
        order = found["index"].argsort(kind="stable")
        return Instances(
            *(values[order] if name in INTEGERS else values[order].astype(np.float64) for name, values in found.items())
        )


@dataclass(frozen=True)
class Protocol:
    """How predicted objects are scored and counted."""

    rescore: float | None = 0.2  # threshold of keypoint scores, see `rescoring.rescore`
    oks_nms: float | None = 0.9  # similarity above which one of two objects is dropped; None: none is
    soft_oks_nms: bool = False
    nme_threshold: float = 0.1  # of failure rate and area under the curve


class KeypointEvaluation:
    """The results of all objects of an evaluation."""

    def __init__(self, instances: Instances, labels: Labels, protocol: Protocol, annotations: KeypointAnnotations | None = None):
        """`annotations`: all objects of the evaluated images; None: those of `instances` are all."""
        self.instances, self.labels, self.protocol = instances, labels, protocol
        self.truth = _truth_of(instances) if annotations is None else annotations
        self.distances = distances.labeled_distances(instances.prediction, instances.target)

    @cached_property
    def results(self) -> list[KeypointResult]:
        """The objects that remain after suppression, in COCO's results format."""
        found, rules = self.instances, self.protocol
        scores = rescore(found.prediction[..., 2], found.box_score, rules.rescore)
        points, sigmas = found.prediction[..., :2], np.array(self.labels.sigmas)
        kept = keep_objects(points, scores, found.crop_area, found.image_id, sigmas, rules.oks_nms, rules.soft_oks_nms)
        return [coco_result(found.prediction[i], float(scores[i]), int(found.image_id[i]), self.truth.category) for i in kept]

    def metrics(self, complete: bool = True) -> dict[str, float]:
        """Returns average precision and recall, and for labeled samples PCK, PCKh and normalized errors, by name in 0..1.

        `complete`: whether all samples of the split are there; otherwise only the images of `instances` count.
        """
        images = self.truth.images.keys() if complete else set(self.instances.image_id.tolist())
        values = average_precision(self.results, self.truth, images, self.labels.sigmas)
        if np.isnan(self.distances).all():  # boxes of a detector
            return values
        values["PCK"] = distances.mean_fraction(self.distances, self._longer_side, PCK_THRESHOLD)
        if self._has_heads:
            left_out = [i for i, name in enumerate(self.labels.keypoints) if name in distances.UNSCORED]
            for threshold in (0.5, 0.1):
                values[f"PCKh@{threshold}"] = distances.mean_fraction(
                    self.distances, self.instances.head_size, threshold, left_out
                )
        return values | self._normalized_errors()

    def _normalized_errors(self) -> dict[str, float]:
        """NME, and for a unit between keypoints, as for faces, failure rate and area under the curve."""
        groups, limit = self.labels.norm_keypoints, self.protocol.nme_threshold
        units = distances.group_distance(self.instances.target, groups) if groups else np.sqrt(self.instances.box[:, 2:].prod(1))
        errors = distances.normalized_errors(self.distances, units)
        if not len(errors):
            return {}
        values = {"NME": float(errors.mean())}
        if groups:
            values[f"failure_rate@{limit:g}"] = distances.failure_rate(errors, limit)
            values[f"AUC@{limit:g}"] = distances.area_under_curve(errors, limit)
        return values

    def rows(self) -> list[dict[str, object]]:
        """Returns a row for each keypoint: how often it is labeled, PCK, PCKh, and its mean distance in pixels. Empty without labels."""
        labeled = (~np.isnan(self.distances)).sum(0)
        if not labeled.any():
            return []
        columns = {"PCK": distances.correct_fraction(self.distances, self._longer_side, PCK_THRESHOLD)}
        if self._has_heads:
            columns["PCKh@0.5"] = distances.correct_fraction(self.distances, self.instances.head_size, 0.5)
        total = np.nansum(self.distances, axis=0)
        columns["pixels"] = np.divide(total, labeled, out=np.full(len(total), np.nan), where=labeled > 0)
        names = self.labels.keypoints
        return [
            {"keypoint": name, "labeled": int(labeled[i])}
            | {column: None if np.isnan(values[i]) else float(values[i]) for column, values in columns.items()}
            for i, name in enumerate(names)
        ]

    @property
    def _longer_side(self) -> np.ndarray:
        return self.instances.box[:, 2:].max(1)

    @property
    def _has_heads(self) -> bool:
        return bool(len(self.instances.head_size)) and not np.isnan(self.instances.head_size).any()


def coco_result(keypoints: np.ndarray, score: float, image_id: int, category: int = 1) -> KeypointResult:
    """Returns one object with its keypoints (K, 3) float64 in COCO's results format."""
    rounded = np.concatenate([keypoints[:, :2].round(DECIMALS), keypoints[:, 2:]], axis=-1)
    return {"image_id": image_id, "category_id": category, "keypoints": rounded.flatten().tolist(), "score": score}


def _truth_of(instances: Instances) -> KeypointAnnotations:
    """Returns the objects themselves as annotations."""
    return KeypointAnnotations(
        path="",
        category=1,
        images=dict.fromkeys(instances.image_id.tolist(), ("", None)),
        image_ids=instances.image_id,
        keypoints=instances.target,
        boxes=instances.box,
        areas=instances.area,
        crowd=np.zeros(len(instances.index), bool),
        labeled=(instances.target[..., 2] > 0).sum(1),
    )


def describe_distance(prediction: np.ndarray, truth: np.ndarray) -> str:
    """Returns the mean distance of the labeled keypoints (K, 3) in words, in pixels of the input image."""
    labeled = truth[:, 2] > 0
    if not labeled.any():
        return "no keypoint is labeled"
    distance = np.linalg.norm(prediction[labeled, :2] - truth[labeled, :2], axis=1).mean()
    return f"{distance:.1f} pixels from the truth on average"


def describe_confidence(prediction: np.ndarray, names: Sequence[str]) -> str:
    """Returns the mean score of predicted keypoints (K, 3) and the least certain one in words."""
    least = int(prediction[:, 2].argmin())
    return f"mean score {prediction[:, 2].mean():.2f}, {names[least]} {prediction[least, 2]:.2f}"
