"""CIFAR and MNIST files: every version that is published, and pickles that would run code."""

import gzip
import io
import pickle
import struct
import tarfile

import numpy as np
import pytest
from test_datasets import idx, write_fashion

from spine.data.cifar_files import read_plain_pickle
from spine.data.formats.cifar10 import CIFAR10
from spine.data.formats.cifar100 import CIFAR100
from spine.data.formats.mnist import MNIST
from spine.errors import InputError

PER_BATCH = 20  # two images of each class


def rows(batch):
    return np.random.default_rng(batch).integers(0, 256, (PER_BATCH, 3072), np.uint8)


def labels(batch, count=10):
    return np.random.default_rng(batch + 100).permutation(np.arange(PER_BATCH) % count).tolist()


def python2_pickle(content):
    """A pickle as Python 2 wrote the published files: text is bytes, and numpy's array has its old module name."""

    def item(value):
        match value:
            case bytes():
                return b"T" + struct.pack("<I", len(value)) + value
            case int():
                return b"J" + struct.pack("<i", value)
            case list():
                return b"](" + b"".join(map(item, value)) + b"e"
            case np.ndarray():
                kind = b"cnumpy\ndtype\n(" + item(b"u1") + b"K\x00K\x01tR(K\x03" + item(b"|")
                kind += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
                made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + item(b"b") + b"tR"
                shape = b"(" + b"".join(map(item, value.shape)) + b"t"
                return made + b"(K\x01" + shape + kind + b"\x89" + item(value.tobytes()) + b"tb"
        raise TypeError(value)

    return b"\x80\x02}(" + b"".join(item(key) + item(value) for key, value in content.items()) + b"u."


def python_files(version, keys):
    """Bytes of a batch of the Python version."""

    def made(batch):
        content = {b"batch_label": b"x", b"data": rows(batch), **{key: labels(batch, count) for key, count in keys.items()}}
        if version == "python2":
            return python2_pickle(content)
        return pickle.dumps({key.decode(): value for key, value in content.items()}, protocol=int(version[-1]))

    return made


def write(root, layout, files, folder, archive):
    if layout == "archive":
        with tarfile.open(root / archive, "w:gz") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(f"{folder}/{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return
    inner = root if layout == "root" else root / folder
    inner.mkdir(exist_ok=True)
    for name, data in files.items():
        (inner / name).write_bytes(data)


NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def write_cifar10(root, version, layout):
    if version == "binary":
        files = {
            f"{name}.bin": np.concatenate([np.array(labels(i), np.uint8)[:, None], rows(i)], axis=1).tobytes()
            for i, name in enumerate(NAMES)
        }
        write(root, layout, files, "cifar-10-batches-bin", "cifar-10-binary.tar.gz")
    else:
        made = python_files(version, {b"labels": 10})
        files = {name: made(i) for i, name in enumerate(NAMES)}
        write(root, layout, files, "cifar-10-batches-py", "cifar-10-python.tar.gz")


@pytest.mark.parametrize("layout", ["archive", "folder", "root"])
@pytest.mark.parametrize("version", ["python2", "protocol2", "protocol4", "binary"])
def test_cifar10_is_read_as_published(tmp_path, version, layout):
    write_cifar10(tmp_path, version, layout)
    train, val, test = (CIFAR10(split, root=str(tmp_path)) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (90, 10, 20)
    assert np.bincount(val.class_indices()).tolist() == [1] * 10  # the last of ten
    image = test.load(3)["image"]
    assert image.dtype == np.uint8 and image.shape == (32, 32, 3)
    np.testing.assert_array_equal(image, rows(5)[3].reshape(3, 32, 32).transpose(1, 2, 0))
    assert test.class_indices().tolist() == labels(5) and test.load_annotations(3) == {"label": labels(5)[3]}
    assert test.labels.classes[3] == "cat" and test.files(0) == []
    assert all((tmp_path / path).is_file() for path in train.shared_files())


@pytest.mark.parametrize("version", ["python2", "binary"])
@pytest.mark.parametrize(("level", "count", "name"), [("fine", 20, "bed"), ("coarse", 4, "household_electrical_devices")])
def test_cifar100_has_two_levels(tmp_path, version, level, count, name):
    if version == "binary":
        part = np.concatenate([np.array([labels(0, 4), labels(0, 20)], np.uint8).T, rows(0)], axis=1).tobytes()
        write(tmp_path, "archive", {"train.bin": part, "test.bin": part}, "cifar-100-binary", "cifar-100-binary.tar.gz")
    else:
        part = python_files(version, {b"fine_labels": 20, b"coarse_labels": 4})(0)
        write(tmp_path, "archive", {"train": part, "test": part}, "cifar-100-python", "cifar-100-python.tar.gz")
    data = CIFAR100("test", root=str(tmp_path), level=level)
    assert data.class_indices().tolist() == labels(0, count) and data.labels.classes[5] == name
    assert len(data.labels.classes) == (100 if level == "fine" else 20)


class RunsCode:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_that_runs_code_is_refused(tmp_path, protocol):
    ran = tmp_path / "ran"
    content = {"data": RunsCode(open, str(ran), "w"), "labels": [0]}
    with pytest.raises(InputError, match=r"'x' is not read: it contains (io|_io).open, .* Nothing in it was run"):
        read_plain_pickle("x", pickle.dumps(content, protocol))
    assert not ran.exists()
    for function in (eval, getattr, np.load, np.frombuffer, pickle.loads):
        with pytest.raises(InputError, match="is no part of this data set"):
            read_plain_pickle("x", pickle.dumps(RunsCode(function, "1"), protocol))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.",
        b"\x80\x02Pid\n.",
        b"\x80\x02U\x02idQ.",
    ],
)
def test_damaged_pickles_are_reported(data):
    with pytest.raises(InputError, match="is not read"):
        read_plain_pickle("x", data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}, "an array of another type than bytes"),
        ({"data": np.array([["a"]], object), "labels": [0]}, "an array of another type than bytes"),
        ({"data": np.zeros((2, 30), np.uint8), "labels": [0, 1]}, "does not hold images"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0]}, "has 2 images but 1 labels"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, 10]}, "has the label 10; there are 10 classes"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [0, "a"]}, "does not hold images"),
        ([1], "does not hold images"),
    ],
)
def test_batches_with_other_content_are_reported(tmp_path, content, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=message):
        CIFAR10("test", root=str(tmp_path))


def test_missing_and_truncated_files_are_reported(tmp_path):
    with pytest.raises(InputError, match="has none of cifar-10-python.tar.gz, cifar-10-batches-py, cifar-10-binary"):
        CIFAR10("train", root=str(tmp_path))
    write_cifar10(tmp_path, "binary", "folder")
    (tmp_path / "cifar-10-batches-bin/data_batch_3.bin").unlink()
    with pytest.raises(InputError, match=r"has no file 'data_batch_3.bin'"):
        CIFAR10("train", root=str(tmp_path))
    (tmp_path / "cifar-10-batches-bin/test_batch.bin").write_bytes(bytes(3072))
    with pytest.raises(InputError, match=r"has 3072 bytes, which is no multiple of the 3073"):
        CIFAR10("test", root=str(tmp_path))
    (tmp_path / "archive").mkdir()
    write_cifar10(tmp_path / "archive", "python2", "archive")
    archive = tmp_path / "archive/cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(InputError, match="cannot be read .*; it may be truncated"):
        CIFAR10("train", root=str(tmp_path / "archive"))
    with pytest.raises(InputError, match="no split 'dev'"):
        CIFAR10("dev", root=str(tmp_path))


@pytest.mark.parametrize("place", ["", "MNIST/raw"])
def test_mnist_has_the_files_of_fashion_mnist(tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    images, targets = write_fashion(tmp_path / place, 12)
    data = MNIST("train", root=str(tmp_path))
    assert len(data) == 110 and data.labels.classes == tuple("0123456789") and len(data.shared_files()) == 2
    np.testing.assert_array_equal(data.load(5)["image"], images[5][..., None].repeat(3, 2))
    assert data.load_annotations(5) == {"label": int(targets[5])}
    (tmp_path / place / "t10k-images.idx3-ubyte").write_bytes(idx(images[:3]))  # as other programs unpack them
    (tmp_path / place / "t10k-labels.idx1-ubyte.gz").write_bytes(gzip.compress(idx(targets[:3])))
    assert len(MNIST("test", root=str(tmp_path))) == 3
    with pytest.raises(InputError, match="'mnist' has no split 'dev'"):
        MNIST("dev", root=str(tmp_path))
