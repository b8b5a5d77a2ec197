"""A sample as the members of a record, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from spine.data.image_files import IMAGE_SUFFIXES, undecodable_message
from spine.encoded_image import EncodedImage
from spine.errors import UnreadableFileError
from spine.interfaces import DataSet, Labels, RawSample

CLASS, MASK, FACTS = "cls", "mask.png", "json"  # suffixes; the masks of classes that may overlap are mask.0.png, mask.1.png, ...
ARRAYS = ("keypoints", "box")  # float32 arrays in the json
NUMBERS = ("area", "image_id", "box_score", "head_size")  # numbers in the json
SIGNATURES = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"GIF8": "gif",
    b"II*\0": "tif",
    b"MM\0*": "tif",
}


def encode_sample(data: DataSet, index: int) -> list[tuple[str, bytes]]:
    """Returns the suffixes and contents of the members of a sample. The first one is the image.

    An image that the data set has encoded is stored as it is, any other one as PNG, without loss.
    """
    facts: dict[str, Any] = {}
    encoded = data.encoded_image(index)
    if encoded is None:
        sample = data.load(index)
        image = "png", encode_png(sample["image"][..., ::-1])
    else:
        sample = data.load_annotations(index)
        image = image_suffix(encoded), encoded.data.tobytes()
        if encoded.size is not None:
            facts["size"] = list(map(int, encoded.size))
        if not encoded.upright:
            facts["upright"] = False
    members = []
    if (label := sample.get("label")) is not None:
        if isinstance(label, np.ndarray):
            facts["label"] = label.tolist()
        else:
            members.append((CLASS, str(int(label)).encode()))
    if (mask := sample.get("mask")) is not None:
        several = {f"mask.{i}.png": mask[..., i] for i in range(mask.shape[2])} if mask.ndim == 3 else {MASK: mask}
        members += [(suffix, encode_png(pixels)) for suffix, pixels in several.items()]
    facts |= {key: np.asarray(sample[key], np.float32).tolist() for key in ARRAYS if key in sample}  # type: ignore[literal-required]
    facts |= {key: _number(sample[key]) for key in NUMBERS if key in sample}  # type: ignore[literal-required]
    if facts:
        members.append((FACTS, json.dumps(facts).encode()))
    return [image, *members]


def _number(value: Any) -> int | float:
    return int(value) if isinstance(value, int | np.integer) else float(value)


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a PNG of pixels (H, W) or (H, W, 3) BGR uint8."""
    return cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes()


def image_suffix(encoded: EncodedImage) -> str:
    """Returns the suffix of an encoded image: of its name, otherwise by its first bytes."""
    suffix = os.path.splitext(encoded.name)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix[1:]
    head = encoded.data[:4].tobytes()
    return next((found for start, found in SIGNATURES.items() if head.startswith(start)), "img")


def is_image(suffix: str) -> bool:
    """Whether a member of this suffix is the image of a sample."""
    return "mask" not in suffix and (f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES or suffix == "img")


def find_image(members: Mapping[str, np.ndarray], where: str) -> EncodedImage:
    """Returns the image of a record. `where`: for messages. Raises UnreadableFileError if it has none."""
    suffix = next(filter(is_image, members), None)
    if suffix is None:
        message = f"{where} has no image; its members are {', '.join(members)}. Leave the sample out, or pack the shards again."
        raise UnreadableFileError(message, where, "without_image")
    facts = read_facts(members, where)
    size = facts.get("size")
    return EncodedImage(members[suffix], where, (size[0], size[1]) if size else None, facts.get("upright", True))


def read_facts(members: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    """Returns the content of the json of a record, or {} if it has none. Raises UnreadableFileError if it is broken."""
    if (content := members.get(FACTS)) is None:
        return {}
    try:
        found = json.loads(content.tobytes())
    except ValueError as error:
        raise UnreadableFileError(f"The json of {where} is broken ({error}). Pack the shards again.", where) from error
    return found if isinstance(found, dict) else {}


def decode_annotations(members: Mapping[str, np.ndarray], labels: Labels, where: str) -> RawSample:
    """Returns the annotations of a record. `where`: for messages. Raises UnreadableFileError if one is broken."""
    facts, sample = read_facts(members, where), RawSample()
    if CLASS in members:
        sample["label"] = read_class(members[CLASS], where)
    elif labels.several_classes and "label" in facts:
        sample["label"] = np.array(facts["label"], np.uint8)
    if MASK in members:
        sample["mask"] = decode_mask(members[MASK], where)
    elif labels.multi_label and "mask.0.png" in members:
        names = [f"mask.{i}.png" for i in range(len(labels.mask_classes))]
        several = [decode_mask(members.get(name, np.zeros(0, np.uint8)), f"{where}, {name}") for name in names]
        sample["mask"] = np.stack(several, axis=2)
    if labels.keypoints and "keypoints" in facts:
        for key in ARRAYS:
            if key in facts:
                sample[key] = np.array(facts[key], np.float32)  # type: ignore[literal-required]
        for key in NUMBERS:
            if key in facts:
                sample[key] = facts[key]  # type: ignore[literal-required]
    return sample


def decode_mask(data: np.ndarray, where: str) -> np.ndarray:
    """Returns a mask (H, W) uint8."""
    mask = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if mask is None or mask.ndim != 2 or mask.dtype != np.uint8:
        raise UnreadableFileError(undecodable_message(where, data, "a mask of one channel with 8 bits"), where)
    return mask


def read_class(content: np.ndarray, where: str) -> int:
    """Returns the number of a class. Raises UnreadableFileError if it is none."""
    text = content.tobytes().strip()
    if text.isdigit():
        return int(text)
    message = f"The class of {where} is {text[:40].decode(errors='replace')!r}; a .cls member holds a number from 0."
    raise UnreadableFileError(message, where, "unknown_label")
