"""Semantic segmentation from pairs of images and masks, listed in a text file or matched by name."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from spine.data.image_files import (
    PackedNames,
    check_images,
    exif_orientation,
    format_names,
    has_images,
    log_warning,
    need_root,
    read_class_names,
    read_image,
    warn_of_unreadable_files,
)
from spine.data.mask_classes import Color, ColorMap, LabelMap, MaskClasses
from spine.data.mask_pairs import NameSuffixes, Pair, list_file, listed_names, listed_pairs, pair_by_name, read_list
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
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, Labels, RawSample

MAX_SCANNED = 200  # masks that are read before training to see which classes occur
MIN_SCANNED = 16  # of these, read with their images even if every class has occurred
SCAN_SECONDS = 5.0


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
        `ignore_index`: stored value or values of unlabeled pixels. `label_map`: stored value ->
        index or name of a class, None for ignored; other values are then errors. `reduce_zero_label`:
        0 is ignored and 1 is the first class.
        `color_map`: for masks that store colors: class -> color or list of colors, and `ignored` ->
        those of unlabeled pixels; "palette": the colors of `palette`.
        `exif`: whether masks belong to the "upright" image, turned by its EXIF orientation, or to the
        "stored" pixels. None: whichever has the size of the mask.
        """
        base, self.split, self.exif = need_root(root, "mask_folder"), split, exif
        suffixes, folders = NameSuffixes(image_suffix, mask_suffix), [masks] if isinstance(masks, str) else masks
        self.lists: list[str] = []  # the file of pairs, if there is one
        if pairs:
            items = self._listed_pairs(base, pairs, (images, folders), splits, suffixes)
        else:
            items = self._match_pairs(base, (images, folders), splits, suffixes, val_fraction, split_seed)
        if jpeg := next((mask for _, mask in items if is_jpeg(mask)), None):
            raise InputError(jpeg_message(jpeg))
        self.images, self.masks = PackedNames(image for image, _ in items), PackedNames(mask for _, mask in items)
        self.reads_masks = True  # False if `check` is called for a task that does not need them
        self.classes = MaskClasses(
            _class_names(base, classes),
            ignore_index=ignore_index,
            reduce_zero_label=reduce_zero_label,
            label_map=label_map,
            color_map=color_map,
            palette=palette,
        )
        self.labels = Labels(mask_classes=self.classes.names, palette=self.classes.palette)

    def _listed_pairs(
        self, base: Path, pairs: str, patterns: tuple[str, list[str]], splits: Splits | None, suffixes: NameSuffixes
    ) -> list[Pair]:
        """Returns the pairs of the list of the split. `patterns`: of the image folder and the mask folders."""
        source = list_file(base, pairs, configured_name(self.split, splits) or self.split)
        rows = read_list(source, self.split)
        self.lists = [str(source)]
        if len(rows[0]) == 2:
            return listed_pairs(base, rows, source)
        return pair_by_name(*self._folders(base, patterns, splits), suffixes, listed_names(rows), source)

    def _match_pairs(
        self,
        base: Path,
        patterns: tuple[str, list[str]],
        splits: Splits | None,
        suffixes: NameSuffixes,
        fraction: float,
        seed: int,
    ) -> list[Pair]:
        """Returns the pairs of the split by name. `patterns`: of the image folder and the mask folders."""
        images, *masks = (
            resolve_pattern(base, pattern.removesuffix("{split}").rstrip("/"), "") for pattern in (patterns[0], *patterns[1])
        )
        if all(has_no_splits(folder, splits) and has_images(folder) for folder in (images, *masks)):
            pairs = pair_by_name(images, masks, suffixes)
            chosen = divide(len(pairs), self.split, fraction, (seed,))
            if self.split == "train":
                warn_of_division(images, len(chosen), len(pairs), fraction, seed)
            return [pairs[i] for i in chosen]
        return pair_by_name(*self._folders(base, patterns, splits), suffixes)

    def _folders(self, base: Path, patterns: tuple[str, list[str]], splits: Splits | None) -> tuple[Path, list[Path]]:
        """Returns the image folder and the mask folders of the split. Raises InputError if one does not exist."""
        images = split_folder(base, patterns[0], self.split, splits)
        return images, [split_folder(base, pattern, self.split, splits, "masks") for pattern in patterns[1]]

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images and masks.

        Masks are read until every class has occurred, at most MAX_SCANNED masks or for
        SCAN_SECONDS, the first MIN_SCANNED with their images. Raises InputError for stored values
        without a class, and for an image and a mask that do not fit. Logs a warning about classes
        that did not occur.
        """
        images = [self.images[i] for i in range(len(self))]
        warn_of_unreadable_files({os.path.dirname(image) for image in images}, os.path.dirname(images[0]))
        check_images([(image, None) for image in images])
        self.reads_masks = "mask" in needs
        if self.reads_masks:
            self._check_masks()

    def _check_masks(self) -> None:
        occurred, num_read = np.zeros(IGNORE_INDEX + 1, bool), 0
        start, num_classes = time.monotonic(), len(self.labels.mask_classes)
        for index in np.random.default_rng(0).permutation(len(self))[:MAX_SCANNED].tolist():
            mask = self.load(index)["mask"] if num_read < MIN_SCANNED else self.classes.read(self.masks[index])
            occurred[np.unique(mask)] = True
            num_read += 1
            if num_read >= MIN_SCANNED and (occurred[:num_classes].all() or time.monotonic() - start > SCAN_SECONDS):
                break
        if missing := [name for name, seen in zip(self.labels.mask_classes, occurred, strict=False) if not seen]:
            total = len(self)
            scanned = f"any of the {total} masks" if num_read == total else f"any of {num_read} checked masks, of {total},"
            log_warning(f"There is no pixel of class {format_names(missing)} in {scanned} of split '{self.split}'.")

    def files(self, index: int) -> list[str]:
        """Returns the image and the mask of a sample."""
        return [self.images[index], self.masks[index]]

    def shared_files(self) -> list[str]:
        """Returns the list of pairs, if there is one."""
        return self.lists

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.images)

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8 and mask (H, W) uint8."""
        if not self.reads_masks:
            return {"image": read_image(self.images[index], upright=self.exif != "stored")}
        mask = self.classes.read(self.masks[index])
        return {"image": self._image_of(index, mask), "mask": mask}

    def _image_of(self, index: int, mask: np.ndarray) -> np.ndarray:
        """Returns the image for a mask, turned as the mask is.

        Raises InputError if their sizes differ, or if EXIF turns the image without changing its
        size, so that it is not known which pixels the mask belongs to.
        """
        path = self.images[index]
        image = read_image(path, upright=self.exif != "stored")
        if self.exif is None and (orientation := exif_orientation(path)) != 1:
            stored = read_image(path, upright=False)
            if stored.shape == image.shape and stored.shape[:2] == mask.shape and (stored != image).any():
                raise InputError(
                    f"Image '{path}' has the EXIF orientation {orientation}, which turns it without changing its size, so that it "
                    f"is not known how its mask lies. Set dataset.exif=upright if masks belong to the turned images, or "
                    f"dataset.exif=stored."
                )
            image = stored if stored.shape[:2] == mask.shape else image
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"'{path}' is {image.shape[0]}x{image.shape[1]}, its mask '{self.masks[index]}' {mask.shape[0]}x{mask.shape[1]} "
                f"(height x width); they must have the same size."
            )
        return image


def _class_names(base: Path, classes: list[str] | str | None) -> tuple[str, ...]:
    """Returns the names of the classes.

    Raises InputError if there are fewer than two or more than IGNORE_INDEX.
    """
    if classes is None or isinstance(classes, str):
        classes = read_class_names(base / (classes or "classes.txt"))
    if not 2 <= len(classes) <= IGNORE_INDEX:
        raise InputError(
            f"Segmentation needs two classes or more, and at most {IGNORE_INDEX}; there are {len(classes)}: {format_names(classes)}."
        )
    return tuple(map(str, classes))
