"""Packing data sets into shards, reading them for every task, and what broken shards say."""

import io
import json
import pickle
import shutil
import tarfile
import threading
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from command_line import run_command
from data_files import coco_annotations, write_image, write_mask
from shard_files import OPTIONS, pack, pack_photos, write_photos
from test_configs import composed

from spine.commands.pack import pack_data
from spine.data import build_data
from spine.data.data_module import DataModule
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.mask_folder import MaskFolder
from spine.data.formats.shapes import Shapes
from spine.data.formats.shards import Shards
from spine.data.sampler import TrainingBatches
from spine.data.shards import packing
from spine.data.shards.order import WindowOrder
from spine.data.shards.storage import AHEAD
from spine.data.shards.tar import pack_members, unpack_members
from spine.data.subset import Subset
from spine.errors import InputError, UnreadableFileError
from spine.interfaces import DataSet, Labels


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of photos and one of its shards."""
    return pack_photos(tmp_path_factory.mktemp("shards"))


@pytest.fixture
def copied(photos, tmp_path):
    """Shards that a test may break."""
    return shutil.copytree(photos[1], tmp_path / "copied")


def assert_same_samples(packed, data):
    assert len(packed) == len(data) and packed.labels == data.labels and packed.provides == data.provides
    data.check(data.provides)
    packed.check(packed.provides)
    for index in range(len(data)):
        expected, found = data.load(index), packed.load(index)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert np.array_equal(value, found[key]), key
            assert np.asarray(value).dtype == np.asarray(found[key]).dtype or np.isscalar(value), key
        annotations = packed.load_annotations(index)
        assert annotations.keys() == expected.keys() - {"image"}


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- every task ----


def test_photos_are_stored_as_they_are(photos):
    folder, shards = photos
    data, packed = ImageFolder("train", root=str(folder)), Shards("train", root=str(shards))
    assert_same_samples(packed, data)
    assert np.array_equal(packed.class_indices(), data.class_indices()) and packed.class_indices().dtype == np.uint8
    assert packed.encoded_image(7).data.tobytes() == data.path(7).read_bytes()
    assert len(list(shards.glob("train-*.tar"))) == 4 and not list(shards.glob("*.part")) and not list(shards.glob("*.tar.json"))


def test_rendered_images_have_all_annotations(tmp_path):
    shards = pack(tmp_path / "shards", "shapes", "Shapes", length={"train": 5, "val": 2, "test": 1})
    for split, count in (("train", 5), ("val", 2), ("test", 1)):
        packed = Shards(split, root=str(shards))
        assert len(packed) == count
        assert_same_samples(packed, Shapes(split, length={"train": 5, "val": 2, "test": 1}))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "keys",
    [
        ["dataset.limit=9", "dataset.limit_seed=3"],
        ["dataset.k_fold=3", "dataset.fold=1", "dataset.limit=0.5", "seed=4"],
        None,  # joined
    ],
)
def test_splits_are_packed_as_a_training_opens_them(photos, tmp_path, keys, split):
    if keys is None:
        write_photos(tmp_path / "more", 6, 3, "ad")
        parts = {"first": (photos[0], 2), "more": (tmp_path / "more", 1)}
        arguments = ["dataset=joined"]
        for name, (root, weight) in parts.items():
            place = f"dataset.parts.{name}"
            arguments += [f"+dataset@{place}=image_folder", f"{place}.root={root}", f"+{place}.weight={weight}"]
    else:
        arguments = ["dataset=image_folder", f"dataset.root={photos[0]}", *keys]
    config = composed(*arguments)
    pack_data(config["dataset"], tmp_path / "out", OPTIONS, config["seed"])
    expected, packed = build_data(config).split(split), Shards(split, root=str(tmp_path / "out"))
    assert_same_samples(packed, expected)
    assert np.array_equal(packed.class_indices(), expected.class_indices()) and packed.labels.classes == expected.labels.classes
    if keys is None:
        assert np.array_equal(packed.sample_weights(), expected.sample_weights()) and len(set(packed.sample_weights())) == 2
    elif split == "train":
        assert len(packed) < 41
    pack_data(config["dataset"], tmp_path / "out", OPTIONS, config["seed"])  # complete
    other = composed(*arguments, "seed=9", *(["dataset.limit_seed=9"] if keys is not None else ["dataset.parts.first.weight=1"]))
    with pytest.raises(InputError, match="of another data set or of other options"):
        pack_data(other["dataset"], tmp_path / "out", OPTIONS, other["seed"])


@pytest.mark.parametrize(("key", "value"), [("sampling", "class_balanced"), ("repeats", 2), ("on_error", "skip")])
def test_settings_that_cannot_be_packed_are_refused(photos, tmp_path, key, value):
    config = composed("dataset=image_folder", f"dataset.root={photos[0]}", f"dataset.{key}={value}")
    with pytest.raises(
        InputError, match=rf"dataset.{key}={value} cannot be packed, because shards store every sample once: leave"
    ):
        pack_data(config["dataset"], tmp_path / "out", OPTIONS)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("overlapping", [False, True])
def test_masks_are_stored_without_loss(overlapping, tmp_path):
    rng, names = np.random.default_rng(0), ["one", "two", "three", "four", "five"]
    for number in range(4):
        write_image(tmp_path / f"images/train/{number}.png", (number, 5, 9))
        if overlapping:
            for name in names:
                write_mask(tmp_path / f"masks/train/{name}/{number}.png", rng.integers(0, 2, (20, 30)) * 255)
        else:
            write_mask(tmp_path / f"masks/train/{number}.png", rng.choice([*range(5), 255], (20, 30)))
    options = {"classes": names, "multi_label": "files"} if overlapping else {"classes": names, "ignore_index": 255}
    shards = pack(tmp_path / "shards", "mask_folder", "MaskFolder", tmp_path, splits=["train"], **options)
    packed = Shards("train", root=str(shards))
    assert_same_samples(packed, MaskFolder("train", root=str(tmp_path), **options))
    assert packed.load(0)["mask"].ndim == (3 if overlapping else 2)


def test_keypoints_have_their_boxes_and_the_objects_that_are_no_samples(tmp_path):
    write_image(tmp_path / "train/a.png")
    annotations = tmp_path / "annotations" / "person_keypoints_train.json"
    annotations.parent.mkdir()
    annotations.write_text(json.dumps(coco_annotations()))
    shards = pack(tmp_path / "shards", "coco_keypoints", "COCOKeypoints", tmp_path, splits=["train"], sigmas=0.05)
    data, packed = COCOKeypoints("train", root=str(tmp_path), sigmas=0.05), Shards("train", root=str(shards))
    assert_same_samples(packed, data)
    expected, found = data.keypoint_annotations(), packed.keypoint_annotations()
    assert len(found.image_ids) == 3 and found.crowd.any()
    assert found.images == expected.images and found.category == expected.category
    for key in ("image_ids", "keypoints", "boxes", "areas", "crowd", "labeled"):
        assert np.array_equal(getattr(found, key), getattr(expected, key)), key


class Tagged(DataSet):
    """Images of several classes, with weights and groups."""

    labels, provides = Labels(classes=("sky", "sea", "sand"), several_classes=True), frozenset({"image", "label"})

    def __len__(self):
        return 6

    def load(self, index):
        return {
            "image": np.full((4, 5, 3), index, np.uint8),
            "label": np.array([index & 1, index >> 1 & 1, index >> 2], np.uint8),
        }

    def sample_weights(self):
        return np.arange(6) / 4

    def groups(self):
        return np.array([0, 0, 1, 1, 2, 2])


class Unlabeled(Tagged):
    """Images alone."""

    labels, provides = Labels(), frozenset({"image"})

    def load(self, index):
        return {"image": super().load(index)["image"]}


@pytest.mark.parametrize("kind", [Tagged, Unlabeled])
@pytest.mark.parametrize("seed", [None, 4])
def test_several_classes_weights_and_groups_are_in_the_index(kind, seed, tmp_path):
    data, out = kind(), tmp_path / "out"
    packing.begin(out, {})
    plan = packing.plan_split(data, "train", 0.01, seed)
    packing.finish(out, data.labels, {"train": packing.pack_split(data, plan, out, 1, lambda done: None)})
    packed, order = Shards("train", root=str(out)), plan.order()
    assert (order.tolist() == list(range(6))) == (seed is None)
    assert packed.labels == data.labels and packed.provides == data.provides and packed.class_indices() is None
    assert np.array_equal(packed.groups(), data.groups()[order])
    assert np.array_equal(packed.sample_weights(), data.sample_weights()[order])
    for place, index in enumerate(order):
        expected, found = data.load(index), packed.load(place)
        assert expected.keys() == found.keys() and all(np.array_equal(found[key], expected[key]) for key in expected)


# ---- packing ----


@pytest.mark.slow
def test_the_shards_do_not_depend_on_the_number_of_processes(photos, tmp_path):
    again = pack(tmp_path / "again", "image_folder", "ImageFolder", photos[0], workers=2)
    assert contents(again) == contents(photos[1])


def test_an_interrupted_packing_goes_on_with_the_missing_shards(photos, tmp_path, monkeypatch):
    out, write, written = tmp_path / "out", packing.write_shard, []

    def interrupted(data, plan, folder, number):
        if number == 2 and plan.split == "train":
            (folder / "train-000002.tar.part").write_bytes(b"half")
            raise KeyboardInterrupt
        write(data, plan, folder, number)

    monkeypatch.setattr(packing, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(out, "image_folder", "ImageFolder", photos[0])
    with pytest.raises(InputError, match="no shards of split"):  # an unfinished folder has no index
        Shards("val", root=str(out))
    monkeypatch.setattr(packing, "write_shard", lambda *given: (written.append(given[2:]), write(*given)))
    with pytest.raises(InputError, match="unfinished shards of another data set or of other options"):
        pack(out, "image_folder", "ImageFolder", photos[0], shard_mb=0.1)
    pack(out, "image_folder", "ImageFolder", photos[0])
    assert [number for _, number in written] == [2, 3, 0] and contents(out) == contents(photos[1])
    pack(out, "image_folder", "ImageFolder", photos[0])
    assert len(written) == 3  # it is complete


def test_other_folders_are_refused(photos, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty: it has notes.txt. Give a new folder"):
        pack(tmp_path, "image_folder", "ImageFolder", photos[0])
    with pytest.raises(InputError, match="which is a file"):
        pack(tmp_path / "notes.txt", "image_folder", "ImageFolder", photos[0])


def test_splits_of_other_classes_are_refused(tmp_path, monkeypatch):
    photos = write_photos(tmp_path / "photos", 6, 3)
    monkeypatch.setattr(
        ImageFolder, "labels", property(lambda self: Labels(classes=(self.split,)), lambda self, labels: None), raising=False
    )
    with pytest.raises(InputError, match="Split val does not have the classes, keypoints and colors of train"):
        pack(tmp_path / "out", "image_folder", "ImageFolder", photos)


def test_what_is_written_is_read_back(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(packing.os, "fsync", lambda descriptor: damage(tmp_path / "out" / "train-000000.tar.part"))
    with pytest.raises(InputError, match="was not read back as it was written"):
        pack(tmp_path / "out", "image_folder", "ImageFolder", photos[0])
    assert not list((tmp_path / "out").glob("*.tar"))


def damage(path, position=700):
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 255]))


def test_webdataset_reads_the_shards(photos):
    webdataset = pytest.importorskip("webdataset")
    data = ImageFolder("train", root=str(photos[0]))
    names = sorted(map(str, photos[1].glob("train-*.tar")))
    found = list(webdataset.WebDataset(names, shardshuffle=False))
    assert [int(sample["cls"]) for sample in found] == data.class_indices().tolist()
    assert [sample["jpg"] for sample in found] == [data.path(index).read_bytes() for index in range(len(data))]
    decoded = next(iter(webdataset.WebDataset(names, shardshuffle=False).decode("rgb8")))
    assert decoded["jpg"].shape == data.load(0)["image"].shape and decoded["cls"] == 0


# ---- mistakes ----


def message(action):
    with pytest.raises(InputError) as error:
        action()
    return str(error.value)


def checked(folder, split="train"):
    data = Shards(split, root=str(folder))
    data.check(data.provides)


def test_broken_shards_get_one_sentence(copied):
    shard = copied / "train-000001.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:5000])
    data = Shards("train", root=str(copied))
    assert "is truncated or was replaced" in message(lambda: data.check(data.provides))
    with pytest.raises(UnreadableFileError, match=r"is truncated: the index has a sample at bytes \d+ to \d+, and only"):
        data.load(20)
    shard.unlink()
    assert "train-000001.tar' is missing; the index lists it" in message(lambda: checked(copied))
    with pytest.raises(UnreadableFileError, match="is missing"):
        Shards("train", root=str(copied)).load(12)
    shard.write_bytes(content[512:] + bytes(512))
    assert "is not where the index says" in message(lambda: Shards("train", root=str(copied)).load(12))


def test_a_wrong_index_gets_one_sentence(copied):
    ends = np.load(copied / "index/train.ends.npy")
    np.save(copied / "index/train.ends.npy", ends[:-1])
    assert "has 40 ends, and its shards have 41 samples" in message(lambda: checked(copied))
    np.save(copied / "index/train.ends.npy", ends + np.uint32(1))
    assert "is not where the index says" in message(lambda: checked(copied))
    (copied / "index/train.ends.npy").write_bytes(b"no array")
    assert "train.ends.npy' is missing or broken" in message(lambda: checked(copied))
    (copied / "shards.json").write_text("{}")
    assert "is not a list of shards that spine wrote" in message(lambda: checked(copied))


def test_an_unknown_split_names_the_others(photos):
    assert "has no split 'test'. Splits: train, val." in message(lambda: checked(photos[1], "test"))
    assert len(Shards("test", root=str(photos[1]), splits={"test": "val"})) == 7


def test_a_task_that_needs_more_than_the_shards_have(photos):
    from spine.data.data_module import Samples
    from spine.data.transforms import Transform

    data = Shards("train", root=str(photos[1]))
    transform = Transform([], mean=[0.5] * 3, std=[0.5] * 3)
    assert "does not provide mask; it provides image, label" in message(lambda: Samples(data, transform, 0, frozenset({"mask"})))


# ---- shards of others ----


def write_foreign(path, count, first=0, long_names=False, **members):
    """Writes a WebDataset tar as GNU tar would, with folders, and with members of no sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT if long_names else tarfile.GNU_FORMAT) as archive:
        folder = tarfile.TarInfo("samples")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for number in range(first, first + count):
            image = cv2.imencode(".png", np.full((6, 8, 3), number, np.uint8))[1].tobytes()
            name = f"samples/{'n' * 120 if long_names else 'n'}{number:04d}"
            for suffix, content in {"png": image, "cls": str(number % 3).encode(), **members}.items():
                if content is not None:
                    info = tarfile.TarInfo(f"{name}.{suffix}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        extra = tarfile.TarInfo("README")
        archive.addfile(extra)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("long_names", [False, True])
@pytest.mark.parametrize("pattern", ["train/{}.tar", "train-{}.tar", "imagenet-train-{}.tar"])
def test_shards_of_others_are_indexed_once(long_names, pattern, tmp_path, cache, monkeypatch):
    root = tmp_path / "others"
    for number in range(2):
        write_foreign(root / pattern.format(f"{number:06d}"), 5, 5 * number, long_names)
    data = Shards("train", root=str(root))
    data.check(data.provides)
    assert data.labels.classes == ("0", "1", "2") and data.provides == {"image", "label"}
    assert data.class_indices().tolist() == [number % 3 for number in range(10)]
    assert [int(data.load(index)["image"][0, 0, 0]) for index in range(10)] == list(range(10))
    assert Shards("train", root=str(root), classes=["a", "b", "c", "d"]).labels.classes == ("a", "b", "c", "d")
    assert "has 2 names, and the shards" in message(lambda: Shards("train", root=str(root), classes=["a", "b"]))
    monkeypatch.setattr("spine.data.shards.scanning.scan_shard", None)
    assert len(Shards("train", root=str(root))) == 10  # remembered


def test_changed_shards_are_indexed_again(tmp_path, cache):
    write_foreign(tmp_path / "others/train-0.tar", 3)
    assert len(Shards("train", root=str(tmp_path / "others"))) == 3
    write_foreign(tmp_path / "others/train-0.tar", 4)
    assert len(Shards("train", root=str(tmp_path / "others"))) == 4


def test_shards_of_others_without_classes_are_unlabeled(tmp_path, cache):
    write_foreign(tmp_path / "others/train-0.tar", 3, cls=None, txt=b"a caption")
    data = Shards("train", root=str(tmp_path / "others"))
    assert data.provides == {"image"} and data.load(2).keys() == {"image"}


def test_masks_of_others_need_the_names_of_their_classes(tmp_path, cache):
    mask = cv2.imencode(".png", np.array([[0, 2, 255]] * 6, np.uint8))[1].tobytes()
    write_foreign(tmp_path / "others/train-0.tar", 2, cls=None, **{"mask.png": mask})
    root = str(tmp_path / "others")
    assert "has the class 2, and the classes have no names" in message(lambda: checked(root))
    data = Shards("train", root=root, classes=["a", "b", "c"])
    data.check(data.provides)
    assert data.labels == Labels(mask_classes=("a", "b", "c")) and data.load(1)["mask"][0].tolist() == [0, 2, 255]
    few = Shards("train", root=root, classes=["a", "b"])
    assert "has the class 2, and there are 2 classes" in message(lambda: few.check(few.provides))


def test_faults_of_others_shards_get_one_sentence(tmp_path, cache):
    root = tmp_path / "others"
    assert "There is no folder" in message(lambda: checked(root))
    root.mkdir()
    assert "has no shards of split 'train' (train/*.tar or train*.tar" in message(lambda: checked(root))
    write_foreign(root / "train-0.tar", 3)
    whole = (root / "train-0.tar").read_bytes()
    write_foreign(root / "train-1.tar", 3, cls=None)
    assert "3 of the 6 samples of split 'train'" in message(lambda: checked(root))
    write_foreign(root / "train-1.tar", 3, cls=b"cat")
    assert "is 'cat'; a .cls member holds a number from 0" in message(lambda: checked(root))
    (root / "train-1.tar").write_bytes(whole[:2600])
    assert "train-1.tar' is truncated: it ends after its sample 'samples/n0000'" in message(lambda: checked(root))
    (root / "train-1.tar").write_bytes(b"no archive" * 100)
    assert "train-1.tar' is not a readable tar archive" in message(lambda: checked(root))


# ---- object stores ----


@pytest.fixture
def memory(photos, cache):
    """The address of shards in fsspec's memory, and its file system."""
    fsspec = pytest.importorskip("fsspec")
    files = fsspec.filesystem("memory")
    files.put(str(photos[1]), "/bucket/photos", recursive=True)
    yield "memory://bucket/photos", files
    files.rm("/bucket", recursive=True)


@pytest.fixture
def no_delays(monkeypatch):
    waited = []
    monkeypatch.setattr("spine.data.shards.storage.time.sleep", waited.append)
    return waited


def test_a_store_has_the_samples_of_the_folder(memory, photos, cache):
    data = Shards("train", root=memory[0])
    assert_same_samples(data, ImageFolder("train", root=str(photos[0])))
    assert data.window == 4096 and len(data.order(0, 0)) == 41
    copies = sorted(path.name for path in cache.rglob("*.tar"))
    assert copies == [f"train-{number:06d}.tar" for number in range(4)]  # each was copied as a whole


def test_the_index_of_a_store_is_copied_once(memory, monkeypatch):
    Shards("train", root=memory[0])
    monkeypatch.setattr("spine.data.shards.storage.Store.copy", None)
    Shards("train", root=memory[0])


def test_workers_read_a_store_of_local_files(photos, cache):
    pytest.importorskip("fsspec")
    loaded = []
    for root in (f"file://{photos[1]}", str(photos[1])):
        data = DataModule(partial(Shards, root=root), needs={"image", "label"}, batch_size=1, num_workers=2)
        loaded.append([batch["image"] for batch in data.loader("train", training=False)])
    assert len(loaded[0]) == 41 and all(torch.equal(*pair) for pair in zip(*loaded, strict=True))


def test_copies_of_earlier_shards_are_not_read(memory, photos, cache):
    before = Shards("train", root=memory[0]).load(0)
    again = pack(cache / "again", "image_folder", "ImageFolder", photos[0], store_seed=1)
    for name, content in contents(again).items():
        memory[1].pipe(f"/bucket/photos/{name}", content)
    data, expected = Shards("train", root=memory[0]), Shards("train", root=str(again))
    assert np.array_equal(data.load(0)["image"], expected.load(0)["image"])
    assert not np.array_equal(data.load(0)["image"], before["image"])


def test_copies_are_kept_within_a_limit(memory, cache, photos):
    size = (photos[1] / "train-000000.tar").stat().st_size
    data = Shards("train", root=memory[0], copies_gb=2.2 * size / 2**30)
    for index in (0, 12, 24, 36, 0):
        assert int(data.load(index)["label"]) == data.class_indices()[index]
    assert len(list(cache.rglob("*.tar"))) == 2


def test_samples_of_a_store_are_read_by_ranges_without_copies(memory, cache, photos, no_delays):
    data = Shards("train", root=memory[0], copies_gb=0)
    assert_same_samples(data, ImageFolder("train", root=str(photos[0])))
    assert not list(cache.rglob("*.tar"))
    memory[1].pipe("/bucket/photos/train-000002.tar", b"short")
    with pytest.raises(UnreadableFileError, match="is truncated"):
        data.load(30)


@pytest.mark.parametrize(("option", "value"), [("window", 0), ("streams", 0), ("copies_gb", -1.0)])
def test_options_have_ranges(option, value, photos):
    assert f"dataset.{option} is {value}; it must be" in message(lambda: Shards("train", root=str(photos[1]), **{option: value}))


def test_a_copy_that_another_process_removed_is_made_again(memory, cache, monkeypatch):
    data = Shards("train", root=memory[0])
    fetch, removed = data.storage.fetch, []

    def removing(name):
        fetch(name)
        if not removed:
            removed.append(name)
            (data.storage.folder / name).unlink()

    monkeypatch.setattr(data.storage, "fetch", removing)
    assert data.load(2)["label"] == data.class_indices()[2] and removed == ["train-000000.tar"]


def test_the_check_of_a_store_copies_no_shards(memory, cache):
    Shards("train", root=memory[0]).check(frozenset({"image", "label"}))
    assert not list(cache.rglob("*.tar"))


def test_shards_of_the_next_window_are_copied_ahead(memory, cache):
    data = Shards("train", root=memory[0], window=11, streams=1)
    order = data.order(0, 0)
    assert order[np.arange(5)].shape == (5,)
    for thread in threading.enumerate():
        if thread.name == AHEAD:
            thread.join()
    names = [data.index.shards[number].name for number in order.shards_of(0, 1)]
    assert sorted(path.name for path in cache.rglob("*.tar")) == sorted(names)


def test_a_lost_connection_is_tried_again(memory, no_delays, monkeypatch):
    data, fails = Shards("train", root=memory[0]), [ConnectionError("reset"), TimeoutError("slow")]
    files = type(data.storage.store.files)
    get = files.get_file

    def unsteady(self, *given, **named):
        if fails:
            raise fails.pop()
        return get(self, *given, **named)

    monkeypatch.setattr(files, "get_file", unsteady)
    assert data.load(3)["label"] == data.class_indices()[3] and no_delays == [0.5, 1.0]
    fails += [ConnectionError("reset")] * 9
    text = message(lambda: data.load(40))
    assert "train-000003.tar' cannot be read (ConnectionError: reset). Check the address" in text and no_delays[2:] == [
        0.5,
        1,
        2,
        4,
    ]


def test_faults_of_a_store_get_one_sentence(memory, no_delays):
    data = Shards("train", root=memory[0])
    memory[1].rm("/bucket/photos/train-000002.tar")
    with pytest.raises(UnreadableFileError, match="photos/train-000002.tar' is missing; the index lists it"):
        data.load(30)
    assert not no_delays
    assert "has no shards of split 'train'" in message(lambda: Shards("train", root="memory://bucket/elsewhere"))
    assert "cannot be opened" in message(lambda: Shards("train", root="nothing://bucket"))


def test_a_store_of_others_is_indexed(memory):
    memory[1].rm("/bucket/photos/shards.json")
    data = Shards("val", root=memory[0])
    assert len(data) == 7 and data.labels.classes == ("0", "1", "2")
    assert int(data.load(4)["label"]) == 1


def test_a_data_set_of_a_store_can_be_sent_to_another_process(memory):
    data = Shards("train", root=memory[0])
    expected = data.load(5)
    again = pickle.loads(pickle.dumps(data))
    assert isinstance(again.index.ends, np.memmap)  # not a copy of the index
    assert np.array_equal(again.load(5)["image"], expected["image"])


@pytest.mark.parametrize(("root", "fails"), [("memory://bucket", False), ("s3://bucket/photos", False), ("nowhere", True)])
def test_the_check_of_the_root_leaves_addresses_to_the_data_set(root, fails):
    from spine.config.checks import check_root

    node = {"_target_": "spine.data.formats.shards.Shards", "root": root}
    if fails:
        assert "There is no folder" in message(lambda: check_root(node))
    else:
        check_root(node)
    assert "There is no folder" in message(
        lambda: check_root({**node, "_target_": "spine.data.formats.image_folder.ImageFolder"})
    )


# ---- tar and order ----


def test_members_of_a_record():
    record = np.frombuffer(pack_members("a", [("jpg", b"x" * 513), ("cls", b"7"), ("mask.png", b"")]), np.uint8)
    assert len(record) == 512 + 1024 + 512 + 512 + 512
    found = unpack_members(record, "a")
    assert {key: value.tobytes() for key, value in found.items()} == {"jpg": b"x" * 513, "cls": b"7", "mask.png": b""}
    assert "is not where the index says" in message(lambda: unpack_members(record[:1024], "Sample 3"))


@pytest.mark.parametrize(("window", "streams"), [(1, 1), (7, 1), (10, 4), (1000, 3), (5, 500)])
def test_windows_are_a_permutation_of_neighbors(window, streams):
    counts = np.array([10, 20, 5, 30, 35])
    order, places = WindowOrder(counts, window, streams, (0, 3)), np.arange(100)
    found = order[places].tolist()
    assert sorted(found) == list(range(100))
    assert found[::-1] == WindowOrder(counts, window, streams, (0, 3))[places[::-1]].tolist()
    others = [WindowOrder(counts, window, streams, key) for key in ((0, 4), (1, 3))]
    assert all(found != other[places].tolist() for other in others)
    with pytest.raises(IndexError):
        order[np.array([3, 100])]


def test_each_process_reads_shards_of_its_own():
    counts = np.full(16, 50)
    order = WindowOrder(counts, 40, 8, (0, 0))
    shards = [set(order[np.arange(rank, 800, 4)] // 50) for rank in range(4)]
    assert sum(map(len, shards)) == 16 and set.union(*shards) == set(range(16))
    open_at_once = set(order[np.arange(0, 80, 4)] // 50)
    assert len(open_at_once) <= 4  # two parts, in each of which a window reads one or two shards


def test_the_shards_of_the_next_window_are_announced():
    announced = []
    order = WindowOrder(np.full(6, 10), 10, 2, (0, 0), announced.append)
    for place in range(60):
        assert order[np.array([place])].shape == (1,)
    shuffled = order.shards.tolist()
    assert announced == [[shuffled[1]], [shuffled[4]], [shuffled[2]], [shuffled[5]], [], []]


def test_batches_follow_the_order_of_the_data_set(photos):
    counts, places = np.full(6, 10), np.arange(60)

    def order(seed, epoch):
        return WindowOrder(counts, 7, 3, (seed, epoch))

    batches = TrainingBatches(60, 10, 5, repeats=2, order=order)
    batches.set_epoch(2)
    drawn = [(draw.index, draw.copy) for batch in batches for draw in batch]
    assert drawn == [(index, copy) for index in order(5, 2)[places[:30]].tolist() for copy in (0, 1)]
    fixed = TrainingBatches(60, 10, 5, shuffle=False, order=order)
    assert [draw.index for batch in fixed for draw in batch] == places.tolist()
    assert not hasattr(
        Subset(Shards("train", root=str(photos[1]), window=5), np.arange(9)), "order"
    )  # of parts, all are shuffled


# ---- the command ----


@pytest.mark.slow
def test_the_command_packs_and_training_reads_the_shards(tmp_path):
    write_photos(tmp_path / "photos")
    done = run_command(
        "spine.pack", "dataset=image_folder", "dataset.root=photos", "out=shards", "shard_mb=0.05", "workers=2", folder=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "train: 41 samples in 4 shards" in done.stdout and "Split test is left out" in done.stdout
    options = (
        "task=cls", "image_size=[32,32]", "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.precision=32-true",
        "backbone=mobilenet_v2", "dataset.batch_size=8", "dataset.num_workers=1",
    )  # fmt: skip
    trained = []
    for dataset, root in (("image_folder", "photos"), ("shards", "shards")):
        own = (f"dataset={dataset}", f"dataset.root={root}", f"hydra.run.dir={dataset}")
        done = run_command("train.py", *own, *options, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        trained.append(torch.load(tmp_path / dataset / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    assert trained[0].keys() == trained[1].keys()
    assert all(torch.equal(trained[0][key], trained[1][key]) for key in trained[0])  # the same training bit by bit


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "out is missing"),
        (["out=shards", "shard_mb=0"], "shard_mb is 0; it must be a number of MiB above 0."),
        (["out=shards", "workers=0"], "workers is 0; it must be a whole number of processes, 1 or more"),
        (["out=shards", "dataset=image_folder"], "set its folder with dataset.root=<path>"),
        (["out=shards", "dataset=image_folder", "dataset.root=nowhere"], "There is no folder 'nowhere'"),
        (["out=shards", "-m", "seed=1,2"], "spine.pack packs one data set"),
    ],
)
def test_mistakes_of_the_command_get_one_sentence(arguments, text, tmp_path):
    done = run_command("spine.pack", *arguments, folder=tmp_path)
    assert done.returncode == 1 and text in done.stderr and "Traceback" not in done.stderr, done.stderr
