"""Semantic segmentation from pairs of pictures and masks, listed in a text file or matched by their names."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from spine.datasets.files import list_images, need_file, need_folder, need_root, read_image, read_mask
from spine.errors import InputError
from spine.interfaces import IGNORE_INDEX, DataSet, Labels


class MaskFolder(DataSet):
    """Masks are 8-bit class indices; `ignore_index` and 255 count nowhere; `reduce_zero_label` makes 0 ignored and 1 the first class."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "mask"})

    def __init__(
        self,
        split: str,
        *,
        root: str | None,
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        pairs: str | None = None,
        classes: list[str] | str | None = None,
        ignore_index: int | None = None,
        reduce_zero_label: bool = False,
    ):
        """`pairs`: a text file of `image mask` lines, relative to root; None matches the stems of the two folders.

        `classes`: names, or a file of them (one a line, relative to root); None takes root/classes.txt.
        """
        base = need_root(root, "mask_folder")
        self.items = self._listed(base, pairs, split) if pairs else self._matched(base, images, masks, split)
        if classes is None or isinstance(classes, str):
            path = need_file(base / (classes or "classes.txt"), "the names of the classes (or give dataset.classes=[...])")
            classes = [line.strip() for line in path.read_text().splitlines() if line.strip()]
        if len(classes) < 2:
            raise InputError(f"Segmentation needs two classes or more; {len(classes)} were named: {classes}.")
        self.labels = Labels(mask_classes=tuple(classes))
        self.lookup, self.allowed = self._lookup(len(classes), ignore_index, reduce_zero_label)

    @staticmethod
    def _listed(base: Path, pairs: str, split: str) -> list[tuple[Path, Path]]:
        path = need_file(base / pairs.format(split=split), f"the list of {split} pairs")
        rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
        if bad := [i for i, row in enumerate(rows, 1) if len(row) != 2]:
            raise InputError(f"Line {bad[0]} of '{path}' is not a pair 'image mask'.")
        if not rows:
            raise InputError(f"'{path}' is empty; it should hold one pair 'image mask' a line.")
        return [(base / image.lstrip("/"), base / mask.lstrip("/")) for image, mask in rows]

    @staticmethod
    def _matched(base: Path, images: str, masks: str, split: str) -> list[tuple[Path, Path]]:
        image_folder = need_folder(base / images.format(split=split), f"the {split} images")
        mask_folder = need_folder(base / masks.format(split=split), f"the {split} masks")
        found = {path.stem: path for path in list_images(mask_folder)}
        pictures = list_images(image_folder)
        if not pictures:
            raise InputError(f"Folder '{image_folder}' holds no pictures.")
        if alone := [path.name for path in pictures if path.stem not in found]:
            raise InputError(
                f"{len(alone)} of {len(pictures)} pictures have no mask in '{mask_folder}'; the first is '{alone[0]}'."
            )
        return [(path, found[path.stem]) for path in pictures]

    @staticmethod
    def _lookup(count: int, ignore_index: int | None, reduce_zero_label: bool) -> tuple[np.ndarray, np.ndarray]:
        """Tables over the 256 stored values: the class that each becomes, and whether it may stand in a file."""
        lookup = np.full(256, IGNORE_INDEX, np.uint8)
        first = 1 if reduce_zero_label else 0
        lookup[first : first + count] = np.arange(count)
        allowed = lookup != IGNORE_INDEX
        allowed[[0, IGNORE_INDEX] if reduce_zero_label else [IGNORE_INDEX]] = True
        if ignore_index is not None:
            lookup[ignore_index], allowed[ignore_index] = IGNORE_INDEX, True
        return lookup, allowed

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.items)

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, mask (H, W) uint8."""
        image_path, mask_path = self.items[index]
        image, mask = read_image(image_path), read_mask(mask_path)
        if image.shape[:2] != mask.shape:
            raise InputError(
                f"'{image_path}' is {image.shape[0]}x{image.shape[1]}, its mask '{mask_path}' {mask.shape[0]}x{mask.shape[1]}."
            )
        bad = ~self.allowed[mask]
        if bad.any():
            count = len(self.labels.mask_classes)
            raise InputError(
                f"Mask '{mask_path}' holds the value {int(mask[bad][0])}, which none of the {count} classes has. "
                f"Name every class, or set dataset.ignore_index to the value that means 'unlabelled'."
            )
        return {"image": image, "mask": self.lookup[mask]}
