"""eval.py: overrides, splits and class names. Limits of the training run are not applied."""

import json

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf
from test_configs import CONF, composed

from spine.commands import eval as evaluate
from spine.commands import train
from spine.config import building, resolving
from spine.config.completion import complete
from spine.config.source import keep_interpolations
from spine.config.untrusted import strip_untrusted
from spine.data.relabeling import Relabeled
from spine.errors import InputError
from spine.interfaces import DataSet, Labels
from spine.training.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")

FAST = ("trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.precision=32-true", "dataset.num_workers=0")
SHAPES = ("dataset.length={train: 8, val: 6, test: 4}", "dataset.batch_size=4")


def write_classes(root, splits, names, size=(40, 60), each=3):
    """Writes images whose gray value depends on the class to root/split/class."""
    for split in splits:
        for name in names:
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(each):
                value = 30 + 60 * sorted(names).index(name) + i
                cv2.imwrite(str(folder / f"{i}.png"), np.full((*size, 3), value, np.uint8))
    return root


def evaluated(checkpoint, *overrides):
    """Returns the plain configuration of `python eval.py ckpt_path=... overrides`."""
    ConfigStore.instance().store("checkpoint", evaluate.checkpoint_config(str(checkpoint)))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return resolving.to_plain(compose("eval", [f"ckpt_path={checkpoint}", *overrides]))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Trains on an image folder with three classes and limited batches. Returns the checkpoint and the folder of the data."""
    root = write_classes(tmp_path_factory.mktemp("data"), ("train", "val"), ("ape", "bee", "cat"))
    folder = tmp_path_factory.mktemp("run")
    overrides = (
        "task=cls", "backbone=mobilenet_v2", "dataset=image_folder", f"dataset.root={root}", "image_size=[64,64]",
        "dataset.batch_size=4", "trainer.limit_val_batches=1", "trainer.limit_train_batches=1", *FAST,
    )  # fmt: skip
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(overrides))
    from omegaconf import OmegaConf

    train.train_run(resolving.to_plain(cfg), RunFolder(folder), OmegaConf.to_container(cfg, resolve=False))
    return folder / "checkpoints" / "last.ckpt", root


@pytest.mark.slow
def test_an_override_changes_values_interpolated_from_it(photos):
    checkpoint, _ = photos
    config = evaluated(checkpoint, "image_size=[128,96]")
    assert config["image_size"] == [128, 96] and config["augment"]["eval"][0]["size"] == [128, 96]
    assert config["num_outputs"] == 3
    data = building.build_run(complete(config), "val", evaluate.saved_labels(str(checkpoint))).data
    assert next(iter(data.loader("val")))["image"].shape[-2:] == (128, 96)
    resolved = torch.load(checkpoint, weights_only=True)["config"]
    assert resolved["image_size"] == [64, 64] and resolved["augment"]["eval"][0]["size"] == [64, 64]


def test_limits_of_the_training_run_are_not_inherited(photos):
    checkpoint, _ = photos
    config = evaluated(checkpoint)
    assert config["trainer"]["limit_val_batches"] == 1.0 and config["trainer"]["devices"] == 1
    assert config["trainer"]["strategy"] == "auto" and config["compile"] is False
    assert evaluated(checkpoint, "trainer.limit_val_batches=2")["trainer"]["limit_val_batches"] == 2


def test_the_training_split_is_evaluated_completely_in_order_without_augmentation(photos):
    checkpoint, _ = photos
    config = evaluated(checkpoint, "split=train")
    data = building.build_run(complete(config), "train", evaluate.saved_labels(str(checkpoint))).data
    first, second = (torch.cat([batch["image"] for batch in data.loader("train")]) for _ in range(2))
    order = torch.cat([batch["index"] for batch in data.loader("train")])
    assert order.tolist() == list(range(9)) and torch.equal(first, second)
    assert len(data.loader("train", training=True)) == 2  # training drops the incomplete batch


def evaluate_folder(checkpoint, folder, *overrides):
    return evaluate.evaluate_config(evaluated(checkpoint, *overrides), RunFolder(folder))


def test_a_checkpoint_is_evaluated_without_a_training_split(photos, tmp_path):
    checkpoint, root = photos
    only_val = write_classes(tmp_path / "data", ("val",), ("ape", "bee", "cat"))
    values = evaluate_folder(checkpoint, tmp_path, f"dataset.root={only_val}")
    assert values == evaluate_folder(checkpoint, tmp_path, f"dataset.root={root}")
    assert json.loads((tmp_path / "metrics.json").read_text())["split"] == "val"


def test_other_classes_are_rejected_with_both_lists(photos, tmp_path):
    checkpoint, _ = photos
    other = write_classes(tmp_path / "data", ("train", "val"), ("ape", "bee", "dog"))
    with pytest.raises(InputError) as error:
        evaluate_folder(checkpoint, tmp_path, f"dataset.root={other}")
    assert "dog" in str(error.value) and "cat" in str(error.value)


class Named(DataSet):
    """Three samples with all annotations, whose names differ in order from those of the checkpoint."""

    provides = frozenset({"image", "label", "mask", "keypoints"})
    labels = Labels(
        classes=("b", "a"), mask_classes=("sky", "road"), keypoints=("tail", "nose"), skeleton=((0, 1),), sigmas=(0.1, 0.2)
    )

    def __len__(self):
        return 3

    def load(self, index):
        points = np.array([[1, 2, 2], [3, 4, 1]], np.float32)
        return {"label": index % 2, "mask": np.array([[0, 1, 255]], np.uint8), "keypoints": points}


def test_annotations_with_names_in_another_order_are_mapped():
    labels = Labels(
        classes=("a", "b", "c"), mask_classes=("road", "sky"), keypoints=("nose", "ear", "tail"), sigmas=(0.1, 0.2, 0.3)
    )
    data = Relabeled(Named(), labels, Named.provides)
    sample = data.load(0)
    assert sample["label"] == 1 and data.load(1)["label"] == 0
    assert sample["mask"].tolist() == [[1, 0, 255]]
    assert sample["keypoints"].tolist() == [[3, 4, 1], [0, 0, 0], [1, 2, 2]]
    assert data.labels.sigmas == labels.sigmas and data.labels.classes == labels.classes
    colors = ((128, 64, 128), (70, 130, 180))
    only_masks = Relabeled(Named(), Labels(mask_classes=("road", "sky"), palette=colors), frozenset({"image", "mask"}))
    assert only_masks.load(0)["label"] == 0 and only_masks.labels.classes == ("b", "a")
    assert only_masks.labels.palette == colors
    with pytest.raises(InputError, match=r"'tail' is unknown to the checkpoint. Data set: tail, nose. Checkpoint: nose, ear."):
        Relabeled(Named(), Labels(keypoints=("nose", "ear")), frozenset({"keypoints"}))


def test_labels_are_read_from_a_checkpoint(photos):
    checkpoint, _ = photos
    saved = torch.load(checkpoint, weights_only=True)["labels"]
    assert Labels.from_dict(saved).classes == ("ape", "bee", "cat")
    assert Labels.from_dict({"skeleton": [[0, 1]], "unknown": 3}).skeleton == ((0, 1),)


def test_completed_values_and_interpolations_are_kept():
    source = {"a": [1, 2], "b": "${a}", "c": "auto", "d": {"e": "${c}", "f": None}, "g": "${a}"}
    before = {"a": [1, 2], "b": [1, 2], "c": "auto", "d": {"e": "auto", "f": None}, "g": [1, 2]}
    after = {"a": [3, 4], "b": [3, 4], "c": "auto", "d": {"e": "x", "f": 5}, "g": [3, 4], "new": 1}
    kept = keep_interpolations(source, before, after)
    assert kept == {"a": [3, 4], "b": "${a}", "c": "auto", "d": {"e": "x", "f": 5}, "g": "${a}", "new": 1}


@pytest.mark.parametrize("task", ["cls", "seg", "pose", "mae", "dvae", "beit"])
def test_default_configurations_are_accepted_in_checkpoints(task):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"task={task}"])
    plain = resolving.to_plain(cfg)
    kept = keep_interpolations(OmegaConf.to_container(cfg, resolve=False), plain, plain)
    assert kept["trainer"]["max_epochs"] == plain["trainer"]["max_epochs"] > 1  # the value of a resolver
    assert kept["augment"]["eval"][0]["size"] == "${image_size}"
    strip_untrusted(kept)


@pytest.mark.parametrize("value", ["${oc.env:HOME}", "${seed}${oc.env:X}", "x-${hydra:runtime.cwd}", "${${seed}}"])
def test_interpolations_of_a_checkpoint_may_refer_to_keys_only(photos, value):
    config = torch.load(photos[0], weights_only=True)["config_source"]
    assert config["image_size"] == [64, 64] and config["augment"]["eval"][0]["size"] == "${image_size}"
    strip_untrusted(config)
    with pytest.raises(InputError, match="it may refer to other keys only"):
        strip_untrusted({**config, "task_name": value})


@pytest.mark.slow
def test_old_checkpoints_without_class_names_are_evaluated(tmp_path):
    train.train_run(composed("task=cls", "backbone=mobilenet_v2", *SHAPES, *FAST), RunFolder(tmp_path))
    path = tmp_path / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    for key in ("labels", "config_source", "random_states", "metrics_rows"):
        del state[key]
    torch.save(state, path)
    values = evaluate.evaluate_config(evaluated(path), RunFolder(tmp_path / "eval"))
    assert values["val/top1"] == json.loads((tmp_path / "metrics.json").read_text())["metrics"]["val/top1"]
