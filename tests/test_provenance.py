"""What starts.json records: data, weights, seeds, devices, and uncommitted changes."""

import json
import shutil

import cv2
import numpy as np
import pytest
from interruptions import at_call
from test_configs import composed
from test_resume import config

from spine.commands import train
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.mask_folder import MaskFolder
from spine.data.formats.shapes import Shapes
from spine.reporting import fingerprint as fingerprints
from spine.reporting import working_tree
from spine.reporting.fingerprint import fingerprint
from spine.reporting.provenance import differences
from spine.tasks.cls.task import Classification
from spine.training import run_folder
from spine.training.run_folder import RunFolder


@pytest.fixture
def classes(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(3):
                cv2.imwrite(str(tmp_path / "data" / split / name / f"{i}.png"), np.full((8, 8, 3), i, np.uint8))
    return tmp_path / "data"


def of_folder(root):
    return fingerprint(ImageFolder("train", root=str(root)), {}, str(root))


def test_a_fingerprint_follows_names_sizes_and_options_and_not_the_place(classes, tmp_path):
    first = of_folder(classes)
    assert of_folder(classes) == first and len(first) == 64
    shutil.copytree(classes, tmp_path / "elsewhere")
    assert of_folder(tmp_path / "elsewhere") == first
    data = ImageFolder("train", root=str(classes))
    assert fingerprint(data, {"split_seed": 1}, str(classes)) != first
    (classes / "train" / "a" / "0.png").rename(classes / "train" / "a" / "9.png")
    renamed = of_folder(classes)
    with (classes / "train" / "a" / "9.png").open("ab") as file:
        file.write(b"more")
    assert len({first, renamed, of_folder(classes)}) == 3


def test_a_fingerprint_of_a_large_split_looks_up_some_files(classes, monkeypatch):
    monkeypatch.setattr(fingerprints, "MAX_SAMPLES", 2)
    looked_up = []
    monkeypatch.setattr(ImageFolder, "files", lambda self, index: looked_up.append(index) or [])
    of_folder(classes)
    assert looked_up == [0, 5]


def test_a_fingerprint_follows_the_content_of_annotations(tmp_path):
    (tmp_path / "train").mkdir()
    cv2.imwrite(str(tmp_path / "train" / "x.png"), np.zeros((8, 8, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "x.png", "height": 8, "width": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [1, 1, 2], "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing", "keypoints": ["tip"]}],
    }
    found = []
    for x in (1, 2):
        content["annotations"][0]["keypoints"][0] = x
        (tmp_path / "train.json").write_text(json.dumps(content))
        data = COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", sigmas=0.05)
        assert data.files(0) == [str(tmp_path / "train" / "x.png")] and data.shared_files() == [str(tmp_path / "train.json")]
        found.append(fingerprint(data, {}, str(tmp_path)))
    assert found[0] != found[1]


def test_data_sets_name_the_files_of_a_sample(classes, tmp_path):
    data = ImageFolder("val", root=str(classes))
    assert data.files(4) == [str(classes / "val" / "b" / "1.png")]
    for name in ("images", "masks"):
        (tmp_path / name / "train").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / name / "train" / "x.png"), np.zeros((8, 8, 3), np.uint8))
    pairs = MaskFolder("train", root=str(tmp_path), classes=["a", "b"])
    assert pairs.files(0) == [str(tmp_path / name / "train" / "x.png") for name in ("images", "masks")]
    assert Shapes("train").files(0) == [] and Shapes("train").shared_files() == []


def test_a_start_records_inputs_devices_and_uncommitted_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "uncommitted_changes", lambda plugins: "+ a line\n")
    small = ("dataset.length={train: 8, val: 4, test: 4}", "dataset.batch_size=4", "dataset.num_workers=0")
    train.train_run(
        composed("task=cls", "backbone=mobilenet_v2", *small, "trainer.accelerator=cpu", "trainer.max_epochs=1"),
        RunFolder(tmp_path),
    )
    (start,) = RunFolder(tmp_path).starts()
    assert start["seeds"] == {"seed": 0, "dataset.seed": 0} and start["data"].keys() == {"train", "val"}
    assert start["weights"] is None and start["processes"] == 1 and "cores" in start["device"]
    assert start["diff"] == "starts/1.diff" and (tmp_path / "starts" / "1.diff").read_text() == "+ a line\n"


def test_a_resumed_run_with_other_data_logs_a_warning(tmp_path, monkeypatch, caplog):
    at_call(monkeypatch, Classification, 9)
    with pytest.raises(RuntimeError):
        train.train_run(config(), RunFolder(tmp_path))
    monkeypatch.undo()
    content = json.loads((tmp_path / "starts.json").read_text())
    content["starts"][0]["data"]["train"] = "0" * 64
    (tmp_path / "starts.json").write_text(json.dumps(content))
    train.train_run(config(), RunFolder(tmp_path))
    assert "This run continues with other inputs than it had before: data (train 00000000 → " in caplog.text
    assert len(RunFolder(tmp_path).starts()) == 2


def test_new_files_of_a_plug_in_are_in_the_patch_up_to_a_limit(tmp_path, monkeypatch):
    (tmp_path / "mine" / "heads").mkdir(parents=True)
    (tmp_path / "mine" / "heads" / "one.py").write_text("SECRET_OF_THIS_TEST = 1\n")
    (tmp_path / "mine" / "image.png").write_bytes(b"not code")
    patch = working_tree.uncommitted_changes([tmp_path / "mine"])
    assert "+SECRET_OF_THIS_TEST = 1" in patch and "image.png" not in patch
    monkeypatch.setattr(working_tree, "MAX_CHARACTERS", 20)
    assert "(cut after 20 of " in working_tree.uncommitted_changes([tmp_path / "mine"])


def test_differences_of_starts_name_what_changed():
    one = {"versions": {"torch": "2.13.0", "numpy": "2.4"}, "commit": "a" * 40, "weights_sha256": None, "device": "one"}
    other = {**one, "versions": {"torch": "2.14.0", "numpy": "2.4"}, "commit": "b" * 40, "weights_sha256": "c" * 64}
    assert differences(one, other) == {
        "commit": "commit aaaaaaaa → bbbbbbbb",
        "versions": "torch 2.13.0 → 2.14.0",
        "weights": "weights none → cccccccc",
    }
    assert differences({}, other) == {}  # an older version of spine recorded less
