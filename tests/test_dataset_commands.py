"""Data sets on the command line: from overrides, through Hydra, to samples."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_files import coco_annotations, write_image, write_mask
from test_configs import composed

from spine.commands import train
from spine.data import build_data
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.training.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
FAST = "trainer.fast_dev_run=true dataset.num_workers=0 dataset.batch_size=1 trainer.accelerator=cpu"


def opened(command, *splits):
    """Returns the first sample of each split of a command line."""
    data = build_data(composed(*shlex.split(command)))
    return [data.transformed(split, training=split == "train")[Draw(0, 0)] for split in splits]


def downloaded_coco(root):
    person = coco_annotations()
    names = ["nose", *(f"{side}_{part}" for part in "abcdefgh" for side in ("left", "right"))]
    person["categories"] = [{"id": 1, "name": "person", "keypoints": names, "skeleton": []}]
    person["annotations"] = [{**person["annotations"][0], "keypoints": [4, 5, 2] * 17}]
    (root / "coco/annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        write_image(root / "coco" / split / "a.png")
        (root / "coco/annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(person))


def guide_command(word):
    lines = [line.strip() for line in (ROOT / "docs/guides/keypoints.md").read_text().splitlines()]
    (line,) = [line for line in lines if line.startswith("python train.py") and word in line]
    return line.removeprefix("python train.py ")


def test_the_guides_coco_command_opens_coco_as_downloaded(tmp_path, monkeypatch):
    downloaded_coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    for sample in opened(guide_command("dataset.root=coco "), "train", "val"):
        assert sample["image"].shape == (3, 256, 192) and sample["keypoints"].shape == (17, 3)


@pytest.mark.slow
def test_the_guides_coco_command_runs_in_a_shell(tmp_path):
    downloaded_coco(tmp_path)
    line = guide_command("dataset.root=coco ").replace("backbone.variant=w32", "backbone.variant=micro")
    done = subprocess.run(
        f"{sys.executable} {ROOT / 'train.py'} {line} {FAST}", shell=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0 and "val/AP" in done.stdout, done.stderr


def test_split_folders_are_set_on_the_command_line(tmp_path):
    for split in ("train", "validation"):
        write_image(tmp_path / split / "a/0.png")
        write_image(tmp_path / split / "b/0.png")
    command = f"dataset=image_folder dataset.root={tmp_path} image_size=[32,32]"
    with pytest.raises(InputError, match="set dataset.splits.val=validation"):
        opened(command, "val")
    (sample,) = opened(f"{command} dataset.splits.val=validation", "val")
    assert sample["label"] == 0
    (sample,) = opened(f"{command} dataset.splits.val=validation dataset.classes=[b,a]", "val")
    assert sample["label"] == 0


def masks_of_255(root):
    for split in ("train", "val"):
        write_image(root / "images" / split / "a.png", size=(32, 32))
        write_mask(root / "masks" / split / "a.png", np.eye(32) * 255)
    return f"task=seg dataset=mask_folder dataset.root={root} dataset.classes=[a,b] image_size=[32,32]"


def test_the_advice_about_255_works_as_written(tmp_path):
    command = masks_of_255(tmp_path)
    with pytest.raises(InputError) as refused:
        opened(command, "train")
    advice = str(refused.value).split("map it: ")[1].split(";")[0]
    (sample,) = opened(f"{command} {advice} augment=none", "train")
    assert sample["mask"].unique().tolist() == [0, 1]
    (sample,) = opened(f"{command} dataset.ignore_index=255 augment=none", "train")
    assert sample["mask"].unique().tolist() == [0, 255]


def test_a_task_without_masks_does_not_read_them(tmp_path):
    command = masks_of_255(tmp_path).replace("task=seg", "task=mae")
    (sample,) = opened(command, "train")
    assert "mask" not in sample


@pytest.mark.parametrize(
    ("augment", "refused"), [("none", None), ("seg", None), ("cls", None), ("mae", None), ("dvae", "RandomResizedCrop")]
)
def test_pose_accepts_steps_that_move_keypoints(augment, refused):
    command = f"task=pose augment={augment} dataset=shapes"
    if refused:
        with pytest.raises(InputError, match=f"Augmentation 'albumentations.{refused}.* moves pixels"):
            opened(command, "train")
    else:
        for sample in opened(command, "train", "val"):
            assert sample["affine"].shape == (2, 3)


def test_pose_without_crops_evaluates(tmp_path):
    config = composed("task=pose", "augment=none", *FAST.split())
    train.train_run(config, RunFolder(tmp_path))
    assert np.isfinite(json.loads((tmp_path / "metrics.json").read_text())["metrics"]["val/NME"])


def test_evaluation_transforms_have_an_interpolation_option(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        cv2.imwrite(str(tmp_path / split / "a/0.png"), image)
    command = f"dataset=image_folder dataset.root={tmp_path} image_size=[32,32]"
    config = composed(*shlex.split(command))
    samples = []
    for interpolation in (None, "bicubic"):
        config["augment"]["eval"][0]["interpolation"] = interpolation
        samples.append(build_data(config).transformed("val")[Draw(0, 0)]["image"])
    assert (samples[0] - samples[1]).abs().max() > 0.1


def test_real_data_open_as_typed(shared_data, monkeypatch, caplog):
    monkeypatch.chdir(shared_data)
    faces = "dataset.images=images dataset.annotations=annotations/face5.json dataset.sigmas=0.05 image_size=[96,96]"
    for command in (
        "task=seg dataset=camvid dataset.root=camvid",
        "task=pose dataset=coco_keypoints dataset.root=coco_person",
        f"task=pose dataset=coco_keypoints dataset.root=face_landmarks {faces}",
        "task=cls dataset=image_folder dataset.root=caltech10",
        "task=cls dataset=image_folder dataset.root=caltech10/train dataset.val_fraction=0.1",
    ):
        assert len(opened(command, "train", "val")) == 2
    assert len(caplog.messages) == 1 and "of its 679 images are for training" in caplog.text


def test_real_photos_open_without_and_with_a_list(shared_data, monkeypatch):
    monkeypatch.chdir(shared_data)
    listed = "dataset.file=photos_labels.csv dataset.images=photos dataset.columns.path=file dataset.columns.label=synset"
    for command in (
        "task=mae dataset=unlabeled_folder dataset.root=photos dataset.val_fraction=0.1",
        f"task=mae dataset=image_list dataset.root=. {listed} \"dataset.separator=';'\"",
    ):
        train, val = opened(command, "train", "val")
        assert train["image"].shape == val["image"].shape
