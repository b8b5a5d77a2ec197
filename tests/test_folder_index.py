"""The list of the images in a folder: what is in it, when it is remembered, and who reads the folders."""

import multiprocessing
import os
import time

import pytest
from data_files import write_image
from test_configs import composed

from spine.data import build_data, folder_index
from spine.data.folder_index import index_folder
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.unlabeled_folder import UnlabeledFolder
from spine.data.sampler import Draw
from spine.errors import InputError, UnreadableFileError
from spine.user_cache import cache_folder


@pytest.fixture
def files(tmp_path):
    """A folder that was written some time ago."""
    root = tmp_path / "photos"
    for name in ("top.jpg", "b/2.JPG", "b/10.png", "a/x/deep/3.webp", ".git/4.jpg", "b/._5.jpg", "a/notes.txt", "c/6.heic"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    age(root)
    return root


def age(root):
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(0, time.time_ns() - 3_600_000_000_000))


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that remembers small folders too."""
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_index, "MIN_REMEMBERED", 1)
    return tmp_path / "cache"


def listed(index):
    return [
        f"{index.folders[f]}/{index.names[i]}"
        for f in range(len(index.folders))
        for i in range(index.starts[f], index.starts[f + 1])
    ]


EXPECTED = ["/top.jpg", "a/x/deep/3.webp", "b/10.png", "b/2.JPG"]


def test_images_at_any_depth_are_listed_in_order(files, cache):
    for _ in range(2):  # read, then remembered
        index = index_folder(files)
        assert listed(index) == EXPECTED
        assert index.counts() == {"": 1, "a": 0, "a/x": 0, "a/x/deep": 1, "b": 2, "c": 0} and index.unreadable.sum() == 1
    assert [path.suffix for path in sorted((cache / "folders").iterdir())] == [".lock", ".safetensors"]
    assert not any("cache" in str(path) for path in files.rglob("*"))


def test_a_remembered_list_is_not_read_again_until_a_folder_changes(files, cache, monkeypatch):
    index_folder(files)
    read = []
    original = folder_index._Scan._read
    monkeypatch.setattr(folder_index._Scan, "_read", lambda self, path: read.append(path) or original(self, path))
    assert listed(index_folder(files)) == EXPECTED and not read
    (files / "a/x/deep/new.png").touch()
    assert "a/x/deep/new.png" in listed(index_folder(files)) and len(read) == 6
    (files / "a/x/deep/new.png").unlink()
    age(files)
    os.utime(files / "b", ns=(0, 5))
    assert listed(index_folder(files)) == EXPECTED and len(read) == 12
    os.rename(files / "c", files / "d")
    assert "d" in index_folder(files).counts()


def test_a_folder_that_was_just_written_is_not_remembered(files, cache):
    (files / "a/new.png").touch()
    index_folder(files)
    assert not list((cache / "folders").glob("*.safetensors"))


@pytest.mark.parametrize("content", [b"", b"no index", bytes(1000)])
def test_a_damaged_file_in_the_cache_is_replaced(files, cache, content):
    index_folder(files)
    (file,) = (cache / "folders").glob("*.safetensors")
    good = file.read_bytes()
    file.write_bytes(content)
    assert listed(index_folder(files)) == EXPECTED and len(file.read_bytes()) == len(good)


def test_a_cache_that_cannot_be_written_is_no_error(files, cache):
    cache.write_text("a file")
    assert listed(index_folder(files)) == EXPECTED


def test_small_folders_are_not_remembered(files, tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / "cache"))
    index_folder(files)
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.delenv("SPINE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "spine"
    monkeypatch.setenv("SPINE_CACHE", "mine")
    assert str(cache_folder()) == "mine"


def test_links_to_folders_are_followed_once(files, cache):
    os.symlink(files, files / "a/loop")
    os.symlink(files / "b", files / "z")
    assert listed(index_folder(files)) == [*EXPECTED, "z/10.png", "z/2.JPG"]


def _count_reads(root, cache, counted):
    """Lists a folder in another process, slowly, and counts the folders that it reads."""
    os.environ["SPINE_CACHE"] = cache
    folder_index.MIN_REMEMBERED = 1
    original = folder_index._Scan._read

    def slow(self, path):
        time.sleep(0.05)
        with counted.get_lock():
            counted.value += 1
        return original(self, path)

    folder_index._Scan._read = slow
    assert len(index_folder(root).names) == 60


@pytest.mark.slow
def test_one_of_several_processes_reads_the_folders(tmp_path):
    root = tmp_path / "photos"
    for i in range(60):
        (root / f"{i // 3}").mkdir(parents=True, exist_ok=True)
        (root / f"{i // 3}" / f"{i}.png").touch()
    age(root)
    context = multiprocessing.get_context("spawn")
    counted = context.Value("i", 0)
    processes = [context.Process(target=_count_reads, args=(root, str(tmp_path / "cache"), counted)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert 21 <= counted.value <= 21 + 2 * 2  # the others read the first folders, with and after the first image


def test_a_remembered_image_folder_has_the_same_samples(tmp_path, cache, monkeypatch):
    for name in ("train/b/1.png", "train/a/2.png", "train/b/0.png", "val/a/3.png"):
        write_image(tmp_path / name)
    age(tmp_path / "train")
    found = []
    for _ in range(2):
        data = ImageFolder("train", root=str(tmp_path))
        found.append([(str(data.path(i).relative_to(tmp_path)), int(data.targets[i])) for i in range(len(data))])
    assert found[0] == found[1] == [("train/a/2.png", 0), ("train/b/0.png", 1), ("train/b/1.png", 1)]


# ---- unlabeled_folder ------------------------------------------------------------------------------------------------


def unlabeled(root, split="train", **options):
    data = UnlabeledFolder(split, root=str(root), **options)
    return [str(data.path(i).relative_to(root)) for i in range(len(data))]


def test_images_without_labels_are_read_from_any_depth(tmp_path, caplog):
    names = [f"{'abc'[i % 3]}/{i % 2}/{i}.png" for i in range(20)]
    for name in names:
        write_image(tmp_path / name)
    (tmp_path / "a/raw.cr2").touch()
    train, val = unlabeled(tmp_path), unlabeled(tmp_path, "val", val_fraction=0.2)
    assert len(train) == 19 and len(val) == 4 and set(train) < set(names)
    assert sorted(val + unlabeled(tmp_path, val_fraction=0.2)) == sorted(names)
    data = UnlabeledFolder("train", root=str(tmp_path))
    assert set(data.load(0)) == {"image"} and data.load_annotations(0) == {} and data.class_indices() is None
    assert bytes(data.encoded_image(0).data[1:4]) == b"PNG" and data.files(3) == [str(data.path(3))]
    data.check(frozenset({"image"}))
    assert "1 images in" in caplog.text and ".cr2" in caplog.text
    data.path(0).unlink()
    with pytest.raises(UnreadableFileError, match="is missing"):
        data.load(0)


def test_a_pattern_chooses_images(tmp_path):
    for name in ("s1/front/a.png", "s1/back/b.png", "s2/x/front/c.png", "d.png"):
        write_image(tmp_path / "train" / name)
    assert unlabeled(tmp_path, pattern="*/front/*") == ["train/s1/front/a.png", "train/s2/x/front/c.png"]
    assert unlabeled(tmp_path, pattern="?.png") == ["train/d.png"]
    with pytest.raises(InputError, match=r"no image with a path like dataset.pattern=\*.jpg. One of its 4 images is 'd.png'"):
        unlabeled(tmp_path, pattern="*.jpg")
    with pytest.raises(InputError, match="no folder '.*val'"):
        unlabeled(tmp_path, "val")


@pytest.mark.parametrize("task", ["mae", "dvae"])
def test_pre_training_reads_a_folder_without_labels(tmp_path, task):
    for i in range(4):
        write_image(tmp_path / f"x/{i}.png", size=(40, 40))
    config = composed(f"task={task}", "dataset=unlabeled_folder", f"dataset.root={tmp_path}", "image_size=[32,32]")
    data = build_data(config)
    assert [data.transformed(split)[Draw(0, 0)]["image"].shape for split in ("train", "val")] == [(3, 32, 32)] * 2
    assert data.transformed("train", training=True)[Draw(0, 1)]["image"].isfinite().all()
