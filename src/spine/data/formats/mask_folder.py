"""Semantic segmentation from pairs of images and masks, listed in a text file or matched by name."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.image_files import (
    check_images,
    format_names,
    has_images,
    list_images,
    log_warning,
    need_file,
    need_root,
    read_class_names,
    read_image,
    warn_of_unreadable_files,
)
from spine.data.masks import ValueMap, is_jpeg, jpeg_message, read_mask, to_classes, value_table
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
MIN_SCANNED = 16  # of these, read even if every class has occurred
SCAN_SECONDS = 5.0
Pair = tuple[Path, Path]  # image, mask


class MaskFolder(DataSet):
    """Pairs of images and masks.

    Masks store class indices, or values that `value_map` maps to them.

    Palette, 1-bit and 16-bit masks are read by their stored values.
    """

    provides: ClassVar[frozenset[str]] = frozenset({"image", "mask"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        pairs: str | None = None,
        mask_suffix: str = "",
        classes: list[str] | str | None = None,
        ignore_index: int | Sequence[int] | None = None,
        reduce_zero_label: bool = False,
        value_map: ValueMap | None = None,
        splits: Splits | None = None,
        val_fraction: float = 0.2,
        split_seed: int = 0,
    ):
        """`images`, `masks`: folders relative to root. A mask has the name of its image without
        suffix, followed by `mask_suffix` ("_mask"). If there is no folder for any split,
        `val_fraction` of the pairs, drawn with `split_seed`, are the validation split.
        `pairs`: instead, a text file relative to root with one line `image mask` per pair.
        `splits`: names that replace {split}.
        `classes`: names, or a file relative to root with one name per line; None reads
        root/classes.txt.
        `ignore_index`: stored value or values of unlabeled pixels. `value_map`: stored value ->
        class, None for ignored; other values are then errors. `reduce_zero_label`: 0 is ignored and
        1 is the first class.
        """
        base, self.split = need_root(root, "mask_folder"), split
        if pairs:
            self.items = _read_pairs(base, pairs, configured_name(split, splits) or split, split)
        else:
            self.items = self._match_pairs(base, (images, masks), splits, mask_suffix, val_fraction, split_seed)
        if jpeg := next((mask for _, mask in self.items if is_jpeg(mask)), None):
            raise InputError(jpeg_message(jpeg))
        names = _class_names(base, classes)
        self.reads_masks = True  # False if `check` is called for a task that does not need them
        self.labels = Labels(mask_classes=names)
        self.table = value_table(len(names), ignore_index=ignore_index, reduce_zero_label=reduce_zero_label, value_map=value_map)

    def _match_pairs(
        self, base: Path, patterns: tuple[str, str], splits: Splits | None, suffix: str, fraction: float, seed: int
    ) -> list[Pair]:
        """Returns the pairs of the split. `patterns`: of the image folder and the mask folder."""
        image_folder, mask_folder = (
            resolve_pattern(base, pattern.removesuffix("{split}").rstrip("/"), "") for pattern in patterns
        )
        if all(has_no_splits(folder, splits) and has_images(folder) for folder in (image_folder, mask_folder)):
            pairs = _pair_by_name(image_folder, mask_folder, suffix)
            chosen = divide(len(pairs), self.split, fraction, (seed,))
            if self.split == "train":
                warn_of_division(image_folder, len(chosen), len(pairs), fraction, seed)
            return [pairs[i] for i in chosen]
        return _pair_by_name(
            split_folder(base, patterns[0], self.split, splits),
            split_folder(base, patterns[1], self.split, splits, "masks"),
            suffix,
        )

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images and masks.

        Masks are read until every class has occurred, at most MAX_SCANNED masks or for
        SCAN_SECONDS. Raises InputError for stored values without a class. Logs a warning
        about classes that did not occur.
        """
        warn_of_unreadable_files({image.parent for image, _ in self.items}, self.items[0][0].parent)
        check_images([(image, None) for image, _ in self.items])
        self.reads_masks = "mask" in needs
        if self.reads_masks:
            self._check_masks()

    def _check_masks(self) -> None:
        occurred, num_read = np.zeros(IGNORE_INDEX + 1, bool), 0
        start, num_classes = time.monotonic(), len(self.labels.mask_classes)
        for index in np.random.default_rng(0).permutation(len(self.items))[:MAX_SCANNED]:
            occurred[np.unique(self._load_mask(self.items[index][1]))] = True
            num_read += 1
            if num_read >= MIN_SCANNED and (occurred[:num_classes].all() or time.monotonic() - start > SCAN_SECONDS):
                break
        if missing := [name for name, seen in zip(self.labels.mask_classes, occurred, strict=False) if not seen]:
            total = len(self.items)
            scanned = f"any of the {total} masks" if num_read == total else f"any of {num_read} checked masks, of {total},"
            log_warning(f"There is no pixel of class {format_names(missing)} in {scanned} of split '{self.split}'.")

    def _load_mask(self, path: Path) -> np.ndarray:
        return to_classes(read_mask(path), self.table, path, len(self.labels.mask_classes))

    def files(self, index: int) -> list[str]:
        """Returns the image and the mask of a sample."""
        return [str(path) for path in self.items[index]]

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.items)

    def load(self, index: int) -> RawSample:
        """Returns image (H, W, 3) uint8 and mask (H, W) uint8."""
        image_path, mask_path = self.items[index]
        image = read_image(image_path)
        if not self.reads_masks:
            return {"image": image}
        mask = self._load_mask(mask_path)
        if image.shape[:2] != mask.shape and image.shape[:2] == mask.shape[::-1]:
            image = read_image(image_path, mask.shape)  # the mask was drawn on the stored pixels, without the EXIF rotation
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"'{image_path}' is {image.shape[0]}x{image.shape[1]}, its mask '{mask_path}' {mask.shape[0]}x{mask.shape[1]}."
            )
        return {"image": image, "mask": mask}


def _read_pairs(base: Path, pairs: str, name: str, split: str) -> list[Pair]:
    """Reads the pairs of a text file; `name` replaces {split} in its path."""
    path = need_file(base / pairs.replace("{split}", name), f"the list of {split} pairs")
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if invalid := [i for i, row in enumerate(rows, 1) if len(row) != 2]:
        raise InputError(f"Line {invalid[0]} of '{path}' is not a pair 'image mask'.")
    if not rows:
        raise InputError(f"'{path}' is empty; it should have one pair 'image mask' per line.")
    items = [(base / image.lstrip("/"), base / mask.lstrip("/")) for image, mask in rows]
    if missing := [file for pair in items for file in pair if not file.is_file()]:
        raise InputError(f"{len(missing)} files in the list '{path}' are missing; the first is '{missing[0]}'.")
    return items


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


def _pair_by_name(image_folder: Path, mask_folder: Path, suffix: str) -> list[Pair]:
    """Matches the images of a folder with masks by name.

    Masks are in another folder, or in the same folder if they have a suffix.
    """
    images, masks = list_images(image_folder), {path.stem: path for path in list_images(mask_folder)}
    if suffix and image_folder == mask_folder:
        images = [path for path in images if not path.stem.endswith(suffix)]
    if not images:
        raise InputError(f"Folder '{image_folder}' has no images.")
    if unpaired := [path for path in images if path.stem + suffix not in masks]:
        stem = unpaired[0].stem
        suffixes = {name.removeprefix(stem) for name in masks if name.startswith((f"{stem}_", f"{stem}-"))}
        hint = f" Its masks end in '{min(suffixes)}': set dataset.mask_suffix={min(suffixes)}." if len(suffixes) == 1 else ""
        raise InputError(
            f"{len(unpaired)} of {len(images)} images have no mask in '{mask_folder}'; the first is '{unpaired[0].name}'.{hint}"
        )
    return [(path, masks[path.stem + suffix]) for path in images]
