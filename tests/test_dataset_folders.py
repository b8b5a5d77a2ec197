"""Folders of classes: the split of an image, the class of a folder."""

import numpy as np
import pytest
from data_files import write_image

from spine.data.formats.image_folder import ImageFolder
from spine.data.splits import divide
from spine.errors import InputError

NEEDS = frozenset({"image", "mask"})


# ---- image_folder: splits --------------------------------------------------------------------------------------------


def write_classes(root, counts):
    for name, count in counts.items():
        for i in range(count):
            write_image(root / name / f"{i}.png")


def files(data):
    return {data.path(i) for i in range(len(data))}


def test_split_folders_can_have_other_names(tmp_path):
    for split in ("training", "validation"):
        write_classes(tmp_path / split, {"a": 1, "b": 1})
    with pytest.raises(InputError, match=r"To use 'training', set dataset.splits.train=training\."):
        ImageFolder("train", root=str(tmp_path))
    splits = {"train": "training", "val": None, "test": None}
    with pytest.raises(InputError, match=r"no folder '.*val'.*To use 'validation', set dataset.splits.val=validation\."):
        ImageFolder("val", root=str(tmp_path), splits=splits)
    data = ImageFolder("val", root=str(tmp_path), splits={**splits, "val": "validation"})
    assert files(data) == {tmp_path / "validation/a/0.png", tmp_path / "validation/b/0.png"}
    with pytest.raises(InputError, match="dataset.splits has the key 'valid'; its keys are train, val, test"):
        ImageFolder("val", root=str(tmp_path), splits={"valid": "validation"})


@pytest.mark.parametrize("name", ["valid", "test"])
def test_usual_names_of_the_validation_split_are_suggested(tmp_path, name):
    write_classes(tmp_path / "train", {"a": 1})
    write_classes(tmp_path / name, {"a": 1})
    with pytest.raises(InputError, match=f"set dataset.splits.val={name}"):
        ImageFolder("val", root=str(tmp_path))


def test_one_folder_is_divided_by_class_and_seed(tmp_path, caplog):
    write_classes(tmp_path, {"a": 10, "a2": 10, "b": 30, "c": 2, "single": 1})
    train, val = ImageFolder("train", root=str(tmp_path)), ImageFolder("val", root=str(tmp_path))
    assert train.labels == val.labels and train.labels.classes == ("a", "a2", "b", "c", "single")
    assert not files(train) & files(val) and len(files(train) | files(val)) == 53
    assert np.bincount(val.targets, minlength=5).tolist() == [2, 2, 6, 1, 0]
    assert len({path.name for path in files(val) if path.parent.name in ("a", "a2")}) > 2  # not the same positions in every class
    assert "42 of its 53 images are for training" in caplog.text and "dataset.val_fraction=0.2" in caplog.text
    assert files(ImageFolder("val", root=str(tmp_path))) == files(val)
    assert files(ImageFolder("val", root=str(tmp_path), split_seed=1)) != files(val)
    assert len(ImageFolder("val", root=str(tmp_path), val_fraction=0.5)) == 5 + 5 + 15 + 1
    with pytest.raises(InputError, match="there is no split 'test'"):
        ImageFolder("test", root=str(tmp_path))
    with pytest.raises(InputError, match="dataset.val_fraction is 1.0"):
        ImageFolder("val", root=str(tmp_path), val_fraction=1.0)


def test_a_class_can_have_the_name_valid(tmp_path):
    write_classes(tmp_path, {"valid": 5, "invalid": 5})
    assert ImageFolder("train", root=str(tmp_path)).labels.classes == ("invalid", "valid")


def test_splits_without_class_folders_are_not_classes(tmp_path):
    write_classes(tmp_path, {"train": 5, "val": 5})
    with pytest.raises(InputError, match="class folders of '.*train' have no images"):
        ImageFolder("train", root=str(tmp_path))


def test_a_division_is_a_function_of_its_key():
    assert divide(50, "val", 0.2, (3, 7)).tolist() == divide(50, "val", 0.2, (3, 7)).tolist()
    assert divide(50, "val", 0.2, (3, 7)).tolist() != divide(50, "val", 0.2, (3, 8)).tolist()
    assert divide(1, "val", 0.2, (0,)).tolist() == [] and divide(1, "train", 0.2, (0,)).tolist() == [0]


# ---- image_folder: classes -------------------------------------------------------------------------------------------


def test_hidden_and_empty_folders_are_no_classes(tmp_path):
    for split in ("train", "val"):
        write_classes(tmp_path / split, {"apple": 1, "pear": 1, ".ipynb_checkpoints": 1, "__MACOSX": 1})
        (tmp_path / split / "zebra").mkdir()
        (tmp_path / split / "apple" / "._0.png").write_bytes(b"\0\5\x16\7")
    for split in ("train", "val"):
        data = ImageFolder(split, root=str(tmp_path))
        assert data.labels.classes == ("apple", "pear") and len(data) == 2
        data.check(frozenset({"image", "label"}))


def test_images_that_are_not_read_are_reported(tmp_path, caplog):
    write_classes(tmp_path / "train", {"apple": 2, "pear": 1, "pear/small": 2})
    write_classes(tmp_path / "val", {"apple": 1})
    (tmp_path / "train/apple/x.heic").write_bytes(b"x")
    ImageFolder("train", root=str(tmp_path)).check(frozenset())
    ImageFolder("val", root=str(tmp_path)).check(frozenset())
    assert "hold images that are not read: pear/small." in caplog.text
    assert "1 images in" in caplog.text and "are not read (.heic)" in caplog.text
    assert "Split 'val'" in caplog.text and "has no image of 1 classes: pear." in caplog.text


def test_images_one_folder_too_deep_are_reported(tmp_path):
    write_classes(tmp_path / "train", {"apple/raw": 2})
    with pytest.raises(InputError, match="have no images. Images are one folder deeper, as in 'apple/raw'"):
        ImageFolder("train", root=str(tmp_path))


def test_given_classes_need_no_training_split(tmp_path):
    write_classes(tmp_path / "val", {"apple": 1, "pear": 1})
    data = ImageFolder("val", root=str(tmp_path), classes=["pear", "fig", "apple"])
    assert data.labels.classes == ("pear", "fig", "apple") and data.targets.tolist() == [0, 2]
    with pytest.raises(
        InputError, match=r"has class 'apple', which dataset.classes does not name.*: apple, pear\..*\(2\): pear, fig\."
    ):
        ImageFolder("val", root=str(tmp_path), classes=["pear", "fig"])


def test_classes_can_be_listed_in_a_file(tmp_path):
    write_classes(tmp_path / "val", {"apple": 1, "pear": 1})
    (tmp_path / "names.txt").write_text("pear\nfig\n\napple\n")
    data = ImageFolder("val", root=str(tmp_path), classes="names.txt")
    assert data.labels.classes == ("pear", "fig", "apple") and data.targets.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("pear\nfig\n", r"Folder '.*val' has class 'apple', which '.*names\.txt' does not name\."),
        ("pear\napple\npear\n", r"'.*names\.txt' names the class 'pear' twice; it should have one class per line\."),
        (
            None,
            r"There is no file '.*names\.txt', where the names of the classes \(or give dataset\.classes=\[\.\.\.\]\) should be\.",
        ),
    ],
)
def test_a_file_with_unknown_classes_is_reported(tmp_path, names, message):
    write_classes(tmp_path / "val", {"apple": 1, "pear": 1})
    if names is not None:
        (tmp_path / "names.txt").write_text(names)
    with pytest.raises(InputError, match=message):
        ImageFolder("val", root=str(tmp_path), classes="names.txt")


def test_an_image_takes_few_bytes(tmp_path):
    write_classes(tmp_path / "train", {"a": 300})
    data = ImageFolder("train", root=str(tmp_path))
    assert len(data.names.block) + data.names.ends.nbytes + data.targets.nbytes < 300 * 32
