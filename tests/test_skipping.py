"""dataset.on_error=skip: unreadable files are listed, and other samples take the place of theirs."""

import json
import logging
from functools import partial
from pathlib import Path

import albumentations
import numpy as np
import pytest
import torch
from command_line import run_command
from data_files import coco_annotations, write_image, write_mask
from test_configs import composed, trained
from trainers import fake_trainer

from spine.config.messages import user_message
from spine.data import build_data
from spine.data.data_module import DataModule
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.image_folder import ImageFolder
from spine.data.masks import read_mask
from spine.data.sampler import Draw, TrainingBatches
from spine.data.skipping import UNREADABLE, UnreadableFiles
from spine.data.transforms import CenterCrop, TopDownAffine
from spine.errors import InputError, UnreadableFileError

pytestmark = pytest.mark.usefixtures("blank_figures")

BROKEN = {"train": ("a/3.png", "b/7.png"), "val": ("a/1.png", "b/4.png", "b/5.png", "b/6.png", "b/7.png")}


@pytest.fixture
def photos(tmp_path):
    """24 training and 16 validation images, some of which are empty or cut off."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 8)):
        for name in ("a", "b"):
            for i in range(count):
                write_image(tmp_path / "photos" / split / name / f"{i}.png", rng.integers(0, 256, 3).tolist(), (40, 60))
    for split, names in BROKEN.items():
        for name in names:
            (tmp_path / "photos" / split / name).write_bytes(b"" if name.startswith("a") else b"\x89PNG\r\n")
    return tmp_path / "photos"


def module(root, workers=0, folder=None, rank=0, world=1, **options):
    data = DataModule(
        partial(ImageFolder, root=str(root)), [albumentations.RandomCrop(32, 32)], [CenterCrop((32, 32))],
        needs={"image", "label"}, batch_size=4, num_workers=workers, **{"on_error": "skip", "max_error_share": 0.5, **options},
    )  # fmt: skip
    if folder is not None:
        data.trainer = fake_trainer(rank, world, folder=folder)
    return data


def epoch(loader, number=0):
    loader.batch_sampler.set_epoch(number)
    return [
        (batch["index"].tolist(), batch["copy"].tolist(), batch["label"].tolist(), batch["image"].numpy().tobytes())
        for batch in loader
    ]


def indices(names, data):
    return {i for i in range(len(data)) if data.files(i)[0].endswith(tuple(names))}


def test_a_training_sample_is_replaced_by_the_same_one_for_any_number_of_workers(photos, tmp_path):
    loader = module(photos).loader("train", training=True)
    first, second = epoch(loader, 0), epoch(loader, 1)
    broken = indices(BROKEN["train"], loader.dataset.samples.data)
    drawn = [i for batch in first for i in batch[0]]
    assert len(drawn) == 24 and not broken & set(drawn) and len(set(drawn)) in (21, 22)
    assert sorted(drawn) != sorted(i for batch in second for i in batch[0])  # other samples in another epoch
    for workers in (1, 2, 4):
        loader = module(photos, workers, tmp_path / str(workers)).loader("train", training=True)
        assert epoch(loader, 0) == first and epoch(loader, 1) == second


@pytest.mark.parametrize("world", [2, 3])
def test_processes_replace_the_same_samples(photos, tmp_path, world):
    whole = module(photos, global_batch_size=12).transformed("train", training=True)
    expected = [whole[draw]["image"] for batch in TrainingBatches(24, 12, 0, global_batch_size=12) for draw in batch]
    found = []
    for rank in range(world):
        loader = module(photos, 0, tmp_path, rank, world, global_batch_size=12).loader("train", training=True)
        images = torch.cat([batch["image"] for batch in loader])
        found += [(step * 12 + place * world + rank, image) for step in range(2) for place, image in
                  enumerate(images[step * len(images) // 2 : (step + 1) * len(images) // 2])]  # fmt: skip
    assert all(torch.equal(image, expected[place]) for place, image in found) and len(found) == 24
    assert len((tmp_path / UNREADABLE).read_text().splitlines()) == 2


def test_a_replaced_sample_has_augmentation_of_its_own(photos):
    samples = module(photos).transformed("train", training=True)
    broken = sorted(indices(BROKEN["train"], samples.data))
    taken = samples[Draw(0, broken[0])]
    index, copy = int(taken["index"]), int(taken["copy"])
    assert index not in broken and copy > 2**32
    again = samples[Draw(0, index, copy)]  # as a record of a bad batch names it
    assert all(torch.equal(taken[key], again[key]) for key in taken)
    assert samples[Draw(0, broken[0], 1)]["copy"] != copy != samples[Draw(0, broken[1])]["copy"]


def test_files_are_listed_once_for_all_epochs_workers_and_starts(photos, tmp_path):
    for _ in range(2):
        loader = module(photos, 2, tmp_path).loader("train", training=True)
        for number in range(3):
            epoch(loader, number)
    lines = [line.split("\t") for line in (tmp_path / UNREADABLE).read_text().splitlines()]
    assert sorted(line[1] for line in lines) == [str(photos / "train" / name) for name in BROKEN["train"]]
    assert all(line[0] == "train" and "cannot be decoded as an image; it is empty or corrupt" in line[2] for line in lines)


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluations_leave_samples_out(photos, tmp_path, workers):
    loader = module(photos, workers, tmp_path).loader("val")
    broken = indices(BROKEN["val"], loader.dataset.samples.data)
    batches = list(loader)
    counted = [i for batch in batches if "spare" not in batch for i in batch["index"].tolist()]
    assert counted == [i for i in range(16) if i not in broken]
    assert [len(batch["index"]) for batch in batches] == [3, 4, 4, 1] and "spare" in batches[3]  # the last batch has none
    assert len((tmp_path / UNREADABLE).read_text().splitlines()) == 5


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("folder", [True, False])
def test_a_run_stops_above_the_share(photos, tmp_path, workers, folder):
    loader = module(photos, workers, tmp_path if folder else None, max_error_share=0.05).loader("train", training=True)
    with pytest.raises(InputError) as error:
        for number in range(3):
            epoch(loader, number)
    message = user_message(error.value)
    assert message.startswith(
        "2 files of the 24 samples of split 'train' cannot be read, more than the share dataset.max_error_share=0.05. "
    )
    assert (f"'{tmp_path / UNREADABLE}' lists them." in message) == folder and "\n" not in message


@pytest.mark.parametrize("workers", [0, 1])
def test_by_default_an_unreadable_file_is_an_error(photos, workers):
    (photos / "train" / "a" / "0.png").write_bytes(b"")
    with pytest.raises(UnreadableFileError, match="0.png"):
        module(photos, workers, on_error="raise").loader("train", training=True)  # found by the check
    loader = module(photos, workers).loader("train", training=True)
    loader.dataset.samples.skipping = None
    with pytest.raises(InputError) as error:
        epoch(loader)
    message = user_message(error.value)
    assert message.startswith("File '") and message.endswith("Replace it or remove it from the data set.")


def test_missing_files_and_masks_are_unreadable(photos, tmp_path):
    data = module(photos).split("train")
    Path(data.files(0)[0]).unlink()
    with pytest.raises(UnreadableFileError) as error:
        data.load(0)
    assert error.value.path == data.files(0)[0]
    write_mask(tmp_path / "mask.png", np.zeros((4, 4)))
    (tmp_path / "mask.png").write_bytes(b"broken")
    with pytest.raises(UnreadableFileError, match="cannot be decoded as a mask"):
        read_mask(tmp_path / "mask.png")


def scenes(root, listed=None):
    """Eight pairs of images and masks, of which `0` has no mask and, in lists, `1` has no image."""
    for i in range(8):
        write_image(root / f"images/train/{i}.png", (30 * i, 0, 0), (32, 32))
        write_mask(root / f"masks/train/{i}.png", np.arange(32 * 32).reshape(32, 32) % 2)
    (root / "masks/train/0.png").unlink()
    (root / "train.txt").write_text(
        "".join(f"images/train/{i}.png masks/train/{i}.png\n" if listed == "paths" else f"{i}\n" for i in range(8))
    )
    if listed is not None:
        (root / "images/train/1.png").unlink()
    return [
        "task=seg", "backbone=mobilenet_v2", "head=fcn", "dataset=mask_folder", f"dataset.root={root}", "dataset.classes=[a,b]",
        "image_size=[32,32]", "dataset.batch_size=4", "dataset.num_workers=0",
        *(["dataset.pairs='{split}.txt'"] if listed is not None else []),
    ]  # fmt: skip


SKIP = ["dataset.on_error=skip", "dataset.max_error_share=0.3"]


@pytest.mark.parametrize("listed", [None, "paths", "names"])
def test_pairs_with_a_missing_file_are_skipped(tmp_path, listed, caplog):
    arguments = scenes(tmp_path, listed)
    with pytest.raises(InputError, match="1 of 8 images have no mask|2 files in the list|1 of 8 names in the list"):
        build_data(composed(*arguments)).split("train")
    data = build_data(composed(*arguments, *SKIP))
    data.trainer = fake_trainer(folder=tmp_path)
    assert len(data.split("train")) == 8 and "They count as unreadable files (dataset.on_error=skip)." in caplog.text
    loader = data.loader("train", training=True)
    loader.batch_sampler.set_epoch(0)
    drawn = [index for batch in loader for index in batch["index"].tolist()]
    missing = [0] if listed is None else [0, 1]
    files = [data.split("train").files(index)[index == 0] for index in missing]
    assert len(drawn) == 8 and not set(drawn) & set(missing)
    assert files[0] == str(tmp_path / "masks/train/0.png") and not Path(files[-1]).exists()
    lines = [line.split("\t") for line in (tmp_path / UNREADABLE).read_text().splitlines()]
    assert sorted(line[1] for line in lines) == sorted(files) and all("is missing" in line[2] for line in lines)


def test_missing_masks_above_the_share_stop_a_run(tmp_path):
    arguments = scenes(tmp_path)
    for i in range(1, 4):
        (tmp_path / f"masks/train/{i}.png").unlink()
    loader = build_data(composed(*arguments, *SKIP)).loader("train", training=True)
    with pytest.raises(InputError, match="3 files of the 8 samples of split 'train' cannot be read, more than the share"):
        list(loader)
    for path in (tmp_path / "masks/train").iterdir():
        path.rename(path.with_stem(f"{path.stem}_mask"))
    with pytest.raises(InputError, match="8 of 8 images have no mask in"):  # none has one
        build_data(composed(*arguments, *SKIP)).split("train")


def test_people_in_images_that_are_missing_are_skipped(tmp_path):
    """The check of a data set finds the missing image first, and leaves it to the samples."""
    content = coco_annotations()
    other = {**content["annotations"][0], "id": 77, "image_id": 6}
    content |= {"images": [*content["images"], {**content["images"][0], "id": 6, "file_name": "b.png"}]}
    content["annotations"].append(other)
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = DataModule(
        partial(COCOKeypoints, root=str(tmp_path), annotations="{split}.json", sigmas=0.05), [TopDownAffine((32, 32))],
        needs={"image", "keypoints"}, batch_size=2, num_workers=0, on_error="skip", max_error_share=0.5,
    )  # fmt: skip
    assert len(data.split("train")) == 2
    with pytest.raises(UnreadableFileError, match="the first is 'b.png'"):
        data.split("train").check(frozenset({"image", "keypoints"}))
    (batch,) = data.loader("train", training=True)
    assert batch["index"].tolist() == [0, 0] and len(set(batch["copy"].tolist())) == 2


def test_lists_of_splits_are_separate(tmp_path):
    train, val = UnreadableFiles("train"), UnreadableFiles("val")
    train.folder = val.folder = tmp_path
    assert [train.add("a\tb", "why\nso"), train.add("c", "so"), val.add("c", "so"), val.add("c", "so")] == [1, 2, 1, 1]
    assert (tmp_path / UNREADABLE).read_text() == "train\ta b\twhy so\ntrain\tc\tso\nval\tc\tso\n"


OPTIONS = (
    "backbone=mobilenet_v2", "dataset=image_folder", "image_size=[32,32]", "dataset.batch_size=4", "dataset.num_workers=0",
    "dataset.on_error=skip", "trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.num_sanity_val_steps=0",
)  # fmt: skip


def test_a_run_reports_what_it_skipped(photos, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    trained(tmp_path, *OPTIONS, f"dataset.root={photos}", "dataset.max_error_share=0.5")
    assert len((tmp_path / UNREADABLE).read_text().splitlines()) == 7
    assert "7 unreadable files were skipped (2 of split 'train', 5 of split 'val')." in caplog.text
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["val/top1"] is not None


@pytest.mark.slow
def test_the_command_ends_with_one_sentence(photos, tmp_path):
    done = run_command("train.py", *OPTIONS, f"dataset.root={photos}", "dataset.num_workers=2", folder=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "more than the share dataset.max_error_share=0.01" in done.stderr + done.stdout
