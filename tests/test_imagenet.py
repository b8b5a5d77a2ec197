"""ImageNet in the layouts in which it is found: classes of the validation images from folders and from every kind of list."""

import numpy as np
import pytest
from data_files import write_image
from scipy.io import savemat

from spine.data.formats.imagenet import ImageNet
from spine.errors import InputError, UnreadableFileError
from spine.testing import check_data

WNIDS = ("n02119789", "n01440764", "n02100735")  # in the order of the development kit, which is not sorted
SORTED = ("n01440764", "n02100735", "n02119789")
VAL = [f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3, 4)]
CLASSES = [2, 0, 2, 1]  # of the validation images, among SORTED
NUMBERS = "1\n2\n1\n3\n"  # of the development kit


def write(root, inner="", flat=True):
    for wnid in WNIDS:
        for i in range(2):
            write_image(root / inner / f"train/{wnid}/{wnid}_{i}.JPEG")
    for name, label in zip(VAL, CLASSES, strict=True):
        write_image(root / inner / ("val" if flat else f"val/{SORTED[label]}") / name)
    return root


def val_classes(root, **options):
    data = ImageNet("val", root=str(root), **options)
    assert data.labels.classes == SORTED
    return {data.path(i).name: data.load(i)["label"] for i in range(len(data))}


EXPECTED = dict(zip(VAL, CLASSES, strict=True))


def test_training_folders_define_the_classes(tmp_path):
    data = ImageNet("train", root=str(write(tmp_path)))
    assert data.labels.classes == SORTED and data.class_indices().tolist() == [0, 0, 1, 1, 2, 2]
    assert data.files(5) == [str(tmp_path / "train/n02119789/n02119789_1.JPEG")] and data.shared_files() == []
    assert data.load(0)["image"].shape == (20, 30, 3) and bytes(data.encoded_image(0).data[:2]) == b"\xff\xd8"
    check_data(data, (0, 5))
    data.path(0).write_bytes(b"")
    with pytest.raises(UnreadableFileError):
        data.load(0)


def test_validation_images_in_class_folders(tmp_path):
    assert val_classes(write(tmp_path, flat=False)) == EXPECTED


@pytest.mark.parametrize("place", ["val.txt", "val/val.txt"])
@pytest.mark.parametrize("numbers", [False, True])
def test_val_txt(tmp_path, place, numbers):
    lines = [f"{name} {label if numbers else SORTED[label]}" for name, label in EXPECTED.items()]
    (write(tmp_path) / place).write_text("\n".join(reversed(lines)))
    assert val_classes(tmp_path) == EXPECTED


def test_a_list_with_another_name(tmp_path):
    (write(tmp_path) / "labels.txt").write_text("".join(f"{name[:-5]} {label}\n" for name, label in EXPECTED.items()))
    assert val_classes(tmp_path, labels="labels.txt") == EXPECTED


def test_kaggles_folder(tmp_path):
    lines = [f"{name[:-5]},{SORTED[label]} 1 2 3 4 n01440764 5 6 7 8 " for name, label in EXPECTED.items()]
    write(tmp_path, "ILSVRC/Data/CLS-LOC")
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    assert val_classes(tmp_path) == EXPECTED
    assert len(ImageNet("train", root=str(tmp_path))) == 6


@pytest.mark.parametrize("synsets", ["meta.mat", "map_clsloc.txt"])
@pytest.mark.parametrize("place", ["", "ILSVRC2012_devkit_t12/data"])
def test_the_development_kit(tmp_path, synsets, place):
    folder = write(tmp_path) / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(NUMBERS)
    with pytest.raises(InputError, match="not in the order of the wnids: put meta.mat or map_clsloc.txt"):
        ImageNet("val", root=str(tmp_path))
    if synsets == "meta.mat":
        kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
        rows = [(i + 1, wnid, "a, b") for i, wnid in enumerate(WNIDS)]
        savemat(folder / synsets, {"synsets": np.array(rows, kinds)[:, None]})
    else:
        (folder / synsets).write_text("".join(f"{wnid} {i + 1} a_b\n" for i, wnid in enumerate(WNIDS)))
    assert val_classes(tmp_path) == EXPECTED
    assert len(ImageNet("val", root=str(tmp_path)).shared_files()) == 2
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(NUMBERS + "1\n")
    with pytest.raises(InputError, match="has 5 lines, and .* 4 images"):
        ImageNet("val", root=str(tmp_path))
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n1\n4\n")
    with pytest.raises(InputError, match="has the line '4', which is no number of a class"):
        ImageNet("val", root=str(tmp_path))


def test_a_part_of_the_classes(tmp_path, caplog):
    (write(tmp_path) / "val.txt").write_text("".join(f"{name} {SORTED[label]}\n" for name, label in EXPECTED.items()))
    for path in (tmp_path / "train/n01440764").iterdir():
        path.unlink()
    data = ImageNet("val", root=str(tmp_path))
    assert data.labels.classes == SORTED[1:] and data.class_indices().tolist() == [1, 1, 0]
    assert data.path(2).name == VAL[3] and "1 of 4 images" in caplog.text


def test_validation_without_training_images(tmp_path):
    for path in (write(tmp_path, flat=False) / "train").rglob("*.JPEG"):
        path.unlink()
    for path in sorted((tmp_path / "train").rglob("*"), reverse=True):
        path.rmdir()
    (tmp_path / "train").rmdir()
    assert val_classes(tmp_path) == EXPECTED


def test_mistakes_in_imagenet_are_reported(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="are in one folder, and there is none of val.txt, LOC_val_solution.csv"):
        ImageNet("val", root=str(tmp_path))
    with pytest.raises(InputError, match="there is no file '.*nowhere.txt'"):
        ImageNet("val", root=str(tmp_path), labels="nowhere.txt")
    (tmp_path / "val.txt").write_text("".join(f"{name} {label + 1}\n" for name, label in EXPECTED.items()))
    with pytest.raises(
        InputError, match="has the number 3 of a class; numbers count the sorted wnids .* from 0, and there are 3"
    ):
        ImageNet("val", root=str(tmp_path))
    (tmp_path / "val.txt").write_text(f"{VAL[0]} 0\n")
    with pytest.raises(InputError, match=f"does not name 3 images of .*, such as '{VAL[1]}'"):
        ImageNet("val", root=str(tmp_path))
    (tmp_path / "val.txt").write_text(f"{VAL[0]}\n")
    with pytest.raises(InputError, match="a line is the name of an image and its wnid or number"):
        ImageNet("val", root=str(tmp_path))
    write_image(tmp_path / "train/cat/a.jpg")
    with pytest.raises(InputError, match="'cat' is not named after a wnid"):
        ImageNet("train", root=str(tmp_path))
