"""Semantic segmentation from pairs of images and masks, listed in a text file or matched by name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from spine.data import faults
from spine.data.image_files import (
    PackedNames,
    check_images,
    decode_image,
    exif_orientation,
    format_names,
    has_images,
    log_warning,
    need_root,
    read_bytes,
    read_class_names,
    read_image,
    warn_of_unreadable_files,
)
from spine.data.jpeg import read_jpeg_header
from spine.data.mask_classes import Color, ColorMap, LabelMap, MaskClasses
from spine.data.mask_layers import Layout, MaskLayers
from spine.data.mask_pairs import MaskPlace, Pair, list_file, listed_names, listed_pairs, pair_by_name, read_list
from spine.data.masks import is_jpeg, jpeg_message
from spine.data.splits import (
    Splits,
    configured_name,
    divide,
    has_no_splits,
    resolve_pattern,
    split_folder,
    warn_of_division,
)
from spine.encoded_image import EncodedImage
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, Labels, RawSample

MAX_SCANNED = 200  # masks that are read before training to see which classes occur
MIN_SCANNED = 16  # of these, read with their images even if every class has occurred
SCAN_SECONDS = 5.0
Pattern = tuple[str, str]  # of a folder, and the suffix of the names of its files
MaskPattern = tuple[list[str], str]  # the same with several folders
CLASS = "{class}"  # in `masks` and `mask_suffix`: the name of a class, for files of one class each


class MaskFolder(DataSet):
    """Pairs of images and masks.

    Masks store class indices, values that `label_map` maps to them, or colors.

    Palette, 1-bit and 16-bit masks are read by their stored values.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "mask"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "images/{split}",
        masks: str | list[str] = "masks/{split}",
        pairs: str | None = None,
        image_suffix: str = "",
        mask_suffix: str = "",
        classes: list[str] | str | None = None,
        multi_label: Layout | None = None,
        palette: list[Color] | None = None,
        ignore_index: int | Sequence[int] | None = None,
        reduce_zero_label: bool = False,
        label_map: LabelMap | None = None,
        color_map: ColorMap | Literal["palette"] | None = None,
        exif: Literal["upright", "stored"] | None = None,
        splits: Splits | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`images`, `masks`: folders relative to root. A mask has the name of its image without
        suffix; `image_suffix` ("_leftImg8bit") and `mask_suffix` ("_mask") follow the common part of
        the names. `masks` may be several folders: a mask is read from the first one that has it.
        Folders without files are searched in their subfolders. If there is no folder for any split,
        `val_fraction` of the pairs, drawn with `split_seed`, are the validation split.
        `pairs`: a text file relative to root, with one line `image mask` per pair, or one name per
        line of the files in `images` and `masks`; of a folder, the file <split>.txt. `splits`: names
        that replace {split}.
        `classes`: names, or a file relative to root with one name per line; None reads
        root/classes.txt. `palette`: red, green and blue of each class, 0 to 255, for figures.
        `multi_label`: for classes that may overlap, and for a single class. "files": each class has mask
        files of its own, where {class} in `masks` or `mask_suffix` is its name; without {class} they
        are in the subfolder <class> of `masks`. An image without a file of a class does not show it.
        "channels": the channels of a mask are the classes. Both store 0 where a class is absent, and 1
        or 255 where it is present; `label_map` maps other values to 0, 1 or None.
        `ignore_index`: stored value or values of unlabeled pixels. `label_map`: stored value ->
        index or name of a class, None for ignored; other values are then errors. `reduce_zero_label`:
        0 is ignored and 1 is the first class.
        `color_map`: for masks that store colors: class -> color or list of colors, and `ignored` ->
        those of unlabeled pixels; "palette": the colors of `palette`.
        `exif`: whether masks belong to the "upright" image, turned by its EXIF orientation, or to the
        "stored" pixels. None: whichever has the size of the mask.
        """
        base, self.split, self.exif, self.splits = need_root(root, "mask_folder"), split, exif, splits
        names = _class_names(base, classes, multi_label)
        self.classes: MaskClasses | MaskLayers
        if multi_label is None:
            self.classes = MaskClasses(
                names,
                ignore_index=ignore_index,
                reduce_zero_label=reduce_zero_label,
                label_map=label_map,
                color_map=color_map,
                palette=palette,
            )
        else:
            _check_layers(color_map, reduce_zero_label)
            self.classes = MaskLayers(names, multi_label, ignore_index=ignore_index, label_map=label_map, palette=palette)
        self.labels = Labels(mask_classes=names, palette=self.classes.palette, multi_label=multi_label is not None)
        patterns = _mask_patterns([masks] if isinstance(masks, str) else masks, mask_suffix, names, multi_label)
        self.lists: list[str] = []  # the file of pairs, if there is one
        if pairs:
            items = self._listed_pairs(base, pairs, (images, image_suffix), patterns)
        else:
            items = self._match_pairs(base, (images, image_suffix), patterns, val_fraction, split_seed)
        if jpegs := [mask for _, files in items for mask in files if is_jpeg(mask)]:
            faults.report("jpeg_mask", jpeg_message(jpegs[0]), jpegs)
        self.images = PackedNames(image for image, _ in items)
        self.masks = [PackedNames(files[i] for _, files in items) for i in range(len(patterns))]
        self.reads_masks = True  # False if `check` is called for a task that does not need them

    def _listed_pairs(self, base: Path, pairs: str, images: Pattern, masks: Sequence[MaskPattern]) -> list[Pair]:
        """Returns the pairs of the list of the split."""
        source = list_file(base, pairs, configured_name(self.split, self.splits) or self.split)
        rows = read_list(source, self.split)
        self.lists = [str(source)]
        if len(rows[0]) == 1:
            return pair_by_name(*self._places(base, images, masks), listed_names(rows), source)
        if len(masks) > 1:
            raise InputError(
                f"The list '{source}' names one mask for each image, and dataset.multi_label=files reads one for each class. Use a "
                f"list with one name per line."
            )
        return listed_pairs(base, rows, source)

    def _match_pairs(self, base: Path, images: Pattern, masks: Sequence[MaskPattern], fraction: float, seed: int) -> list[Pair]:
        """Returns the pairs of the split by name."""
        folder = _undivided(base, images[0])
        undivided = [MaskPlace([_undivided(base, pattern) for pattern in folders], suffix) for folders, suffix in masks]
        every = [each for place in undivided for each in place.folders]
        if (
            all(has_no_splits(each, self.splits) for each in (folder, *every))
            and has_images(folder)
            and any(map(has_images, every))
        ):
            pairs = pair_by_name(folder, images[1], undivided)
            chosen = divide(len(pairs), self.split, fraction, (seed,))
            if self.split == "train":
                warn_of_division(folder, len(chosen), len(pairs), fraction, seed)
            return [pairs[i] for i in chosen]
        return pair_by_name(*self._places(base, images, masks))

    def _places(self, base: Path, images: Pattern, masks: Sequence[MaskPattern]) -> tuple[Path, str, list[MaskPlace]]:
        """Returns the image folder and suffix, and the places of the masks of the split. Raises InputError if a folder does not exist."""
        places = [
            MaskPlace([split_folder(base, pattern, self.split, self.splits, "masks") for pattern in folders], suffix)
            for folders, suffix in masks
        ]
        return split_folder(base, images[0], self.split, self.splits), images[1], places

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images and masks.

        Masks are read until every class has occurred, at most MAX_SCANNED masks or for
        SCAN_SECONDS, the first MIN_SCANNED with their images. Raises InputError for stored values
        without a class, and for an image and a mask that do not fit. Logs a warning about classes
        that did not occur, and about images without a file of a class.
        """
        images = [self.images[i] for i in range(len(self))]
        warn_of_unreadable_files({os.path.dirname(image) for image in images}, os.path.dirname(images[0]))
        check_images([(image, None) for image in images])
        self.reads_masks = "mask" in needs
        if self.reads_masks:
            self._check_masks()

    def _check_masks(self) -> None:
        occurred, num_read, names = np.zeros(len(self.classes.names), bool), 0, self.classes.names
        start = time.monotonic()
        for index in np.random.default_rng(0).permutation(len(self))[:MAX_SCANNED].tolist():
            mask = self.load(index)["mask"] if num_read < MIN_SCANNED else self._mask(index)
            occurred |= _occurring(mask, len(names))
            num_read += 1
            if num_read >= MIN_SCANNED and (occurred.all() or time.monotonic() - start > SCAN_SECONDS):
                break
        total = len(self)
        if missing := [name for name, seen in zip(names, occurred, strict=True) if not seen]:
            scanned = f"any of the {total} masks" if num_read == total else f"any of {num_read} checked masks, of {total},"
            log_warning(f"There is no pixel of class {format_names(missing)} in {scanned} of split '{self.split}'.")
        counts = [int((np.diff(files.ends) == 0).sum()) for files in self.masks]
        if lacking := [f"{name} ({count})" for name, count in zip(names, counts, strict=False) if count]:
            log_warning(
                f"Some of the {total} images of split '{self.split}' have no mask of a class, which they then do not show: "
                f"{format_names(lacking)}."
            )

    def _mask(self, index: int) -> np.ndarray:
        return self.classes.read(*(files[index] for files in self.masks))

    def files(self, index: int) -> list[str]:
        """Returns the image and the masks of a sample."""
        return [self.images[index], *filter(None, (files[index] for files in self.masks))]

    def shared_files(self) -> list[str]:
        """Returns the list of pairs, if there is one."""
        return self.lists

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.images)

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8 and mask (H, W) uint8, or (H, W, classes) if classes may overlap."""
        if not self.reads_masks:
            return {"image": read_image(self.images[index], upright=self.exif != "stored")}
        mask = self._mask(index)
        return {"image": self._image_of(index, mask.shape[:2]), "mask": mask}

    def load_annotations(self, index: int) -> RawSample:
        """Returns the mask."""
        return {"mask": self._mask(index)} if self.reads_masks else {}

    def encoded_image(self, index: int) -> EncodedImage:
        """Returns the bytes of the image file, with the size of its mask. Raises InputError if their sizes differ."""
        path, upright = self.images[index], self.exif != "stored"
        data = read_bytes(path, "an image")
        if not self.reads_masks:
            return EncodedImage(data, str(path), upright=upright)
        size = self._mask(index).shape[:2]
        header = read_jpeg_header(data)
        if self.exif is None and header is not None and not header.has_exif and header[:2] == size:
            return EncodedImage(data, str(path), size)
        self._image_of(index, size)  # decodes the image, and raises InputError if it does not fit its mask
        return EncodedImage(data, str(path), None if self.exif else size, upright)

    def _image_of(self, index: int, size: tuple[int, ...]) -> np.ndarray:
        """Returns the image for a mask of `size`, turned as the mask is.

        Raises InputError if their sizes differ, or if EXIF turns the image without changing its
        size, so that it is not known which pixels the mask belongs to.
        """
        path = self.images[index]
        data = read_bytes(path, "an image")
        image = decode_image(path, data, upright=self.exif != "stored")
        if self.exif is None and (orientation := exif_orientation(data)) != 1:
            stored = decode_image(path, data, upright=False)
            if stored.shape == image.shape and stored.shape[:2] == size and (stored != image).any():
                raise InputError(
                    f"Image '{path}' has the EXIF orientation {orientation}, which turns it without changing its size, so that it "
                    f"is not known how its mask lies. Set dataset.exif=upright if masks belong to the turned images, or "
                    f"dataset.exif=stored."
                )
            image = stored if stored.shape[:2] == size else image
        if image.shape[:2] != size:
            faults.report(
                "mask_size",
                f"'{path}' is {image.shape[0]}x{image.shape[1]}, its mask '{self.files(index)[1]}' {size[0]}x{size[1]} "
                f"(height x width); they must have the same size.",
                self.files(index),
            )
        return image


def _undivided(base: Path, pattern: str) -> Path:
    """Returns the folder of a pattern if there are no folders for splits."""
    return resolve_pattern(base, pattern.removesuffix("{split}").rstrip("/"), "")


def _mask_patterns(folders: list[str], suffix: str, names: Sequence[str], multi_label: Layout | None) -> list[MaskPattern]:
    """Returns the patterns of the masks: one, or one for each class. Raises InputError for {class} in masks of several classes."""
    has_class = any(CLASS in pattern for pattern in (*folders, suffix))
    if multi_label != "files":
        if has_class:
            raise InputError(f"{CLASS} in dataset.masks or dataset.mask_suffix is for dataset.multi_label=files: set it.")
        return [(folders, suffix)]
    folders = folders if has_class else [f"{pattern}/{CLASS}" for pattern in folders]
    return [([pattern.replace(CLASS, name) for pattern in folders], suffix.replace(CLASS, name)) for name in names]


def _check_layers(color_map: object, reduce_zero_label: bool) -> None:
    """Raises InputError for options of masks with one class per pixel."""
    for key, given in (("color_map", color_map is not None), ("reduce_zero_label", reduce_zero_label)):
        if given:
            raise InputError(
                f"dataset.{key} is for masks with one class per pixel: leave it out, or leave out dataset.multi_label."
            )


def _occurring(mask: np.ndarray, count: int) -> np.ndarray:
    """Returns which of the classes occur in a mask (H, W), or (H, W, classes) of 0 and 1."""
    if mask.ndim == 3:
        return (mask == 1).any((0, 1))
    return np.bincount(mask.ravel(), minlength=IGNORE_INDEX + 1)[:count] > 0


def _class_names(base: Path, classes: list[str] | str | None, multi_label: Layout | None) -> tuple[str, ...]:
    """Returns the names of the classes.

    Raises InputError if there are fewer than two, or one if classes may overlap, or more than IGNORE_INDEX.
    """
    if classes is None or isinstance(classes, str):
        classes = read_class_names(base / (classes or "classes.txt"))
    if not classes or len(classes) > IGNORE_INDEX or (len(classes) == 1 and multi_label is None):
        hint = " For one class against everything else, set dataset.multi_label=channels." if len(classes) == 1 else ""
        raise InputError(
            f"Segmentation needs two classes or more, and at most {IGNORE_INDEX}; there are {len(classes)}: "
            f"{format_names(classes)}.{hint}"
        )
    return tuple(map(str, classes))
