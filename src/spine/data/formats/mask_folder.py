"""Semantic segmentation from pairs of images and masks, listed in a text file or matched by their names."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.data.image_files import (
    check_images,
    has_images,
    list_images,
    listed,
    need_file,
    need_root,
    read_image,
    report,
    report_unread,
)
from spine.data.masks import ValueMap, is_jpeg, jpeg_refusal, read_mask, to_classes, value_table
from spine.data.splits import Splits, chosen_name, divide, place, report_division, split_folder, undivided
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, Labels

SCANNED = 200  # masks that are read before training to see which classes occur
LEAST = 16  # of these, read even where every class has been seen
SCAN_SECONDS = 5.0
Pair = tuple[Path, Path]  # image, mask


class MaskFolder(DataSet):
    """Masks hold class indices, as they are stored or as `value_map` says; palette, 1-bit and 16-bit images are read by value."""

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
        """`images`, `masks`: folders relative to root. A mask has its image's name without suffix, and `mask_suffix` behind it ("_mask").
        Where no split has a folder, `val_fraction` of the pairs, drawn by `split_seed`, are the validation split.
        `pairs`: a text file of `image mask` lines, relative to root, instead. `splits`: names that replace {split}.
        `classes`: names, or a file of them (one a line, relative to root); None takes root/classes.txt.
        `ignore_index`: stored value or values of unlabelled pixels. `value_map`: stored value -> class, None for ignored; no other value
        may occur then. `reduce_zero_label`: 0 is ignored and 1 the first class.
        """
        base, self.split = need_root(root, "mask_folder"), split
        if pairs:
            self.items = self._listed(base, pairs, chosen_name(split, splits) or split, split)
        else:
            self.items = self._matched(base, (images, masks), split, splits, mask_suffix, val_fraction, split_seed)
        if jpeg := next((mask for _, mask in self.items if is_jpeg(mask)), None):
            raise InputError(jpeg_refusal(jpeg))
        if classes is None or isinstance(classes, str):
            path = need_file(base / (classes or "classes.txt"), "the names of the classes (or give dataset.classes=[...])")
            classes = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if not 2 <= len(classes) <= IGNORE_INDEX:
            raise InputError(
                f"Segmentation needs two classes or more, and at most {IGNORE_INDEX}; {len(classes)} were named: {listed(classes)}."
            )
        self.with_masks = True  # False once `check` has heard that the task reads none
        self.labels = Labels(mask_classes=tuple(map(str, classes)))
        self.table = value_table(
            len(classes), ignore_index=ignore_index, reduce_zero_label=reduce_zero_label, value_map=value_map
        )

    @staticmethod
    def _listed(base: Path, pairs: str, name: str, split: str) -> list[Pair]:
        path = need_file(base / pairs.replace("{split}", name), f"the list of {split} pairs")
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        if bad := [i for i, row in enumerate(rows, 1) if len(row) != 2]:
            raise InputError(f"Line {bad[0]} of '{path}' is not a pair 'image mask'.")
        if not rows:
            raise InputError(f"'{path}' is empty; it should hold one pair 'image mask' a line.")
        found = [(base / image.lstrip("/"), base / mask.lstrip("/")) for image, mask in rows]
        if missing := [file for pair in found for file in pair if not file.is_file()]:
            raise InputError(f"{len(missing)} files that '{path}' lists are missing; the first is '{missing[0]}'.")
        return found

    @staticmethod
    def _matched(
        base: Path, patterns: tuple[str, str], split: str, splits: Splits | None, suffix: str, fraction: float, seed: int
    ) -> list[Pair]:
        whole = [place(base, pattern.removesuffix("{split}").rstrip("/"), "") for pattern in patterns]
        if all(undivided(folder, splits) and has_images(folder) for folder in whole):
            pairs = _pair(whole[0], whole[1], suffix)
            chosen = divide(len(pairs), split, fraction, (seed,))
            if split == "train":
                report_division(whole[0], len(chosen), len(pairs), fraction, seed)
            return [pairs[i] for i in chosen]
        return _pair(
            split_folder(base, patterns[0], split, splits), split_folder(base, patterns[1], split, splits, "masks"), suffix
        )

    def check(self, needs: frozenset[str]) -> None:
        """Reads a few images, and masks until every class has been seen (at most SCANNED, SCAN_SECONDS): InputError for values without
        a class, a report of classes that were not seen.
        """
        report_unread({image.parent for image, _ in self.items}, self.items[0][0].parent)
        check_images([(image, None) for image, _ in self.items])
        self.with_masks = "mask" in needs
        if not self.with_masks:
            return
        seen, read = np.zeros(IGNORE_INDEX + 1, bool), 0
        start, count = time.monotonic(), len(self.labels.mask_classes)
        for index in np.random.default_rng(0).permutation(len(self.items))[:SCANNED]:
            seen[np.unique(self._mask(self.items[index][1]))] = True
            read += 1
            if read >= LEAST and (seen[:count].all() or time.monotonic() - start > SCAN_SECONDS):
                break
        if never := [name for name, found in zip(self.labels.mask_classes, seen, strict=False) if not found]:
            total = len(self.items)
            checked = f"none of the {total} masks" if read == total else f"none of {read} masks that were checked, of {total},"
            report(f"In {checked} of split '{self.split}' is a pixel of class {listed(never)}.")

    def _mask(self, path: Path) -> np.ndarray:
        return to_classes(read_mask(path), self.table, path, len(self.labels.mask_classes))

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.items)

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, mask (H, W) uint8."""
        image_path, mask_path = self.items[index]
        image = read_image(image_path)
        if not self.with_masks:
            return {"image": image}
        mask = self._mask(mask_path)
        if image.shape[:2] != mask.shape and image.shape[:2] == mask.shape[::-1]:
            image = read_image(image_path, mask.shape)  # the mask was drawn on the pixels as stored, not upright by EXIF
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"'{image_path}' is {image.shape[0]}x{image.shape[1]}, its mask '{mask_path}' {mask.shape[0]}x{mask.shape[1]}."
            )
        return {"image": image, "mask": mask}


def _pair(image_folder: Path, mask_folder: Path, suffix: str) -> list[Pair]:
    """The images of one folder with the masks of another (or of the same one, where masks have a suffix)."""
    images, found = list_images(image_folder), {path.stem: path for path in list_images(mask_folder)}
    if suffix and image_folder == mask_folder:
        images = [path for path in images if not path.stem.endswith(suffix)]
    if not images:
        raise InputError(f"Folder '{image_folder}' holds no images.")
    if alone := [path for path in images if path.stem + suffix not in found]:
        stem = alone[0].stem
        behind = {name.removeprefix(stem) for name in found if name.startswith((f"{stem}_", f"{stem}-"))}
        hint = f" Its masks end in '{min(behind)}': set dataset.mask_suffix={min(behind)}." if len(behind) == 1 else ""
        raise InputError(
            f"{len(alone)} of {len(images)} images have no mask in '{mask_folder}'; the first is '{alone[0].name}'.{hint}"
        )
    return [(path, found[path.stem + suffix]) for path in images]
