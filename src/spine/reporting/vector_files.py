"""Writes vectors with their files and labels to an npz or a parquet file."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from spine.errors import InputError

SUFFIXES = (".npz", ".parquet")


def check_vector_file(path: Path) -> None:
    """Creates the folder of a file. Raises InputError if that fails, if the suffix is unknown, or if pyarrow is not installed."""
    if path.suffix not in SUFFIXES:
        raise InputError(f"out is '{path}'; embeddings are written to {' or '.join(SUFFIXES)} files.")
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise InputError(
                "A parquet file needs pyarrow, which is not installed: pip install -e .[embed], or write an npz file."
            ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"The folder '{path.parent}' cannot be created ({error.strerror}). Give another file: out=<file>."
        ) from error


def write_vectors(
    path: Path, vectors: np.ndarray, files: Sequence[str], labels: np.ndarray | None, classes: Sequence[str]
) -> None:
    """Writes vectors (N, D) with a file name and a label each. An existing file is replaced when the new one is complete.

    An npz file has the arrays embeddings (N, D), files (N,), labels (N,) and classes (C,), the names
    of the labels. A parquet file has the columns file, label, class and embedding. If `labels` is
    None, labels and classes are left out.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        (_write_npz if path.suffix == ".npz" else _write_parquet)(part, vectors, files, labels, classes)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise InputError(f"'{path}' cannot be written ({error.strerror or error}).") from error


def _write_npz(path: Path, vectors: np.ndarray, files: Sequence[str], labels: np.ndarray | None, classes: Sequence[str]) -> None:
    arrays = {"embeddings": vectors, "files": np.array(files, str)}
    if labels is not None:
        arrays |= {"labels": labels, "classes": np.array(classes, str)}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _write_parquet(
    path: Path, vectors: np.ndarray, files: Sequence[str], labels: np.ndarray | None, classes: Sequence[str]
) -> None:
    import pyarrow
    import pyarrow.parquet

    columns: dict[str, object] = {"file": pyarrow.array(files, pyarrow.string())}
    if labels is not None:
        columns |= {"label": labels, "class": pyarrow.array([classes[label] for label in labels], pyarrow.string())}
    columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.ravel()), vectors.shape[1])
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
