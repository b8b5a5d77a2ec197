"""Finds the pairs of images and masks of a split: by name in two folders, or from a list."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from spine.data import faults
from spine.data.image_files import IMAGE_SUFFIXES, image_names, is_hidden, log_warning, need_file, read_text_lines
from spine.errors import InputError

Pair = tuple[str, tuple[str, ...]]  # paths of an image and its masks: one, or one for each class ("": it does not occur)


class MaskPlace(NamedTuple):
    """Where masks are. A mask is in the first of the folders that has it."""

    folders: list[Path]
    suffix: str = ""  # follows the name of the image in the names of the files: `_gtFine_labelIds` of Cityscapes

    def files(self) -> dict[str, str]:
        """Returns the paths by the names of the images."""
        found: dict[str, str] = {}
        for folder in reversed(self.folders):
            found.update(named_files(folder, self.suffix))
        return found


def pair_by_name(
    images: Path, suffix: str, masks: Sequence[MaskPlace], names: Sequence[str] | None = None, source: Path | None = None
) -> list[Pair]:
    """Matches the images of a folder with masks by name.

    `suffix`: of the names of image files: `_leftImg8bit` of Cityscapes. `masks`: one place, or one for each class; an image may
    lack the masks of some classes. Images and masks in the same folder need a mask suffix. `names`: those of a list, `source`; by
    default all images, sorted. Raises InputError if an image has no mask at all, or if a listed one is missing; with
    dataset.on_error=skip only if all are, and the pairs then have the paths where these files should be.
    """
    named = named_files(images, suffix)
    if of_masks := tuple(place.suffix for place in masks if place.suffix and images in place.folders):
        named = [(name, path) for name, path in named if not name.endswith(of_masks)]
    if not named:
        raise InputError(f"Folder '{images}' has no images{_described(suffix)}.")
    if names is not None:
        by_name = dict(named)
        if missing := [name for name in names if name not in by_name]:
            message = (
                f"{len(missing)} of {len(names)} names in the list '{source}' have no image{_described(suffix)} in "
                f"'{images}'; the first is '{missing[0]}'."
            )
            if _are_left(missing, names, message):
                by_name |= {name: _expected(images, name, suffix, named[0][1]) for name in missing}
            else:
                faults.report("missing_file", message, [images / name for name in missing])
        named = [(name, by_name[name]) for name in names if name in by_name]
    found = [place.files() for place in masks]
    if unpaired := [(name, path) for name, path in named if not any(name in files for files in found)]:
        name, path = unpaired[0]
        every = [folder for place in masks for folder in place.folders]
        folders = "' or '".join(map(str, dict.fromkeys(every)))
        message = (
            f"{len(unpaired)} of {len(named)} images have no mask{_described(masks[0].suffix)} in '{folders}'; the first is "
            f"'{os.path.basename(path)}'.{_suffix_hint(name, every)}"
        )
        if _are_left(unpaired, named, message):
            example = next(path for files in found for path in files.values())
            found[0] |= {name: _expected(masks[0].folders[0], name, masks[0].suffix, example) for name, _ in unpaired}
        else:
            faults.report("image_without_mask", message, [path for _, path in unpaired])
        named = [(name, path) for name, path in named if any(name in files for files in found)]
        if not named:
            raise InputError(f"No image in '{images}' has a mask in '{folders}'.")
    if names is None and faults.is_collecting():
        known = {name for name, _ in named}
        if alone := sorted(path for files in found for name, path in files.items() if name not in known):
            faults.report("mask_without_image", f"{len(alone)} masks have no image in '{images}'.", alone)
    return [(path, tuple(files.get(name, "") for files in found)) for name, path in named]


def _are_left(missing: Sequence[object], every: Sequence[object], message: str) -> bool:
    """Whether missing files are left to the samples, which are then skipped. Logs a warning if they are."""
    if not faults.leaves_missing_files() or len(missing) == len(every):  # if all are missing, the folder is wrong
        return False
    log_warning(f"{message} They count as unreadable files (dataset.on_error=skip).")
    return True


def _expected(folder: Path, name: str, suffix: str, example: str) -> str:
    """Returns where a missing file should be. `example`: another file in the folder."""
    return os.path.join(folder, f"{name}{suffix}{os.path.splitext(example)[1]}")


def named_files(folder: Path, suffix: str = "") -> list[tuple[str, str]]:
    """Returns name and path of the image files of a folder whose names end in `suffix`, sorted.

    A name is the path in the folder without the suffix. If a folder has no image files itself, those
    in its subfolders are listed (Cityscapes has one for each city).
    """
    found = _named_in(folder, "", suffix)
    if found or image_names(folder):
        return found
    for path, subfolders, _ in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
        if path != str(folder):
            found += _named_in(folder, os.path.relpath(path, folder), suffix)
    return found


def _named_in(folder: Path, subfolder: str, suffix: str) -> list[tuple[str, str]]:
    path = os.path.join(folder, subfolder)
    stems = [(os.path.splitext(name)[0], name) for name in image_names(path)]
    return [
        (os.path.join(subfolder, stem.removesuffix(suffix)), os.path.join(path, name))
        for stem, name in stems
        if stem.endswith(suffix)
    ]


def _described(suffix: str) -> str:
    return f" with a name that ends in '{suffix}'" if suffix else ""


def _suffix_hint(name: str, masks: Sequence[Path]) -> str:
    """A hint for dataset.mask_suffix if the masks of an image have its name and exactly one suffix."""
    every = [other for folder in masks for other, _ in named_files(folder)]
    suffixes = {other.removeprefix(name) for other in every if other.startswith((f"{name}_", f"{name}-"))}
    return f" Its masks end in '{min(suffixes)}': set dataset.mask_suffix={min(suffixes)}." if len(suffixes) == 1 else ""


def list_file(base: Path, pattern: str, name: str) -> Path:
    """Returns the list of a split: `name` replaces {split}. A folder has the file <name>.txt for each split."""
    path = base / pattern.replace("{split}", name)
    return path / f"{name}.txt" if path.is_dir() else path


def read_list(path: Path, split: str) -> list[list[str]]:
    """Returns the lines of a list: each has `image mask`, two paths, or each has one name.

    Raises InputError if the file is missing, empty or not text, or if a line has another number of words than the first one.
    """
    path = need_file(path, f"the list of {split} pairs")
    rows = [line.split() for line in read_text_lines(path)]
    if not rows:
        raise InputError(f"'{path}' is empty; it should have one pair 'image mask', or one name, per line.")
    width = min(2, len(rows[0]))
    if invalid := [i for i, row in enumerate(rows, 1) if len(row) != width]:
        expected = "a pair 'image mask'" if width == 2 else "one name, as the first line is"
        raise InputError(f"Line {invalid[0]} of '{path}' is not {expected}.")
    return rows


def listed_pairs(base: Path, rows: Sequence[Sequence[str]], source: Path) -> list[Pair]:
    """Returns the pairs of a list, whose paths are relative to `base`.

    Raises InputError if a file is missing; with dataset.on_error=skip only if each pair lacks one.
    """
    pairs = [(str(base / image.lstrip("/")), str(base / mask.lstrip("/"))) for image, mask in rows]
    if missing := [file for pair in pairs for file in pair if not os.path.isfile(file)]:
        message = f"{len(missing)} files in the list '{source}' are missing; the first is '{missing[0]}'."
        absent = set(missing)
        whole = [pair for pair in pairs if absent.isdisjoint(pair)]
        if not _are_left(range(len(pairs) - len(whole)), pairs, message):
            faults.report("missing_file", message, missing)
            pairs = whole
    return [(image, (mask,)) for image, mask in pairs]


def listed_names(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the names of a list. The suffix of an image file, such as .jpg, is not part of a name."""
    stems = [os.path.splitext(name) for (name,) in rows]
    return [stem if suffix.lower() in IMAGE_SUFFIXES else stem + suffix for stem, suffix in stems]
