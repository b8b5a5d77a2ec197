"""Data sets of Hugging Face on disk: folders of save_to_disk, Parquet and Arrow shards, classes and masks."""

import json
import pickle

import cv2
import numpy as np
import pytest
from test_configs import composed

from spine.data import build_data
from spine.data.formats.huggingface import HuggingFace
from spine.data.image_files import decode
from spine.data.sampler import Draw
from spine.errors import InputError, UnreadableFileError
from spine.testing import check_data

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
NEEDS = frozenset({"image", "label"})


def png(value, size=(8, 9)):
    shape = size if isinstance(value, int) else np.shape(value)
    return cv2.imencode(".png", np.broadcast_to(np.asarray(value, np.uint8), shape))[1].tobytes()


def image_type():
    return pa.struct({"bytes": pa.binary(), "path": pa.string()})


def table(values, labels=None, names=("cat", "dog"), stored=True, label="label"):
    """Images of one gray level each, as `datasets` stores them."""
    columns = {"image": pa.array([{"bytes": png(value), "path": "a.png"} for value in values], image_type())}
    features = {"image": {"_type": "Image"}}
    if labels is not None:
        columns[label] = pa.array(labels)
        features[label] = {"_type": "ClassLabel", "names": list(names)}
    made = pa.table(columns)
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}) if stored else made


def write_parquet(path, made, rows=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(made, path, row_group_size=rows)


def write_arrow(path, made, rows=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, made.schema) as writer:
        writer.write_table(made, rows)


def save_to_disk(folder, made):
    write_arrow(folder / "data-00000-of-00002.arrow", made.slice(0, 4))
    write_arrow(folder / "data-00001-of-00002.arrow", made.slice(4))
    names = [f"data-0000{i}-of-00002.arrow" for i in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def content(data):
    return [(int(sample["image"][0, 0, 0]), sample["label"]) for sample in map(data.load, range(len(data)))]


VALUES, LABELS = [10, 20, 30, 40, 50, 60, 70], [0, 1, 1, 0, 1, 0, 1]
EXPECTED = list(zip(VALUES, LABELS, strict=True))


def write(root, layout):
    made, val = table(VALUES, LABELS), table([5], [1])
    if layout == "saved":
        save_to_disk(root / "train", made)
        save_to_disk(root / "val", val)
        (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "val"]}))
        return
    suffix = {"shards": "parquet", "folders": "parquet", "cache": "arrow"}[layout]
    writer = write_arrow if suffix == "arrow" else write_parquet
    for i, part in enumerate((made.slice(0, 4), made.slice(4))):
        name = {"shards": f"data/train-0000{i}-of-00002", "folders": f"train/{i}", "cache": f"photos-train-0000{i}-of-00002"}
        writer(root / f"{name[layout]}.{suffix}", part)
    writer(root / f"{'val/0' if layout == 'folders' else 'photos-val'}.{suffix}", val)


@pytest.mark.parametrize("layout", ["saved", "shards", "folders", "cache"])
def test_every_layout_has_the_same_samples(tmp_path, layout):
    write(tmp_path, layout)
    data, val = (HuggingFace(split, root=str(tmp_path)) for split in ("train", "val"))
    assert content(data) == EXPECTED and content(val) == [(5, 1)]
    assert data.labels.classes == val.labels.classes == ("cat", "dog") and data.provides == NEEDS
    assert data.class_indices().tolist() == LABELS and data.load_annotations(3) == {"label": 0}
    assert len(data.shared_files()) == 2 and data.files(0) == []
    np.testing.assert_array_equal(decode(data.encoded_image(5)), data.load(5)["image"])
    check_data(data, (0, 6))
    assert content(pickle.loads(pickle.dumps(data))) == EXPECTED  # a worker that is started anew
    with pytest.raises(InputError, match="has no split 'test'|has 'test' in its path"):
        HuggingFace("test", root=str(tmp_path))


@pytest.mark.parametrize("layout", ["saved", "shards"])
def test_images_can_be_kept_in_memory(tmp_path, layout):
    write(tmp_path, layout)
    data = HuggingFace("train", root=str(tmp_path), in_memory=True)
    for path in tmp_path.rglob("*.parquet"):
        path.unlink()
    assert content(data) == content(pickle.loads(pickle.dumps(data))) == EXPECTED
    assert data.encoded_image(6).name.endswith("of-00002.arrow, row 2" if layout == "saved" else "of-00002.parquet, row 2")


def test_a_parquet_file_is_read_by_row_groups(tmp_path, caplog, monkeypatch):
    from spine.data.formats import huggingface

    write_parquet(tmp_path / "train.parquet", table(VALUES, LABELS), rows=2)
    data = HuggingFace("train", root=str(tmp_path))
    read, original = [], data.table.files[0].read_row_group

    class File:
        def read_row_group(self, group, **options):
            read.append(group)
            return original(group, **options)

    data.table.files = [File()]
    for index in (0, 1, 5, 4, 0, 6):
        assert data.load(index)["image"][0, 0, 0] == VALUES[index]
    assert read == [0, 2, 3]  # the last two groups are kept
    data = HuggingFace("train", root=str(tmp_path))
    data.check(NEEDS)
    assert not caplog.messages
    monkeypatch.setattr(huggingface, "MANY_ROWS", 1)
    data.check(NEEDS)
    assert "row groups of" in caplog.text and "dataset.in_memory=true" in caplog.text


def test_the_usual_name_of_the_validation_split_is_suggested(tmp_path):
    for split in ("train", "validation"):
        write_parquet(tmp_path / f"data/{split}-00000-of-00001.parquet", table(VALUES, LABELS))
    with pytest.raises(
        InputError, match=r"Splits of its 2 files: train, validation. To use 'validation', set dataset.splits.val=vali"
    ):
        HuggingFace("val", root=str(tmp_path))
    assert len(HuggingFace("val", root=str(tmp_path), splits={"val": "validation"})) == 7


@pytest.mark.parametrize("saved", [False, True])
def test_files_without_splits_are_divided_by_class(tmp_path, caplog, saved):
    made = table(range(40), [int(i % 4 == 0) for i in range(40)])
    if saved:
        save_to_disk(tmp_path, made)
    else:
        write_parquet(tmp_path / "photos.parquet", made)
    train, val = (HuggingFace(split, root=str(tmp_path)) for split in ("train", "val"))
    assert sorted(content(train) + content(val)) == [(i, int(i % 4 == 0)) for i in range(40)]
    assert np.bincount(val.class_indices()).tolist() == [6, 2] and "32 of its 40 rows" in caplog.text


def test_classes_without_stored_names(tmp_path):
    write_parquet(tmp_path / "train.parquet", table([1, 2, 3], ["dog", "cat", "dog"], stored=False, label="kind"))
    write_parquet(tmp_path / "val.parquet", table([4], ["dog"], stored=False, label="kind"))
    columns = {"label": "kind"}
    assert HuggingFace("train", root=str(tmp_path)).provides == {"image"}
    train, val = (HuggingFace(split, root=str(tmp_path), columns=columns) for split in ("train", "val"))
    assert content(train) == [(1, 1), (2, 0), (3, 1)] and content(val) == [(4, 1)] and val.labels.classes == ("cat", "dog")
    with pytest.raises(InputError, match="class 'dog'; dataset.classes has 1 classes: cat"):
        HuggingFace("train", root=str(tmp_path), columns=columns, classes=["cat"])


def test_names_of_classes_that_are_numbers(tmp_path):
    write_parquet(tmp_path / "train.parquet", table([1, 2, 3], [0, 1, 1], names=("1", "0")))
    assert content(HuggingFace("train", root=str(tmp_path))) == [(1, 0), (2, 1), (3, 1)]  # numbers, not names
    assert content(HuggingFace("train", root=str(tmp_path), classes=["0", "1"])) == [(1, 1), (2, 0), (3, 0)]
    with pytest.raises(InputError, match="dataset.classes and the names stored"):
        HuggingFace("train", root=str(tmp_path), classes=["0", "2"])
    write_parquet(tmp_path / "train.parquet", table([1, 2], [0, -1]))
    with pytest.raises(InputError, match="has the number -1 in column 'label', which has the 2 classes 0 to 1: cat, dog"):
        HuggingFace("train", root=str(tmp_path))


def test_lists_of_classes(tmp_path):
    made = table([1, 2, 3])
    made = made.append_column("label", pa.array([[0, 2], [], [1]], pa.list_(pa.int64())))
    feature = {"_type": "Sequence", "feature": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    features = {"image": {"_type": "Image"}, "label": feature}
    write_parquet(
        tmp_path / "train.parquet", made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    )
    data = HuggingFace("train", root=str(tmp_path))
    assert data.labels.several_classes and data.class_indices() is None
    assert [data.load(i)["label"].tolist() for i in range(3)] == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def masks_table(masks):
    made = table([7, 8])
    made = made.append_column("annotation", pa.array([{"bytes": png(mask), "path": None} for mask in masks], image_type()))
    features = {"image": {"_type": "Image"}, "annotation": {"_type": "Image"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_two_columns_of_images_are_images_and_masks(tmp_path):
    masks = [np.eye(8, 9, dtype=np.uint8), np.full((8, 9), 255, np.uint8)]
    write_parquet(tmp_path / "train.parquet", masks_table(masks))
    with pytest.raises(InputError, match="Column 'annotation' .* has masks: name their classes with dataset.mask_classes"):
        HuggingFace("train", root=str(tmp_path))
    data = HuggingFace("train", root=str(tmp_path), mask_classes=["sky", "road"], ignore_index=255)
    assert data.provides == {"image", "mask"} and data.labels.mask_classes == ("sky", "road") and data.class_indices() is None
    for i, mask in enumerate(masks):
        np.testing.assert_array_equal(data.load(i)["mask"], mask)
        np.testing.assert_array_equal(data.load_annotations(i)["mask"], mask)
    data = HuggingFace("train", root=str(tmp_path), mask_classes=["sky", "road"])
    with pytest.raises(InputError, match="row 1' holds the value 255"):
        data.check(frozenset({"image", "mask"}))
    data.check(frozenset({"image"}))  # a task that needs no masks
    assert set(data.load(1)) == {"image"} and data.encoded_image(1) is not None
    config = composed(
        "task=seg", "dataset=huggingface", f"dataset.root={tmp_path}", "dataset.mask_classes=[sky,road]", "dataset.ignore_index=255",
        "image_size=[32,32]",
    )  # fmt: skip
    assert build_data(config).transformed("train", training=True)[Draw(0, 1)]["mask"].unique().tolist() == [255]
    write_parquet(tmp_path / "train.parquet", masks_table([np.zeros((4, 4), np.uint8)] * 2))
    with pytest.raises(InputError, match=r"is \(8, 9\), its mask \(4, 4\)"):
        HuggingFace("train", root=str(tmp_path), mask_classes=["sky", "road"]).load(0)


def test_rows_without_a_readable_image_are_reported(tmp_path):
    images = pa.array(
        [{"bytes": None, "path": None}, {"bytes": b"x", "path": None}, {"bytes": None, "path": "nowhere.png"}], image_type()
    )
    write_parquet(tmp_path / "train.parquet", pa.table({"image": images}))
    data = HuggingFace("train", root=str(tmp_path))
    for index, message in enumerate(
        ["train.parquet, row 0' has no image", "row 1' cannot be decoded", "nowhere.png' is missing"]
    ):
        with pytest.raises(UnreadableFileError, match=message):
            data.load(index)


def test_mistakes_are_reported(tmp_path):
    with pytest.raises(InputError, match=r"has no .parquet or .arrow file, and is no folder of save_to_disk"):
        HuggingFace("train", root=str(tmp_path))
    write_parquet(tmp_path / "train.parquet", table(VALUES, LABELS))
    with pytest.raises(InputError, match=r"no column 'photo' \(dataset.columns.image\). Its columns: image, label"):
        HuggingFace("train", root=str(tmp_path), columns={"image": "photo"})
    with pytest.raises(InputError, match="the key 'picture'; its keys are image, label, mask"):
        HuggingFace("train", root=str(tmp_path), columns={"picture": "image"})
    write_parquet(tmp_path / "train-2.parquet", pa.table({"text": ["a"]}))
    with pytest.raises(InputError, match="has the columns"):
        HuggingFace("train", root=str(tmp_path))
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(InputError, match="has no column of images. Its columns: text"):
        HuggingFace("train", root=str(tmp_path))
    (tmp_path / "train-2.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(InputError, match="cannot be read .*; it may be damaged"):
        HuggingFace("train", root=str(tmp_path))
    save_to_disk(tmp_path / "saved", table(VALUES, LABELS))
    (tmp_path / "saved/data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match="is not complete"):
        HuggingFace("train", root=str(tmp_path / "saved"))


@pytest.mark.slow
def test_files_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    images = [Image.fromarray(np.full((8, 9, 3), value, np.uint8)) for value in VALUES]
    made = datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)
    datasets.DatasetDict({"train": made, "val": made.select([6, 1])}).save_to_disk(
        tmp_path / "saved", num_shards={"train": 2, "val": 1}
    )
    (tmp_path / "parquet").mkdir()
    made.to_parquet(tmp_path / "parquet/train-00000-of-00001.parquet")
    for folder in ("saved", "parquet"):
        data = HuggingFace("train", root=str(tmp_path / folder))
        assert content(data) == EXPECTED and data.labels.classes == ("cat", "dog")
    assert content(HuggingFace("val", root=str(tmp_path / "saved"))) == [EXPECTED[6], EXPECTED[1]]


def test_an_epoch_is_the_same_with_workers(tmp_path):
    write(tmp_path, "shards")
    epochs = []
    for workers in (0, 2):
        overrides = (f"dataset.num_workers={workers}", "dataset.batch_size=2", "image_size=[32,32]")
        data = build_data(composed("dataset=huggingface", f"dataset.root={tmp_path}", *overrides))
        epochs.append([(batch["index"].tolist(), batch["image"].sum().item()) for batch in data.loader("train", training=True)])
    assert epochs[0] == epochs[1] and len(epochs[0]) == 3
