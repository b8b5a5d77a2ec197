"""Lists of images: columns of CSV and Parquet files, one class or several, divisions, mistakes."""

import numpy as np
import pytest
from data_files import write_image

from spine.data.formats.image_list import ImageList
from spine.data.image_files import PackedNames
from spine.data.splits import divide_groups
from spine.errors import InputError, UnreadableFileError
from spine.testing import check_data

pa = pytest.importorskip("pyarrow")
NEEDS = frozenset({"image", "label"})


def write_list(root, text, name="list.csv"):
    (root / name).write_text(text)
    for word in text.replace("\n", ",").split(","):
        if word.endswith(".png"):
            write_image(root / word)
    return str(root)


def paths(data):
    return [data.path(i).name for i in range(len(data))]


def labels(data):
    return [data.load_annotations(i)["label"] for i in range(len(data))]


SPLITS = "path,label,split,group,weight\na/1.png,cat,train,p1,1\na/2.png,dog,train,p2,0.5\nb/3.png,cat,val,p1,2\n"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_rows_of_a_split_with_their_columns(tmp_path, suffix):
    root = write_list(tmp_path, SPLITS)
    if suffix == "tsv":
        (tmp_path / "list.tsv").write_text(SPLITS.replace(",", "\t"))
    if suffix == "parquet":
        pa.parquet.write_table(pa.csv.read_csv(tmp_path / "list.csv"), tmp_path / "list.parquet")
    data = ImageList("train", root=root, file=f"list.{suffix}")
    assert data.labels.classes == ("cat", "dog") and paths(data) == ["1.png", "2.png"] and labels(data) == [0, 1]
    assert data.sample_weights().tolist() == [1, 0.5] and len(set(data.groups().tolist())) == 2
    assert data.class_indices().tolist() == [0, 1] and data.files(1) == [str(tmp_path / "a/2.png")]
    assert data.shared_files() == [str(tmp_path / f"list.{suffix}")]
    assert data.load(0)["image"].shape == (20, 30, 3) and bytes(data.encoded_image(0).data[:4]) == b"\x89PNG"
    val = ImageList("val", root=root, file=f"list.{suffix}")
    assert paths(val) == ["3.png"] and val.labels == data.labels and val.groups()[0] == 0
    check_data(val)


def test_names_of_columns_folder_and_suffix(tmp_path):
    write_image(tmp_path / "photos/x.png")
    (tmp_path / "train.csv").write_text("id,kind\nx,1\n")
    columns = {"path": "id", "label": "kind"}
    data = ImageList("train", root=str(tmp_path), file="{split}.csv", images="photos", suffix=".png", columns=columns)
    assert (
        data.load(0)["label"] == 0 and data.labels.classes == ("1",) and data.groups() is None and data.sample_weights() is None
    )
    with pytest.raises(InputError, match=r"no column 'kin'. Did you mean 'kind'\? .* set dataset.columns.label"):
        ImageList("train", root=str(tmp_path), file="{split}.csv", columns={**columns, "label": "kin"})
    with pytest.raises(InputError, match="no column 'path'.*set dataset.columns.path"):
        ImageList("train", root=str(tmp_path), file="{split}.csv")
    with pytest.raises(InputError, match="the key 'paths'; its keys are path"):
        ImageList("train", root=str(tmp_path), file="{split}.csv", columns={"paths": "id"})


def test_a_list_for_each_split_has_the_classes_of_training(tmp_path):
    write_list(tmp_path, "path,label\na.png,10\nb.png,9\n", "train.csv")
    write_list(tmp_path, "path,label\nc.png,10\n", "val.csv")
    val = ImageList("val", root=str(tmp_path), file="{split}.csv")
    assert val.labels.classes == ("9", "10") and labels(val) == [1]  # sorted as numbers
    (tmp_path / "val.csv").write_text("path,label\nc.png,8\n")
    with pytest.raises(InputError, match="class '8'; the rows of the training split have 2 classes: 9, 10"):
        ImageList("val", root=str(tmp_path), file="{split}.csv")
    (tmp_path / "val.csv").write_text("path\nc.png\n")
    assert ImageList("val", root=str(tmp_path), file="{split}.csv").provides == {"image"}


def test_numbers_count_given_classes_from_0(tmp_path):
    root = write_list(tmp_path, "path,label,split\na.png,2,train\nb.png,0,train\n")
    data = ImageList("train", root=root, classes=["x", "y", "z"])
    assert labels(data) == [2, 0] and data.labels.classes == ("x", "y", "z")
    assert labels(ImageList("train", root=root, classes=["2", "0"])) == [0, 1]  # names come first
    with pytest.raises(InputError, match=r"class '2'; dataset.classes has 2 classes: x, y. Numbers count"):
        ImageList("train", root=root, classes=["x", "y"])


def test_several_names_in_a_cell(tmp_path):
    root = write_list(tmp_path, "path,label,split\na.png,cat|dog,train\nb.png,,train\nc.png,dog | cat| cat,val\nd.png,dog,val\n")
    data, val = (ImageList(split, root=root, separator="|") for split in ("train", "val"))
    assert data.labels.classes == ("cat", "dog") and data.labels.several_classes
    assert [label.tolist() for label in labels(data)] == [[1, 1], [0, 0]] and labels(data)[0].dtype == np.uint8
    assert [label.tolist() for label in labels(val)] == [[1, 1], [0, 1]]
    assert data.class_indices() is None
    check_data(data, (0, 1))
    with pytest.raises(InputError, match=r"dataset.separator is empty"):
        ImageList("train", root=root, separator="")


def test_columns_of_0_and_1(tmp_path, caplog):
    names = [f"c{i}" for i in range(11)]
    rows = np.random.default_rng(0).integers(0, 2, (20, 11))
    rows[:, 3] = 0
    text = "".join(f"{i}.png,{','.join(map(str, row))}\n" for i, row in enumerate(rows))
    root = write_list(tmp_path, f"path,{','.join(names)}\n{text}")
    data = [ImageList(split, root=root, class_columns=names) for split in ("train", "val")]
    found = {path: label.tolist() for part in data for path, label in zip(paths(part), labels(part), strict=True)}
    assert found == {f"{i}.png": row.tolist() for i, row in enumerate(rows)} and len(data[0]) + len(data[1]) == 20
    assert data[1].labels.classes == tuple(names)
    data[0].check(NEEDS)
    assert "has no image of 1 classes: c3" in caplog.text
    (tmp_path / "list.csv").write_text("path,a\n0.png,2\n")
    with pytest.raises(InputError, match=r"Row 1 of .* has the value '2' in column 'a' \(a column of a class has 0 and 1\)"):
        ImageList("train", root=root, class_columns=["a"])
    with pytest.raises(InputError, match="no column 'b'.*set dataset.class_columns"):
        ImageList("train", root=root, class_columns=["a", "b"])


def test_lists_in_parquet_are_several_classes(tmp_path):
    table = pa.table({"path": ["a.png", "b.png"], "label": [["x", "y"], ["y"]], "split": ["train", "train"]})
    pa.parquet.write_table(table, tmp_path / "list.parquet")
    data = ImageList("train", root=str(tmp_path), file="list.parquet")
    assert data.labels.several_classes and [label.tolist() for label in labels(data)] == [[1, 1], [0, 1]]


def test_a_list_without_splits_is_divided_by_class(tmp_path, caplog):
    text = "".join(f"{i}.png,{'ab'[i % 4 == 0]}\n" for i in range(40))
    root = write_list(tmp_path, f"path,label\n{text}")
    train, val = (ImageList(split, root=root) for split in ("train", "val"))
    assert sorted(paths(train) + paths(val)) == sorted(f"{i}.png" for i in range(40))
    assert np.bincount(val.class_indices()).tolist() == [6, 2] and "32 of its 40 rows are for training" in caplog.text
    assert all(("ab"[int(path[:-4]) % 4 == 0] == "b") == label for path, label in zip(paths(val), labels(val), strict=True))
    assert paths(ImageList("val", root=root, split_seed=1)) != paths(val)
    with pytest.raises(InputError, match="there is no split 'test'"):
        ImageList("test", root=root)


def test_groups_stay_together_in_a_division(tmp_path):
    text = "".join(f"{i}.png,{'ab'[i % 3 == 0]},{i // 4}\n" for i in range(240))
    root = write_list(tmp_path, f"path,label,group\n{text}")
    train, val = (ImageList(split, root=root) for split in ("train", "val"))
    of = [{int(path[:-4]) // 4 for path in paths(data)} for data in (train, val)]
    assert not of[0] & of[1] and of[0] | of[1] == set(range(60))
    assert np.abs(np.bincount(val.class_indices()) - [32, 16]).max() <= 3
    assert len(set(val.groups().tolist())) == len(of[1])


@pytest.mark.parametrize("groups", [[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
def test_few_groups_are_divided(groups):
    members = np.stack([np.arange(5), np.zeros(5, int)], axis=1)
    train, val = (divide_groups(members, np.array(groups), 5, split, 0.2, 0).tolist() for split in ("train", "val"))
    assert train and val and sorted(train + val) == list(range(5))
    with pytest.raises(InputError, match="in one group"):
        divide_groups(members, np.zeros(5, int), 5, "val", 0.2, 0)


def test_a_list_without_classes_has_images_only(tmp_path, caplog):
    root = write_list(tmp_path, "path,split\na.png,train\n")
    data = ImageList("train", root=root)
    assert data.provides == set(data.load(0)) == {"image"} and data.class_indices() is None
    assert "has no column for the classes" in caplog.text and "dataset.columns.label=<column>" in caplog.text
    check_data(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,x\nb.png\n", "can be read .*Expected 2 columns, got 1"),
        ("path,label\na.png,x\nb.png,\n", "Row 2 of .* has no value in column 'label'"),
        ("path,label\na.png,x\n,y\n", "Row 2 of .* has no path"),
        ("path,label,weight\na.png,x,-1\n", "Row 1 of .* has the weight '-1'; weights are 0 or more"),
        ("path,label,weight\na.png,x,\n", "Row 1 of .* has the weight ''; weights are 0 or more"),
        ("path,label,weight\na.png,x,1\nb.png,y,much\n", "Row 2 of .* has the weight 'much'; weights are 0 or more"),
        ("path,label,split\na.png,x,fold1\n", "no row of the split 'train'. Values of its column 'split': fold1"),
        ("", "not a table"),
    ],
)
def test_mistakes_in_lists_are_reported(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        ImageList("train", root=str(tmp_path))


def test_missing_files_are_reported(tmp_path):
    root = write_list(tmp_path, "path,label,split\na.png,x,train\n")
    with pytest.raises(InputError, match="no file '.*other.csv'"):
        ImageList("train", root=root, file="other.csv")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UnreadableFileError, match=r"a.png' is missing"):
        ImageList("train", root=root).load(0)


def test_packed_names_are_selected():
    names = [f"{i}" * (i % 5) for i in range(100_000)]
    packed = PackedNames(names)
    indices = np.random.default_rng(0).permutation(100_000)[:90_000]
    chosen = packed.select(indices)
    assert [chosen[i] for i in range(len(chosen))] == [names[i] for i in indices]
    assert len(packed.select(np.zeros(0, int))) == 0
