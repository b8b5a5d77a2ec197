"""Reads the files of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009): an archive as downloaded or its folder, in the Python or the
binary version. The Python version consists of pickles; nothing in them is run."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NoReturn

import numpy as np

from spine.data import faults
from spine.data.memory_images import MemoryImages, is_validation
from spine.errors import InputError

PIXELS = 3 * 32 * 32
VAL_DIVISOR = 10  # the last tenth of the training images of each class is the validation split


@dataclass(frozen=True)
class CIFARFiles:
    """Names of the files of one data set."""

    archive: str  # its name without -python.tar.gz or -binary.tar.gz
    python_folder: str
    binary_folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_keys: tuple[str, ...]  # of the Python version, in the order of the bytes of the binary version


class CIFARImages(MemoryImages):
    """32x32 color images of a CIFAR data set.

    The published files have no validation split. This one is fixed: the last tenth of the training
    images of each class, in the order of the files. The test files are the test split only, so that
    no checkpoint is selected on them.
    """

    def _read(self, split: str, base: Path, files: CIFARFiles, label_key: str) -> None:
        """Reads a split. Raises InputError if its files are missing or hold something else."""
        if split not in ("train", "val", "test"):
            raise InputError(f"The CIFAR data sets have no split '{split}'. Choices: train, val, test.")
        source, binary = _source(base, files)
        names = files.test if split == "test" else files.train
        self.paths = [source] if source.is_file() else [source / _file_name(name, binary) for name in names]
        parts = [(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64))]
        for name, data in _contents(source, [_file_name(name, binary) for name in names]).items():
            path = f"{source}/{name}"
            images, targets = _read_binary(path, data, files, label_key) if binary else _read_python(path, data, label_key)
            parts.append(self.known_labels(images, targets, path))
        self.images = np.concatenate([images for images, _ in parts])
        self.targets = np.concatenate([targets for _, targets in parts])
        if split != "test":
            chosen = is_validation(self.targets, VAL_DIVISOR) == (split == "val")
            self.images, self.targets = self.images[chosen], self.targets[chosen]
        if not len(self.images):
            raise InputError(f"'{source}' has no {split} images; validation needs {VAL_DIVISOR} training images of a class.")


def _file_name(name: str, binary: bool) -> str:
    return f"{name}.bin" if binary else name


def _source(base: Path, files: CIFARFiles) -> tuple[Path, bool]:
    """Returns a folder or an archive, and whether its files are of the binary version."""
    for binary, folder in ((False, files.python_folder), (True, files.binary_folder)):
        first = _file_name(files.test[0], binary)
        for candidate in (base, base / folder):
            if (candidate / first).is_file():
                return candidate, binary
        archive = base / f"{files.archive}-{'binary' if binary else 'python'}.tar.gz"
        if archive.is_file():
            return archive, binary
    raise InputError(
        f"'{base}' has none of {files.archive}-python.tar.gz, {files.python_folder}, {files.archive}-binary.tar.gz and "
        f"{files.binary_folder}."
    )


def _contents(source: Path, names: Sequence[str]) -> Mapping[str, bytes]:
    """Returns the bytes of files in a folder or an archive, by name. Raises InputError if one is missing."""
    found: dict[str, bytes] = {}
    try:
        if source.is_dir():
            found = {name: (source / name).read_bytes() for name in names if (source / name).is_file()}
        else:
            with tarfile.open(source) as archive:  # nothing is extracted to disk
                for member in archive:
                    name = member.name.rsplit("/", 1)[-1]
                    content = archive.extractfile(member) if name in names and member.isfile() else None
                    if content is not None:
                        found[name] = content.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise InputError(f"'{source}' cannot be read ({error}); it may be truncated. Download it again.") from error
    for name in names:
        if name not in found:
            faults.report("missing_file", f"'{source}' has no file '{name}'.", [source / name])
    return {name: found[name] for name in names if name in found}


def _read_binary(path: str, data: bytes, files: CIFARFiles, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 32, 32, 3) uint8 and labels (N,) int64."""
    size = len(files.label_keys) + PIXELS
    if not data or len(data) % size:
        message = f"'{path}' has {len(data)} bytes, which is no multiple of the {size} of an image; it is truncated."
        faults.report("file_size", message, [path])
    rows = np.frombuffer(data, np.uint8, len(data) // size * size).reshape(-1, size)  # the doctor goes on with whole images
    return _to_images(rows[:, -PIXELS:]), rows[:, files.label_keys.index(label_key)].astype(np.int64)


def _read_python(path: str, data: bytes, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 32, 32, 3) uint8 and labels (N,) int64. A file that cannot be read is a fault; the doctor goes on without it."""
    try:
        return _read_batch(path, data, label_key)
    except InputError as error:
        if not faults.is_collecting():
            raise
        faults.report("unreadable", str(error), [path])
        return np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, np.int64)


def _read_batch(path: str, data: bytes, label_key: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns images (N, 32, 32, 3) uint8 and labels (N,) int64 of a pickle. Raises InputError if it holds something else."""
    content = read_plain_pickle(path, data)
    if isinstance(content, dict):
        content = {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in content.items()}
    pixels = content.get("data") if isinstance(content, dict) else None
    labels = content.get(label_key) if isinstance(content, dict) else None
    rows = pixels.to_numpy(path) if isinstance(pixels, _Array) else None
    whole = isinstance(labels, list) and all(isinstance(label, int) for label in labels)
    if rows is None or rows.ndim != 2 or rows.shape[1] != PIXELS or not isinstance(labels, list) or not whole:
        raise InputError(f"'{path}' does not hold images (N, {PIXELS}) and a list '{label_key}'; it is no file of this data set.")
    count = min(len(rows), len(labels))
    if len(labels) != len(rows):
        faults.report("label_count", f"'{path}' has {len(rows)} images but {len(labels)} labels.", [path])
    return _to_images(rows[:count]), np.array(labels[:count], np.int64)


def _to_images(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


# ---- pickles ---------------------------------------------------------------------------------------------------------


class _Type:
    """Takes the place of a numpy dtype: keeps its name."""

    def __init__(self, name: object = "", *_: object):
        self.name = name.decode("latin1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Ignores the byte order, which single bytes do not have."""


class _Array:
    """Takes the place of a numpy array: keeps its shape, type and bytes."""

    state: tuple[object, ...] = ()

    def __setstate__(self, state: object) -> None:
        self.state = state if isinstance(state, tuple) else ()

    def to_numpy(self, path: str) -> np.ndarray:
        """Returns the array (...) uint8. Raises InputError if it holds anything but bytes."""
        match self.state:
            case (_, tuple(shape), _Type(name="u1"), False | 0, bytes(data)) if all(isinstance(n, int) and n >= 0 for n in shape):
                if int(np.prod(shape)) == len(data):
                    return np.frombuffer(data, np.uint8).reshape(shape)
        raise InputError(f"'{path}' holds an array of another type than bytes, or a damaged one.")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Stands for the function that pickles of Python 3 name to store bytes as text."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("text in an unknown encoding")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Creates numbers, text, bytes, lists, dictionaries and records of arrays. Every other object ends the reading."""

    ALLOWED: ClassVar[Mapping[tuple[str, str], Callable]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> object:
        """Returns what stands for a name in the file."""
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is no part of this data set")
        found = self.ALLOWED[module, name]
        if isinstance(found, type):
            return found
        return lambda *arguments: found(*arguments)  # a new function, since a pickle can set attributes of what it names

    def persistent_load(self, pid: object) -> NoReturn:
        """Refuses references to objects outside of the file."""
        raise pickle.UnpicklingError("it refers to an object outside of the file")


def read_plain_pickle(path: str, data: bytes) -> object:
    """Returns the object in a pickle without running anything in it. Raises InputError if it holds more than arrays and plain values."""
    try:
        return _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises nearly everything
        raise InputError(f"'{path}' is not read: {error or type(error).__name__}. Nothing in it was run.") from error
