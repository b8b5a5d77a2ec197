"""An epoch has the same samples, bit by bit, for any number of workers and processes, from a folder and from shards, and resumed."""

import hashlib
from functools import partial

import albumentations
import numpy as np
import pytest
from shard_files import pack_photos
from trainers import fake_trainer

from spine.data.data_module import DataModule
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.shards import Shards
from spine.data.transforms import RandomResizedCrop

STEP = 12  # samples of all processes together
EPOCH = 1


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    photos, shards = pack_photos(tmp_path_factory.mktemp("identical"))
    return {
        "folder": partial(ImageFolder, root=str(photos)),
        "shards": partial(Shards, root=str(shards)),
        "windows": partial(Shards, root=str(shards), window=5, streams=6),
    }


@pytest.fixture
def many_cores(monkeypatch):
    """The number of workers is at most that of the cores."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)


def module(place, workers, rank, world):
    steps = [RandomResizedCrop((32, 32)), albumentations.HorizontalFlip(), albumentations.ColorJitter()]
    data = DataModule(
        place, steps, needs={"image", "label"}, batch_size=STEP // world, global_batch_size=STEP, num_workers=workers, seed=3
    )
    data.trainer = fake_trainer(rank, world)
    return data


def hashes(loader):
    """Returns the hash of each sample, in order."""
    return [
        hashlib.sha256(b"".join(batch[key][i].contiguous().numpy().tobytes() for key in ("image", "label", "index"))).hexdigest()
        for batch in loader
        for i in range(len(batch["label"]))
    ]


def epoch(place, workers=0, world=1, samples_done=0):
    """Returns the hashes of all samples of an epoch in the order of training, divided among processes and put together again."""
    parts = []
    for rank in range(world):
        loader = module(place, workers, rank, world).loader("train", training=True)
        if samples_done:
            loader.load_state_dict({"epoch": EPOCH, "samples_done": samples_done})
        else:
            loader.batch_sampler.set_epoch(EPOCH)
        parts.append(hashes(loader))
    assert len({len(part) for part in parts}) == 1
    return [each for together in zip(*parts, strict=True) for each in together]


@pytest.fixture(scope="module")
def expected(places):
    return {name: epoch(place) for name, place in places.items()}


def test_an_epoch_has_every_sample_once(expected):
    for name, found in expected.items():
        assert len(set(found)) == len(found) == 36, name  # of 41: the incomplete last step is left out


def test_shards_give_the_samples_of_the_folder_in_the_same_order(expected):
    assert expected["shards"] == expected["folder"]


def test_windows_give_the_same_samples_in_another_order(places, expected):
    data = places["windows"]("train")
    assert sorted(data.order(3, EPOCH)[np.arange(41)]) == list(range(41))
    assert expected["windows"] != expected["folder"]


@pytest.mark.parametrize("name", ["folder", "shards", "windows"])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_numbers_of_workers_and_processes_change_nothing(name, workers, world, places, expected, many_cores):
    assert epoch(places[name], workers, world) == expected[name]


@pytest.mark.parametrize("name", ["folder", "shards", "windows"])
@pytest.mark.parametrize(("workers", "world"), [(0, 1), (0, 2), (0, 3), (2, 1), (4, 2)])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_resumed_epoch_has_the_other_samples_in_their_order(name, workers, world, places, expected, many_cores):
    assert epoch(places[name], workers, world, samples_done=STEP) == expected[name][STEP:]


@pytest.mark.parametrize("name", ["folder", "shards"])
def test_evaluations_have_the_same_samples(name, places):
    def validation(workers):
        steps = [albumentations.Resize(32, 32)]
        data = DataModule(places[name], (), steps, needs={"image", "label"}, batch_size=3, num_workers=workers)
        return hashes(data.loader("val"))

    assert validation(0) == validation(2) and len(set(validation(0))) == 7
    whole = DataModule(places["folder"], (), [albumentations.Resize(32, 32)], needs={"image", "label"}, num_workers=0)
    assert validation(0) == hashes(whole.loader("val"))
