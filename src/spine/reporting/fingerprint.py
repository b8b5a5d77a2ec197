"""Fingerprints of data and files, which show whether a run is repeated with the same ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from spine.interfaces import DataSet

MAX_SAMPLES = 20_000  # whose files are looked up; a larger split is covered by evenly spaced samples


def fingerprint(data: DataSet, options: Mapping[str, object], root: str | None) -> str:
    """Returns a hash (64 hexadecimal digits) of one split of a data set.

    It covers the class of the data set, its `options`, the number of samples, the labels, the
    content of files that all samples share, such as annotations, and the names relative to `root`
    and sizes of the files of at most MAX_SAMPLES evenly spaced samples. It does not cover the
    content of images and masks: an image that is replaced by one of the same size is not noticed.
    Rendered data sets have no files; their options determine the images.
    """
    digest = hashlib.sha256(type(data).__qualname__.encode())
    digest.update(json.dumps(options, sort_keys=True, default=str).encode())
    digest.update(json.dumps([len(data), dataclasses.asdict(data.labels)]).encode())
    base = os.path.abspath(root) if root is not None else os.sep
    for file in data.shared_files():
        digest.update(f"{_relative(file, base)} {file_sha256(file)}\n".encode())
    for index in np.linspace(0, len(data) - 1, min(len(data), MAX_SAMPLES)).round().astype(int).tolist():
        for file in data.files(index):
            digest.update(f"{_relative(file, base)} {_size(file)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: str | Path) -> str:
    """Returns the SHA-256 of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _relative(file: str, base: str) -> str:
    return os.path.relpath(os.path.abspath(file), base)


def _size(file: str) -> int:
    try:
        return os.path.getsize(file)
    except OSError:  # reported when the sample is read
        return -1
