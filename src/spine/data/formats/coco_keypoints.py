"""Keypoints from JSON files in COCO's format. Each labeled object is one sample."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from spine.data import faults
from spine.data.coco_json import JsonObject, KeypointFile, area_of
from spine.data.image_files import Size, check_images, log_warning, need_file, need_root, read_bytes, read_image
from spine.data.keypoint_flips import find_flip_pairs
from spine.data.splits import Splits, configured_name, resolve_pattern, split_folder
from spine.encoded_image import EncodedImage
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, KeypointAnnotations, Labels, RawSample

# Sigmas of cocoeval for COCO's seventeen keypoints, in their order.
COCO_SIGMAS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087, .089, .089)  # fmt: skip
YEARS = ("", "2017", "2014")  # suffixes of COCO's splits
KEYPOINTS = ("keypoints",)  # the list of an annotation that holds its keypoints
Pairs = tuple[tuple[int, int], ...]


class LabeledObject(NamedTuple):
    """One annotation."""

    file: str
    size: Size | None  # of the image that it was annotated on, if the file has it
    keypoints: np.ndarray  # (K, 3) float32
    box: np.ndarray  # (4,) float32: x, y, width, height
    area: float
    image_id: int


class COCOKeypoints(DataSet):
    """Labeled objects of the first category with keypoints.

    Names and skeleton come from the file. Flip pairs and sigmas come from the options, the file or
    the names. Boxes and keypoints are in pixels of an image of the width and height in the file: no
    EXIF rotation is applied if these are the stored ones.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "keypoints"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "{split}",
        annotations: str = "annotations/person_keypoints_{split}.json",
        splits: Splits | None = None,
        fields: list[str] | None = None,
        names: list[str] | int | None = None,
        skeleton: list[tuple[int, int]] | None = None,
        flip_pairs: list[tuple[int, int]] | None = None,
        sigmas: list[float] | float | None = None,
        norm_keypoints: list[list[int]] | None = None,
    ):
        """`images`, `annotations`: a folder and a file relative to root. {split} is replaced by the
        name of the split in `splits`, or by the split, if necessary with a year of COCO
        (train2017). Without {split}, `images` is its subfolder of the split if there is one, and
        `annotations=faces.json` is faces_<split>.json if it exists.

        `fields`: the lists of an annotation that hold its keypoints; those of COCO-WholeBody have five. `names`: of the
        keypoints, or their number, for files without names. `skeleton`: pairs of indices from 0; None for those of the file.
        `flip_pairs`: indices from 0; None pairs the names that differ in left and right, [] means
        that no keypoints swap in a flipped image. `sigmas`: one per keypoint, or one for all.
        `norm_keypoints`: two groups of indices, such as [[36], [45]] for the outer corners of the eyes: NME is in units of the
        distance of their centers. Raises InputError if files are missing or not in the format.
        """
        base = need_root(root, "coco_keypoints")
        self.folder, self.path = _find_files(base, images, annotations, split, splits)
        self.fields, self.given_names = fields or list(KEYPOINTS), names
        self._annotations: KeypointAnnotations | None = None  # read when they are first used, which training does not
        file = self._read()
        self.labels = keypoint_labels(self.path, file.names, file.category, skeleton, flip_pairs, sigmas, norm_keypoints or ())
        self.items = [_labeled_object(annotation, keypoints, file) for annotation, keypoints in file.samples()]
        if not self.items:
            raise InputError(f"'{self.path}' has no annotation with a labeled keypoint.")

    def _read(self) -> KeypointFile:
        return KeypointFile(self.path, self.fields, self.given_names)

    def keypoint_annotations(self) -> KeypointAnnotations:
        """Returns all objects of the annotation file."""
        if self._annotations is None:
            self._annotations = self._read().all_objects(self.folder)
        return self._annotations

    def check(self, needs: frozenset[str]) -> None:
        """Checks that all image files exist, and reads a few.

        Raises UnreadableFileError if files are missing, and InputError if one that is read does not have the
        size of its annotations.
        """
        files: dict[str, Size | None] = {item.file: item.size for item in self.items}
        with os.scandir(self.folder) as entries:
            present = {entry.name for entry in entries}
        missing = [name for name in files if name not in present and not (self.folder / name).is_file()]
        if missing:
            raise UnreadableFileError(
                f"{len(missing)} of {len(files)} images in '{self.path}' are not in '{self.folder}'; the first is '{missing[0]}'.",
                str(self.folder / missing[0]),
            )
        check_images([(self.folder / name, size) for name, size in files.items()])

    def files(self, index: int) -> list[str]:
        """Returns the image file of a labeled object."""
        return [str(self.folder / self.items[index].file)]

    def shared_files(self) -> list[str]:
        """Returns the annotation file."""
        return [str(self.path)]

    def __len__(self) -> int:
        """Number of labeled objects."""
        return len(self.items)

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8, keypoints (K, 3) float32, box (4,), area and image_id."""
        item = self.items[index]
        return {"image": read_image(self.folder / item.file, item.size, upright=False), **self.load_annotations(index)}

    def encoded_image(self, index: int) -> EncodedImage:
        """Returns the bytes of the image file."""
        item = self.items[index]
        path = self.folder / item.file
        return EncodedImage(read_bytes(path, "an image"), str(path), item.size, upright=False)

    def load_annotations(self, index: int) -> RawSample:
        """Returns keypoints (K, 3) float32, box (4,), area and image_id."""
        item = self.items[index]
        return {"keypoints": item.keypoints, "box": item.box, "area": item.area, "image_id": item.image_id}


def keypoint_labels(
    path: Path,
    names: tuple[str, ...],
    category: JsonObject,
    skeleton: Sequence[Sequence[int]] | None = None,
    flip_pairs: Sequence[Sequence[int]] | None = None,
    sigmas: Sequence[float] | float | None = None,
    norm_keypoints: Sequence[Sequence[int]] = (),
) -> Labels:
    """Returns the labels of keypoints. What is None comes from the `category` of a file in COCO's format, else from the names.

    `path`: of the file, for messages. Raises InputError if indices or sigmas do not fit the names.
    """
    pairs, can_flip = _flip_pairs(flip_pairs if flip_pairs is not None else category.get("flip_pairs"), names)
    lines = skeleton if skeleton is not None else [(a - 1, b - 1) for a, b in category.get("skeleton", [])]  # from 1
    return Labels(
        keypoints=names,
        skeleton=_check_indices("skeleton", lines, len(names)),  # type: ignore[arg-type]
        flip_pairs=pairs,
        sigmas=_sigmas(sigmas if sigmas is not None else category.get("sigmas"), names, path),
        norm_keypoints=_check_indices("norm_keypoints", norm_keypoints, len(names)),
        can_flip=can_flip,
    )


def _find_files(base: Path, images: str, annotations: str, split: str, splits: Splits | None) -> tuple[Path, Path]:
    """Returns the image folder and the annotation file of a split.

    A split has several names (`val`, `val2017`); the first one for which both exist is used.
    """
    configured = configured_name(split, splits)
    names = [configured] if configured else [split + year for year in YEARS]
    candidates = [(resolve_pattern(base, images, name), _annotation_file(base, annotations, name)) for name in names]
    with_folder = [pair for pair in candidates if pair[0].is_dir()] or candidates
    folder, path = next((pair for pair in with_folder if pair[1].is_file()), with_folder[0])
    folder = folder if folder.is_dir() else split_folder(base, images, split, splits)
    if split != "train" and "{split}" not in annotations and path == base / annotations:
        log_warning(f"Split '{split}' reads '{path}', like every other split: set dataset.annotations to a path with {{split}}.")
    return folder, need_file(path, f"the {split} annotations")


def _annotation_file(base: Path, pattern: str, name: str) -> Path:
    """Returns the annotation file of a split.

    Without {split} in the pattern, it is `<stem>_<name>.json` or `<folder>/<name>.json` if that
    exists, otherwise the path itself.
    """
    if "{split}" in pattern:
        return base / pattern.replace("{split}", name)
    path = base / pattern
    of_split = path / f"{name}.json" if path.is_dir() else path.with_name(f"{path.stem}_{name}{path.suffix}")
    return of_split if of_split.is_file() else path


def _labeled_object(annotation: JsonObject, keypoints: np.ndarray, file: KeypointFile) -> LabeledObject:
    """Converts an annotation with its keypoints (K, 3)."""
    return LabeledObject(
        file=file.images[annotation["image_id"]]["file_name"],
        size=file.size(annotation["image_id"]),
        keypoints=keypoints.astype(np.float32),
        box=np.array(annotation["bbox"], np.float32),
        area=area_of(annotation),
        image_id=int(annotation["image_id"]),
    )


def _check_indices(key: str, groups: Sequence[Sequence[int]], count: int) -> tuple[tuple[int, ...], ...]:
    """Returns groups of keypoint indices. Raises InputError if one of them is not in 0..count - 1, or if there are not two where
    two are needed.
    """
    if key == "norm_keypoints" and len(groups) not in (0, 2):
        raise InputError(f"dataset.norm_keypoints has {len(groups)} groups of keypoints; it needs two, such as [[36],[45]].")
    if invalid := [i for group in groups for i in group if not 0 <= i < count]:
        raise InputError(f"dataset.{key} names keypoint {invalid[0]}; there are keypoints 0 to {count - 1}.")
    return tuple(tuple(int(i) for i in group) for group in groups)


def _flip_pairs(given: Sequence[Sequence[int]] | None, names: tuple[str, ...]) -> tuple[Pairs, bool]:
    """Returns the flip pairs, and whether they are known to be complete.

    Pairs from names are complete if no name is left unknown.
    """
    if given is None:
        found, unknown = find_flip_pairs(names)
        return found, not unknown and (bool(found) or len(names) == 1)
    if invalid := [pair for pair in given if len(pair) != 2 or not all(0 <= i < len(names) for i in pair)]:
        raise InputError(f"Flip pair {tuple(invalid[0])} is not of keypoints 0 to {len(names) - 1}.")
    members = [i for pair in given for i in pair]
    if repeated := [i for i in members if members.count(i) > 1]:
        faults.report(
            "flip_pairs",
            f"Keypoint {repeated[0]} ('{names[repeated[0]]}') is in two flip pairs; it swaps with one other keypoint.",
        )
        return (), False
    return tuple((int(a), int(b)) for a, b in given), True


def _sigmas(given: Sequence[float] | float | None, names: tuple[str, ...], path: Path) -> tuple[float, ...]:
    """Returns one sigma per keypoint. Raises InputError if they are unknown or not above zero."""
    if given is None and len(names) == len(COCO_SIGMAS) and names[0] == "nose":
        given = COCO_SIGMAS
    if given is None:
        raise InputError(
            f"'{path}' has no sigmas for its {len(names)} keypoints, and the object keypoint similarity needs them. "
            f"Set dataset.sigmas to a list, or to one number such as 0.05."
        )
    sigmas = (float(given),) * len(names) if isinstance(given, int | float) else tuple(map(float, given))
    if len(sigmas) != len(names) or min(sigmas) <= 0:
        raise InputError(f"There are {len(sigmas)} sigmas for {len(names)} keypoints; each keypoint needs one above zero.")
    return sigmas
