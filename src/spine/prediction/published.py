"""Names for the outputs of published weights, whose files have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from spine.data.coco_json import KeypointFile
from spine.data.formats.coco_keypoints import COCO_SIGMAS, KEYPOINTS, keypoint_labels
from spine.data.image_files import read_class_names
from spine.errors import InputError
from spine.interfaces import Labels
from spine.models.assembly import network_of, task_of
from spine.models.pretrained import configured_weights
from spine.option_types import Config

PLACEHOLDER = 7919  # outputs of a network that is built to be compared with a file; no published network has as many
SIGMA = 0.05  # of keypoints whose sigmas are not known, in the similarity that removes duplicates


def published_labels(config: Config, classes: Sequence[str] | str | Path | None) -> tuple[Labels, int | None]:
    """Returns the labels of a network with published weights, and its number of outputs.

    `config`: complete. `classes`: the names, or a text file with one per line; of keypoints also a file in COCO's format. None:
    "class 0", "class 1" and so on, as many as the file has. Raises InputError if neither names nor the file say how many there are.
    """
    spec = task_of(config)
    if spec.labels is None:
        if classes is not None:
            raise InputError(
                f"classes names the outputs of a network, and those of task '{spec.name}' have no names. Leave it out."
            )
        return Labels(), spec.num_outputs
    if spec.labels == "keypoints" and isinstance(classes, str | Path) and Path(classes).suffix == ".json":
        file = KeypointFile(Path(classes), KEYPOINTS, None)
        labels = keypoint_labels(Path(classes), file.names, file.category)
        return labels, len(labels.keypoints)
    names = _names(classes) if classes is not None else _numbered_names(config, spec.labels)
    if spec.labels == "keypoints":
        return _keypoint_labels(names), len(names)
    return (Labels(classes=names) if spec.labels == "classes" else Labels(mask_classes=names)), len(names)


def _names(classes: Sequence[str] | str | Path) -> tuple[str, ...]:
    return tuple(read_class_names(Path(classes))) if isinstance(classes, str | Path) else tuple(map(str, classes))


def _numbered_names(config: Config, kind: str) -> tuple[str, ...]:
    """Returns a name for each output of the file. Raises InputError if the file does not tell their number."""
    count = config.get("num_outputs") or count_outputs(config)
    if count is None:
        raise InputError(
            f"'{config['backbone']['weights']}' does not tell its number of outputs. Give their names: classes=<file with one per line>."
        )
    return tuple(f"{'keypoint' if kind == 'keypoints' else 'class'} {i}" for i in range(count))


def _keypoint_labels(names: tuple[str, ...]) -> Labels:
    is_coco = len(names) == len(COCO_SIGMAS) and names[0] == "nose"
    return keypoint_labels(Path("classes"), names, {}, sigmas=None if is_coco else SIGMA)


def count_outputs(config: Config) -> int | None:
    """Returns the number of outputs of the head in the weight file of a complete configuration. None if it has no such head."""
    network = network_of(config, PLACEHOLDER)
    weights = configured_weights(config, network)
    assert weights is not None
    with torch.device("meta"):
        expected = weights.network.build().state_dict()
    for name, tensor in weights.file.tensors.items():
        wanted = expected.get(name) if name.startswith("head.") else None
        if wanted is None or wanted.ndim != tensor.ndim:
            continue
        pairs = [(here, there) for here, there in zip(wanted.shape, tensor.shape, strict=True) if here != there]
        if len(pairs) == 1 and pairs[0][0] == PLACEHOLDER:
            return pairs[0][1]
    return None
