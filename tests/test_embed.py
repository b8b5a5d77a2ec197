"""spine embed: pooled embeddings of a split with file names and labels."""

import sys
import types

import numpy as np
import pytest
import torch
from command_line import run_command
from test_configs import composed
from test_evaluate import write_classes
from test_protocols import pretraining_checkpoint

from spine.commands import embed
from spine.config import checks
from spine.data.building import build_data
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.evaluation.embedding import embed_split
from spine.reporting.vector_files import check_vector_file, write_vectors

NAMES = ("ape", "bee", "cat")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """An image folder, and the checkpoint of a masked pre-training on images of this size."""
    folder = tmp_path_factory.mktemp("embed")
    root = write_classes(folder / "data", ("train", "val"), NAMES)
    pretraining_checkpoint(folder / "last.ckpt", "mae")
    return root, folder / "last.ckpt"


def configured(photos, *overrides):
    root, weights = photos
    return checks.prepare(
        composed(
            "backbone=mae", f"backbone.weights={weights}", "dataset=image_folder", f"dataset.root={root}", "image_size=[64,64]",
            "dataset.batch_size=4", "dataset.num_workers=0", "trainer.accelerator=cpu", *overrides,
        )
    )  # fmt: skip


def test_embeddings_are_those_of_the_classifier_in_the_order_of_the_data(photos):
    config = configured(photos)
    model = embed.load_pooled(config, None)
    data = build_data(config)
    found = embed_split(model, data, "val", CPU, config["dataset"]["root"])
    assert found.files == [f"val/{name}/{i}.png" for name in NAMES for i in range(3)]
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and found.classes == NAMES
    for index, vector in enumerate(found.vectors):
        image = data.transformed("val")[Draw(0, index)]["image"][None]
        with torch.no_grad():
            expected = model.backbone.pool(model.backbone(image))[0].numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(found.vectors, axis=0).max() > 1e-3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(photos, workers):
    found = []
    for number in (0, workers):
        config = configured(photos, f"dataset.num_workers={number}")
        found.append(embed_split(embed.load_pooled(config, None), build_data(config), "train", CPU))
    assert np.array_equal(found[0].vectors, found[1].vectors) and found[0].files == found[1].files


def test_data_without_labels_has_no_labels(photos):
    config = configured(photos)
    data = build_data(config)
    data.split("val").provides = frozenset({"image"})
    data.needs = frozenset({"image"})
    assert embed_split(embed.load_pooled(config, None), data, "val", CPU).labels is None


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize("labeled", [True, False])
def test_files_hold_what_was_written(tmp_path, suffix, labeled):
    vectors, files = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32), ["a.png", "b.png", "ü.png", ""]
    labels = np.array([1, 0, 1, 1]) if labeled else None
    check_vector_file(tmp_path / f"new/out{suffix}")
    write_vectors(tmp_path / f"new/out{suffix}", vectors, files, labels, ("ape", "bee"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"out{suffix}"]
    if suffix == ".npz":
        with np.load(tmp_path / "new/out.npz", allow_pickle=False) as content:
            assert np.array_equal(content["embeddings"], vectors) and content["files"].tolist() == files
            assert set(content) == {"embeddings", "files", *(["labels", "classes"] if labeled else [])}
            assert not labeled or content["labels"].tolist() == [1, 0, 1, 1]
        return
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "new/out.parquet").to_pydict()
    assert np.array_equal(np.array(table["embedding"], np.float32), vectors) and table["file"] == files
    assert not labeled or (table["label"] == [1, 0, 1, 1] and table["class"] == ["bee", "ape", "bee", "bee"])


def test_unknown_suffixes_and_a_missing_package_are_reported(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"out is 'e.csv'; embeddings are written to .npz or .parquet files."):
        check_vector_file(tmp_path.__class__("e.csv"))
    monkeypatch.setitem(sys.modules, "pyarrow", types.ModuleType("pyarrow"))
    monkeypatch.delitem(sys.modules, "pyarrow.parquet", raising=False)
    with pytest.raises(InputError, match=r"A parquet file needs pyarrow, .* pip install -e .\[embed\]"):
        check_vector_file(tmp_path / "e.parquet")


def test_a_folder_that_cannot_be_created_is_reported_before_anything_is_embedded(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"The folder '.*file/more' cannot be created \(Not a directory\)"):
        check_vector_file(tmp_path / "file" / "more" / "e.npz")


@pytest.mark.slow
def test_the_command_embeds_a_checkpoint_and_weights_alike(tmp_path, photos):
    root, weights = photos
    common = ("dataset.num_workers=0", "trainer.accelerator=cpu")
    data = ("dataset=image_folder", f"dataset.root={root}", "image_size=[64,64]", "backbone=mae", f"backbone.weights={weights}")
    done = run_command("train.py", *data, *common, "trainer.max_epochs=1", "dataset.batch_size=4", "task=mae", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.glob("logs/train/runs/*/checkpoints/last.ckpt")
    weights = (*data, f"backbone.weights={checkpoint}", "augment=mae")
    for arguments in ((f"ckpt_path={checkpoint}", "out=one.npz"), (*weights, "out=two.npz")):
        done = run_command("spine.embed", *arguments, *common, folder=tmp_path)
        assert done.returncode == 0, done.stderr
    one, two = (np.load(tmp_path / f"{name}.npz") for name in ("one", "two"))
    assert np.array_equal(one["files"], two["files"]) and one["labels"].tolist() == two["labels"].tolist()
    np.testing.assert_allclose(one["embeddings"], two["embeddings"], atol=1e-5)
