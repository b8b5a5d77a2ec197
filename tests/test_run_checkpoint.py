"""Checkpoints of older versions: their names of parts, keys and tensors are translated when they are read."""

import copy

import pytest
import torch

from spine.checkpoints.run_checkpoint import read_checkpoint, upgrade_checkpoint
from spine.config.untrusted import strip_untrusted

# The configuration of a run of version bddab43 (task=mae backbone=convnext), before its interpolations are resolved.
OLD_CONFIG = {
    "task_name": "train",
    "seed": 0,
    "image_size": "${dataset.image_size}",
    "num_outputs": None,
    "compile": False,
    "ckpt_path": None,
    "restart": False,
    "optimized_metric": None,
    "tags": [],
    "backbone": {"_target_": "spine.backbones.convnext.convnext", "variant": "micro", "weights": None, "layout": None},
    "head": {"_target_": "spine.heads.mae_decoder.MAEDecoder", "decoder_dim": None},
    "dataset": {
        "_target_": "spine.datasets.shapes.Shapes",
        "root": None,
        "batch_size": 8,
        "num_workers": 0,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "image_size": [64, 64],
        "size": "${image_size}",
        "length": {"train": 32, "val": 8, "test": 8},
        "seed": 0,
    },
    "augment": {
        "train": [{"_target_": "albumentations.HorizontalFlip", "p": 0.5}],
        "eval": [{"_target_": "spine.datasets.transforms.CenterCrop", "size": "${image_size}", "crop_pct": 1.0}],
    },
    "optimizer": {"_target_": "spine.optim.adamw", "lr": 0.002, "betas": [0.9, 0.95]},
    "schedule": {"_target_": "spine.optim.cosine", "warmup": 0.05},
    "trainer": {"max_epochs": 1, "precision": "bf16-mixed"},
    "callbacks": {"picture_every_n_epochs": 0, "more": {}},
    "logger": {"tensorboard": {"_target_": "spine.loggers.tensorboard"}},
    "task": {"_target_": "spine.tasks.mae.MaskedAutoencoding", "mask_ratio": 0.75, "norm_pix_loss": True},
}
TODAY = {  # path of a part -> its name today
    "dataset": "spine.data.formats.shapes.Shapes",
    "augment.eval.0": "spine.data.transforms.CenterCrop",
    "augment.train.0": "albumentations.HorizontalFlip",
    "optimizer": "spine.training.optimizers.adamw",
    "schedule": "spine.training.schedules.cosine",
    "logger.tensorboard": "spine.training.loggers.tensorboard.tensorboard",
    "task": "spine.tasks.mae.task.MaskedAutoencoding",
    "backbone": "spine.backbones.convnext.convnext",
    "head": "spine.heads.mae_decoder.MAEDecoder",
}


def old_checkpoint():
    resolved = copy.deepcopy(OLD_CONFIG)
    resolved["image_size"] = resolved["dataset"]["size"] = resolved["augment"]["eval"][0]["size"] = [64, 64]
    tensors = {"model.painted_pixel": torch.full((1, 3, 1, 1), 0.5), "model.head.decoder_norm.weight": torch.ones(2)}
    return {"state_dict": tensors, "config": resolved, "config_source": copy.deepcopy(OLD_CONFIG), "epoch": 3, "global_step": 12}


def target(config, path):
    for key in path.split("."):
        config = config[int(key)] if isinstance(config, list) else config[key]
    return config["_target_"]


def test_checkpoints_of_older_versions_name_todays_parts(tmp_path):
    torch.save(old_checkpoint(), tmp_path / "best.ckpt")
    content = read_checkpoint(tmp_path / "best.ckpt")
    for key in ("config", "config_source"):
        assert {path: target(content[key], path) for path in TODAY} == TODAY
        assert content[key]["callbacks"] == {"figure_every_n_epochs": 0, "more": {}}
        assert strip_untrusted(content[key])["dataset"] == content[key]["dataset"]
    assert content["config_source"]["image_size"] == "${dataset.image_size}"
    assert content["config"]["image_size"] == [64, 64]
    assert content["state_dict"].keys() == {"model.mask_pixel", "model.head.decoder_norm.weight"}
    assert content["state_dict"]["model.mask_pixel"].eq(0.5).all()
    assert (content["epoch"], content["global_step"]) == (3, 12)


@pytest.mark.parametrize(
    ("place", "old", "new"),
    [
        ("task", "spine.tasks.cls.Classification", "spine.tasks.cls.task.Classification"),
        ("task", "spine.tasks.seg.Segmentation", "spine.tasks.seg.task.Segmentation"),
        ("task", "spine.tasks.pose.Pose", "spine.tasks.pose.task.Pose"),
        ("optimizer", "spine.optim.sgd", "spine.training.optimizers.sgd"),
        ("schedule", "spine.optim.poly", "spine.training.schedules.poly"),
        ("schedule", "spine.optim.constant", "spine.training.schedules.constant"),
        ("dataset", "spine.datasets.coco_keypoints.COCOKeypoints", "spine.data.formats.coco_keypoints.COCOKeypoints"),
        ("dataset", "spine.datasets.fashion_mnist.FashionMNIST", "spine.data.formats.fashion_mnist.FashionMNIST"),
        ("dataset", "spine.datasets.image_folder.ImageFolder", "spine.data.formats.image_folder.ImageFolder"),
        ("dataset", "spine.datasets.mask_folder.MaskFolder", "spine.data.formats.mask_folder.MaskFolder"),
    ],
)
def test_every_renamed_part_is_translated(place, old, new):
    content = old_checkpoint()
    content["config"][place]["_target_"] = old
    config = upgrade_checkpoint(content)["config"]
    assert config[place]["_target_"] == new
    strip_untrusted(config)


def test_todays_checkpoints_are_unchanged():
    today = upgrade_checkpoint(old_checkpoint())
    assert upgrade_checkpoint(today) == today
