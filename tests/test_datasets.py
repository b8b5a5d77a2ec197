"""Data set formats: each is written to a folder and read back, and mistakes are reported."""

import gzip

import cv2
import numpy as np
import pytest
from data_files import write_image, write_mask

from spine.data.formats.fashion_mnist import FashionMNIST
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.mask_folder import MaskFolder
from spine.errors import InputError

# ---- image_folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / split / "apple" / "a.png", (250, 0, 0))
        write_image(tmp_path / split / "pear" / "b.png", (0, 250, 0))
    return tmp_path


def test_image_folder_reads_rgb_and_classes(folders):
    data = ImageFolder("val", root=str(folders))
    assert data.labels.classes == ("apple", "pear") and len(data) == 2
    sample = data.load(1)
    assert sample["label"] == 1 and sample["image"][0, 0].tolist() == [0, 250, 0]


def test_gray_images_become_rgb(folders):
    cv2.imwrite(str(folders / "val/apple/gray.png"), np.full((9, 9), 77, np.uint8))
    data = ImageFolder("val", root=str(folders))
    gray = next(i for i in range(len(data)) if data.path(i).name == "gray.png")
    assert data.load(gray)["image"].shape == (9, 9, 3)


def test_mistakes_in_image_folders_are_reported(folders, tmp_path):
    with pytest.raises(InputError, match=r"dataset.root=<path>"):
        ImageFolder("train", root=None)
    with pytest.raises(InputError, match="no folder '.*nowhere'"):
        ImageFolder("train", root=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no folder '.*test'.*Folders next to it: train, val"):
        ImageFolder("test", root=str(folders))
    (folders / "val" / "apple" / "a.png").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(InputError, match="'.*apple/a.png' cannot be decoded"):
        ImageFolder("val", root=str(folders)).load(0)
    write_image(folders / "val" / "plum" / "c.png")
    with pytest.raises(InputError, match="class 'plum', which '.*train' does not have"):
        ImageFolder("val", root=str(folders))
    for path in (folders / "train").rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="have no images"):
        ImageFolder("train", root=str(folders))


def test_a_file_that_was_deleted_is_reported(folders):
    data = ImageFolder("train", root=str(folders))
    (folders / "train/apple/a.png").unlink()
    with pytest.raises(InputError, match="'.*a.png' is missing"):
        data.load(0)


# ---- mask_folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path):
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "one.png", size=(4, 6))
        write_mask(tmp_path / "masks" / split / "one.png", [[0, 0, 1, 1, 2, 2]] * 4)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    (tmp_path / "train.txt").write_text("images/train/one.png masks/train/one.png\n")
    return tmp_path


def test_masks_are_matched_by_name(pairs):
    data = MaskFolder("train", root=str(pairs), ignore_index=2)
    assert data.labels.mask_classes == ("sky", "road")
    assert data.load(0)["mask"][0].tolist() == [0, 0, 1, 1, 255, 255]


def test_pairs_are_read_from_a_list(pairs):
    for given in ("{split}.txt", "."):  # a file, or a folder with a file for each split
        data = MaskFolder("train", root=str(pairs), pairs=given, reduce_zero_label=True)
        assert data.load(0)["mask"][0].tolist() == [255, 255, 0, 0, 1, 1]


def test_mistakes_in_mask_folders_are_reported(pairs):
    with pytest.raises(InputError, match=r"'.*one.png' holds the value 2, which none of the 2 classes has"):
        MaskFolder("train", root=str(pairs)).load(0)
    with pytest.raises(InputError, match="two classes or more"):
        MaskFolder("train", root=str(pairs), classes=["only"])
    with pytest.raises(InputError, match=r"no file '.*names.txt'"):
        MaskFolder("train", root=str(pairs), classes="names.txt")
    write_image(pairs / "masks" / "train" / "one.png", size=(4, 6))
    with pytest.raises(InputError, match="holds colors .* one channel of class indices"):
        MaskFolder("train", root=str(pairs)).load(0)
    write_mask(pairs / "masks" / "train" / "one.png", [[0, 1]])
    with pytest.raises(InputError, match="is 4x6, its mask .* 1x2"):
        MaskFolder("train", root=str(pairs)).load(0)
    (pairs / "masks" / "train" / "one.png").unlink()
    with pytest.raises(InputError, match="1 of 1 images have no mask"):
        MaskFolder("train", root=str(pairs))
    (pairs / "train.txt").write_text("images/train/one.png\n")
    with pytest.raises(InputError, match=r"1 of 1 names in the list '.*train.txt' have no image in '.*images/train'"):
        MaskFolder("train", root=str(pairs), pairs="{split}.txt")
    (pairs / "train.txt").write_text("images/train/one.png masks/train/one.png\nimages/train/one.png\n")
    with pytest.raises(InputError, match=r"Line 2 of '.*train.txt' is not a pair"):
        MaskFolder("train", root=str(pairs), pairs="{split}.txt")


# ---- fashion_mnist ---------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_fashion(folder, per_class, zipped=False):
    """Training files with `per_class` images of each class, whose first pixel counts them within the class."""
    labels = np.tile(np.arange(10), per_class)
    images = np.arange(len(labels) * 28 * 28).reshape(-1, 28, 28) % 256
    images[:, 0, 0] = np.arange(len(labels)) // 10
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_reads_idx_files(tmp_path, zipped):
    images, _ = write_fashion(tmp_path, 12, zipped)
    data = FashionMNIST("train", root=str(tmp_path))
    sample = data.load(2)
    assert len(data) == 110 and sample["label"] == 2
    np.testing.assert_array_equal(sample["image"], images[2][..., None].repeat(3, 2))
    with pytest.raises(InputError, match="neither 't10k-images"):
        FashionMNIST("test", root=str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images)[:-1])
    (tmp_path / "train-images-idx3-ubyte.gz").unlink(missing_ok=True)
    with pytest.raises(InputError, match="not an IDX file"):
        FashionMNIST("train", root=str(tmp_path))


def test_fashion_mnist_validates_on_training_images(tmp_path):
    write_fashion(tmp_path, 24)
    train, val = FashionMNIST("train", root=str(tmp_path)), FashionMNIST("val", root=str(tmp_path))
    assert len(train) == 220 and len(val) == 20
    assert np.bincount(val.targets).tolist() == [2] * 10
    assert set(val.images[:, 0, 0]) == {22, 23} and set(train.images[:, 0, 0]) == set(range(22))  # the last of each class
    write_fashion(tmp_path, 3)
    with pytest.raises(InputError, match="has no val images"):
        FashionMNIST("val", root=str(tmp_path))


def test_a_truncated_gzip_file_is_reported(tmp_path):
    whole = gzip.compress(idx(np.zeros((1, 28, 28))))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="not a complete gzip file"):
        FashionMNIST("train", root=str(tmp_path))


# ---- real data -------------------------------------------------------------------------------------------------------


def test_real_camvid_opens(shared_data):
    data = MaskFolder("val", root=str(shared_data / "camvid"), pairs="{split}.txt", ignore_index=11)
    assert len(data) == 101 and len(data.labels.mask_classes) == 11
    assert set(np.unique(data.load(0)["mask"])) <= {*range(11), 255}


def test_real_caltech_opens(shared_data):
    data = ImageFolder("val", root=str(shared_data / "caltech10"))
    assert len(data) == 150 and len(data.labels.classes) == 10
