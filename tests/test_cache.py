"""Images in memory are those of the files, are shared by workers, and stay below the limit."""

import json
import logging

import cv2
import numpy as np
import pytest
import torch
from data_files import coco_annotations, write_image

from spine.data.cache import Cached, SharedMemory
from spine.data.data_module import DataModule
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.shapes import Shapes
from spine.data.transforms import HorizontalFlip, RandomResizedCrop
from spine.errors import InputError

COUNT, TABLE = 12, 12 * 5 * 8


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        path = tmp_path / "train" / "ab"[number % 2] / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (90 + number, 70)))
    return tmp_path


def images(folder, memory, kind):
    return Cached(ImageFolder("train", root=str(folder)), memory, kind)


@pytest.mark.parametrize("kind", ["encoded", "decoded"])
def test_cached_images_are_those_of_the_files(folder, kind):
    plain = ImageFolder("train", root=str(folder))
    data = images(folder, SharedMemory(1 << 20), kind)
    for _ in range(2):  # from the files, then from memory
        for index in range(COUNT):
            read, expected = data.load(index), plain.load(index)
            assert read["label"] == expected["label"]
            np.testing.assert_array_equal(read["image"], expected["image"])
    for file in folder.rglob("*.jpg"):
        file.write_bytes(b"")
    assert all(data.load(index)["image"].shape == (70, data.load(index)["image"].shape[1], 3) for index in range(COUNT))
    data.load(0)["image"][:] = 0  # a transform that changes its image does not change the cache
    assert data.load(0)["image"].any()
    encoded = data.encoded_image(1)
    assert (encoded is None) == (kind == "decoded")
    if encoded is not None:
        assert encoded.name == plain.files(1)[0] and encoded.size is None and encoded.upright


@pytest.mark.parametrize("kind", ["encoded", "decoded"])
def test_the_limit_is_kept_and_a_full_cache_is_reported_once(folder, kind, caplog):
    plain = ImageFolder("train", root=str(folder))
    size = 70 * 101 * 3 if kind == "decoded" else max(len(plain.encoded_image(index).data) for index in range(COUNT))
    memory = SharedMemory(TABLE + 3 * size)
    data = images(folder, memory, kind)
    with caplog.at_level(logging.WARNING, "spine.data"):
        for index in range(COUNT):
            np.testing.assert_array_equal(data.load(index)["image"], plain.load(index)["image"])
    assert TABLE + 2 * size <= memory.used <= len(memory.block)
    assert caplog.text.count("dataset.cache is full") == 1
    none = SharedMemory(10)  # not even the table fits
    assert images(folder, none, kind).load(1)["image"].any() and none.used == 0


@pytest.mark.parametrize("kind", ["none", "encoded", "decoded"])
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_share_the_cache_and_epochs_stay_the_same(folder, kind, workers, monkeypatch):
    monkeypatch.setattr("spine.data.workers.available_cores", lambda: 4)
    fast = kind != "decoded"  # decoded images are not read in part
    steps = [RandomResizedCrop((32, 32), interpolation="bilinear", fast=fast), HorizontalFlip()]

    def module(workers, kind):
        return DataModule(
            lambda split: ImageFolder(split, root=str(folder)), steps, needs={"image", "label"}, batch_size=4, num_workers=workers,
            cache=kind, cache_gb=0.001,
        )  # fmt: skip

    def epochs(data):
        loader = data.loader("train", training=True)
        for epoch in range(3):
            loader.batch_sampler.set_epoch(epoch)
            yield [(batch["index"].tolist(), batch["image"].clone()) for batch in loader]

    data = module(workers, kind)
    for expected, found in zip(epochs(module(0, "none")), epochs(data), strict=True):
        for (index, image), (own_index, own_image) in zip(expected, found, strict=True):
            assert index == own_index and torch.equal(image, own_image)
    if kind == "none":
        assert data.memory is None
        return
    source = ImageFolder("train", root=str(folder))
    lengths = [source.load(i)["image"].size if kind == "decoded" else len(source.encoded_image(i).data) for i in range(COUNT)]
    assert data.memory.used == TABLE + sum(-(-length // 8) * 8 for length in lengths)  # each image once, whichever worker read it


@pytest.mark.parametrize("kind", ["encoded", "decoded"])
def test_persons_of_one_image_share_its_place(tmp_path, kind):
    content = coco_annotations()
    first = content["annotations"][0]
    content["annotations"] = [first, {**first, "id": 2, "bbox": [1, 1, 5, 5]}]
    (tmp_path / "train.json").write_text(json.dumps(content))
    write_image(tmp_path / "images/train/a.png", size=(20, 30))
    plain = COCOKeypoints("train", root=str(tmp_path), images="images/{split}", annotations="{split}.json", sigmas=0.05)
    data = Cached(plain, SharedMemory(1 << 20), kind)
    for _ in range(2):
        for index in range(2):
            read, expected = data.load(index), plain.load(index)
            np.testing.assert_array_equal(read["image"], expected["image"])
            np.testing.assert_array_equal(read["box"], expected["box"])
    length = 20 * 30 * 3 if kind == "decoded" else (tmp_path / "images/train/a.png").stat().st_size
    assert data.memory.used == 2 * 5 * 8 + -(-length // 8) * 8


def test_a_data_set_without_image_files_has_nothing_encoded():
    with pytest.raises(InputError, match="Set dataset.cache=decoded or none"):
        Cached(Shapes("train"), SharedMemory(1 << 20), "encoded")
