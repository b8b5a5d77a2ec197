"""MPII Human Pose in the JSON files of HRNet and OpenMMLab. Each person is one sample.

Source: Andriluka et al., "2D Human Pose Estimation: New Benchmark and State of the Art Analysis", CVPR 2014. Crops and the
size of heads are those of HRNet's code (lib/dataset/mpii.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from spine.data import faults
from spine.data.coco_json import read_json
from spine.data.image_files import (
    check_images,
    format_names,
    log_warning,
    need_file,
    need_folder,
    need_root,
    read_bytes,
    read_image,
)
from spine.data.splits import Splits, configured_name
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, Labels, RawSample

LABELS = Labels(
    keypoints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax", "upper_neck", "head_top",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
    ),
    skeleton=(
        (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13), (13, 14), (14, 15),
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    sigmas=(.089, .083, .107, .107, .083, .089, .026, .026, .026, .026, .062, .072, .179, .179, .072, .062),  # OpenMMLab's
)  # fmt: skip
LAYOUTS = (  # annotations and head boxes, as downloaded from OpenMMLab and from HRNet's repository, and the name of the split val
    ("annotations/mpii_{split}.json", "annotations/mpii_gt_{split}.mat", "val"),
    ("annot/{split}.json", "annot/gt_{split}.mat", "valid"),
)
KEYS = ("image", "center", "scale", "joints", "joints_vis")  # of a person
PIXELS = 200.0  # `scale` is the height of a person in units of this
SHIFT = 15.0  # the center of a box is lower than the annotated one, in units of `scale`
AREA = 0.53  # of a person as a fraction of the box, because MPII has no masks
HEAD = 0.6  # the size of a head as a fraction of the diagonal of its box


class MPII(DataSet):
    """People with 16 keypoints. Boxes come from the annotated center and scale.

    Annotations count pixels from 1, as MATLAB does; samples count them from 0.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "keypoints"})
    labels = LABELS

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "images",
        annotations: str | None = None,
        head_boxes: str | None = None,
        splits: Splits | None = None,
    ):
        """`images`, `annotations`, `head_boxes`: a folder, a JSON file and a MATLAB file relative to root; {split} is replaced by
        the name of the split. None: the files of OpenMMLab or of HRNet's repository, whichever exist. Without head boxes,
        there is no PCKh.

        Raises InputError if files are missing or not in the format.
        """
        base = need_root(root, "mpii")
        self.folder = need_folder(base / images, "the images of MPII")
        self.path, heads = _find_files(base, split, annotations, head_boxes, splits)
        people = _read_people(self.path)
        every = [(_keypoints(person, self.path, number), _box(person, self.path, number)) for number, person in enumerate(people)]
        usable = [number for number, (points, box) in enumerate(every) if points is not None and box is not None]
        if not usable:
            raise InputError(f"'{self.path}' has no person that can be used.")
        self.names = [str(people[number]["image"]) for number in usable]
        numbers = {name: number for number, name in enumerate(sorted(set(self.names)))}
        self.image_ids = [int(Path(name).stem) if Path(name).stem.isdigit() else numbers[name] for name in self.names]
        self.keypoints = np.stack([points for points, box in every if points is not None and box is not None])
        self.boxes = np.stack([box for points, box in every if points is not None and box is not None])
        self.heads = _head_sizes(heads, len(people))[usable] if heads.is_file() else None
        self.head_path = heads if self.heads is not None else None
        if self.heads is None and split != "train":
            log_warning(f"There is no file '{heads}' with the boxes of heads, so that PCKh is not measured.")

    def __len__(self) -> int:
        """Number of people."""
        return len(self.names)

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images. Raises UnreadableFileError if files are missing or broken."""
        files = [self.folder / name for name in dict.fromkeys(self.names)]
        if missing := [path.name for path in files if not path.is_file()]:
            raise UnreadableFileError(
                f"{len(missing)} of {len(files)} images in '{self.path}' are not in '{self.folder}': {format_names(missing, 1)}.",
                str(self.folder / missing[0]),
            )
        check_images([(path, None) for path in files])

    def files(self, index: int) -> list[str]:
        """Returns the image file of a person."""
        return [str(self.folder / self.names[index])]

    def shared_files(self) -> list[str]:
        """Returns the files of annotations and of head boxes."""
        return [str(path) for path in (self.path, self.head_path) if path is not None]

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8, keypoints (16, 3), box (4,), area, image_id, and head_size if it is known."""
        return {**self.load_annotations(index), "image": read_image(self.folder / self.names[index], upright=False)}

    def encoded_image(self, index: int) -> EncodedImage:
        """Returns the bytes of the image file."""
        path = self.folder / self.names[index]
        return EncodedImage(read_bytes(path, "an image"), str(path), upright=False)

    def load_annotations(self, index: int) -> RawSample:
        """Returns a sample without its image."""
        box = self.boxes[index]
        sample: RawSample = {
            "keypoints": self.keypoints[index].copy(),
            "box": box,
            "area": float(box[2] * box[3] * AREA),
            "image_id": self.image_ids[index],
        }
        if self.heads is not None:
            sample["head_size"] = float(self.heads[index])
        return sample


def _find_files(base: Path, split: str, annotations: str | None, heads: str | None, splits: Splits | None) -> tuple[Path, Path]:
    """Returns the paths of the annotations, which exist, and of the head boxes, which may not."""
    configured, candidates = configured_name(split, splits), []
    for own_annotations, own_heads, val in LAYOUTS:
        name = configured or (val if split == "val" else split)
        json_file = base / (annotations or own_annotations).replace("{split}", name)
        candidates.append((json_file, base / (heads or own_heads).replace("{split}", name)))
    path, head_path = next((pair for pair in candidates if pair[0].is_file()), candidates[0])
    return need_file(path, f"the {split} annotations of MPII"), head_path


def _read_people(path: Path) -> list[dict[str, Any]]:
    """Returns the people in a file. Raises InputError if the file is not in the format."""
    content = read_json(path)
    if not isinstance(content, list) or not any(_is_person(one) for one in content):
        raise InputError(_format_message(path))
    for number, one in enumerate(content):
        if not _is_person(one):
            faults.report("annotation", f"{_format_message(path)} Entry {number} is no person.", [_entry(path, number)])
    return [one if _is_person(one) else {} for one in content]  # the file of head boxes counts all entries


def _entry(path: Path, number: int) -> str:
    return f"{path}, entry {number}"


def _is_person(entry: object) -> bool:
    return isinstance(entry, dict) and set(KEYS) <= entry.keys()


def _format_message(path: Path) -> str:
    return f"'{path}' is not in the format of MPII: a list of people with {', '.join(KEYS)}. The test split has no public annotations."


def _keypoints(person: dict[str, Any], path: Path, number: int) -> np.ndarray | None:
    """Returns the keypoints (16, 3) float32 of a person, entry `number` of the file; labeled ones have visibility 2.

    Raises InputError if they are not finite numbers; the doctor then gets None.
    """
    if not person:  # reported before
        return None
    count, joints, visible = len(LABELS.keypoints), _numbers(person["joints"]), _numbers(person["joints_vis"])
    if joints.shape != (count, 2) or visible.shape != (count,) or not np.isfinite(joints).all():
        message = f"A person of image '{person['image']}' in '{path}' does not have {count} keypoints of finite x and y."
        faults.report("annotation", message, [_entry(path, number)])
        return None
    return np.concatenate([joints - 1, 2 * (visible[:, None] > 0)], axis=1).astype(np.float32)


def _box(person: dict[str, Any], path: Path, number: int) -> np.ndarray | None:
    """Returns the square box (4,) float32 of a person, entry `number` of the file: x, y, width, height.

    Raises InputError if the center or the scale is no number; the doctor then gets None.
    """
    if not person:  # reported before
        return None
    center, scale = _numbers(person["center"]), _numbers(person["scale"])
    if center.shape != (2,) or scale.shape != () or not np.isfinite([*center, scale]).all() or scale <= 0:
        faults.report(
            "annotation",
            f"A person of image '{person['image']}' in '{path}' has the center {person['center']} and the scale {person['scale']}; the "
            f"center is x and y, and the scale a number above 0.",
            [_entry(path, number)],
        )
        return None
    (x, y), side = center, PIXELS * scale
    return np.array([x - 1 - side / 2, y + SHIFT * scale - 1 - side / 2, side, side], np.float32)


def _numbers(values: object) -> np.ndarray:
    """Returns numbers of a file as float32. An empty array if they are not numbers, or lists of different lengths."""
    try:
        return np.array(values, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)


def _head_sizes(path: Path, count: int) -> np.ndarray:
    """Returns the size (N,) of the head of each person in pixels. Raises InputError if the file does not have N boxes."""
    from scipy.io import loadmat

    try:
        boxes = loadmat(str(path))["headboxes_src"]  # (2, 2, N): two corners
    except (KeyError, ValueError, NotImplementedError, OSError) as error:
        raise InputError(f"'{path}' is not MPII's file of head boxes, which has 'headboxes_src' ({error}).") from error
    if boxes.shape != (2, 2, count):
        raise InputError(
            f"'{path}' has {boxes.shape[-1]} boxes of heads for {count} people: it belongs to another file of annotations."
        )
    return HEAD * np.linalg.norm(boxes[1] - boxes[0], axis=0)
