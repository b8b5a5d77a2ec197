"""Evaluation settings of published weights: they complete the configuration, or the differences are reported."""

import numpy as np
import pytest
import torch
from recording import draw, shapes_of
from test_configs import composed

import spine
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.formats import vit as vit_formats
from spine.checkpoints.input_settings import (
    HALF,
    IMAGENET,
    InputSettings,
    apply_changes,
    input_changes,
    settings_of_config,
)
from spine.checkpoints.published import vit, weight_table_of
from spine.checkpoints.published.vit import google
from spine.config import checks
from spine.models.assembly import NetworkConfig

CROP = {"_target_": "spine.data.transforms.CenterCrop", "size": None, "crop_pct": None, "interpolation": None}
AT_384 = InputSettings((384, 384), 1.0, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def plain_config(image_size=None, mean=None, eval_steps=(CROP,), task="cls"):
    return {
        "task": {"_target_": f"spine.tasks.{task}.Task"},
        "image_size": image_size,
        "dataset": {"image_size": image_size, "mean": mean, "std": None},
        "augment": {"train": [{"size": image_size}], "eval": [dict(step) for step in eval_steps]},
    }


def test_null_is_replaced_by_the_settings_of_the_weights():
    config = plain_config()
    changes, differences = input_changes(config, AT_384)
    assert not differences and config == plain_config()  # nothing changes before apply_changes
    apply_changes(config, changes)
    assert config["image_size"] == config["dataset"]["image_size"] == config["augment"]["train"][0]["size"] == [384, 384]
    assert config["augment"]["eval"][0] == {**CROP, "size": [384, 384], "crop_pct": 1.0, "interpolation": "bicubic"}
    assert config["dataset"]["mean"] == config["dataset"]["std"] == [0.5, 0.5, 0.5]
    assert input_changes(config, AT_384) == ({}, [])


def test_null_without_weights_is_replaced_by_the_defaults():
    config = plain_config()
    apply_changes(config, input_changes(config, InputSettings())[0])
    assert config["image_size"] == [224, 224] and config["dataset"]["mean"] == [0.485, 0.456, 0.406]
    assert (config["augment"]["eval"][0]["crop_pct"], config["augment"]["eval"][0]["interpolation"]) == (0.875, "auto")


def test_settings_of_the_user_are_kept_and_reported():
    crop = {**CROP, "size": [64, 48], "crop_pct": 0.875, "interpolation": "bilinear"}
    config = plain_config(image_size=[64, 48], mean=[0.4, 0.4, 0.4], eval_steps=[crop])
    changes, differences = input_changes(config, AT_384)
    assert changes == {"dataset.std": [0.5, 0.5, 0.5], "dataset.channels": "rgb"}
    assert differences == [
        "evaluated at 384x384 pixels; image_size is 64x48.",
        "evaluated with mean [0.5, 0.5, 0.5]; dataset.mean is [0.4, 0.4, 0.4].",
        "evaluated with crop_pct 1; augment.eval.0.crop_pct is 0.875.",
        "evaluated with interpolation bicubic; augment.eval.0.interpolation is bilinear.",
    ]


@pytest.mark.parametrize("name", ["shufflenet_v1", "shufflenet_v2"])
def test_the_channel_order_of_the_authors_is_taken_or_its_difference_reported(name):
    (settings,) = {layout.input_settings for layout in layouts_of(name) if layout.publisher == "official"}
    config = plain_config()
    apply_changes(config, input_changes(config, settings)[0])
    assert config["dataset"]["channels"] == "bgr" and config["dataset"]["std"] == [1 / 255] * 3
    config["dataset"]["channels"] = "rgb"
    assert "made for images in BGR order; dataset.channels is rgb." in input_changes(config, settings)[1]


def test_a_missing_crop_and_another_channel_order_are_reported():
    settings = InputSettings(crop_pct=0.9, note="made for images in BGR order (blue first); spine's are RGB.")
    resize = {"_target_": "spine.data.transforms.Resize", "size": [64, 64]}
    differences = input_changes(plain_config([64, 64], eval_steps=[resize]), settings)[1]
    assert differences[0] == "evaluated on a center crop (crop_pct 0.9); augment.eval has no CenterCrop."
    assert differences[1] == settings.note
    assert input_changes(plain_config([64, 64], eval_steps=[resize], task="seg"), settings)[1] == [settings.note]


@pytest.fixture
def vit_at_384(monkeypatch, tmp_path):
    """The authors' npz file of a micro ViT for 384 pixels, published as `imagenet1k_384` and already downloaded. Returns its path."""
    net = spine.create_model("vit", variant="micro", num_outputs=10, image_size=384)
    net.load_state_dict({key: value.float() for key, value in draw(shapes_of(net)).items()}, strict=False)
    path = tmp_path / "micro-res_384.npz"
    np.savez(path, **{key: x.contiguous().numpy() for key, x in vit_formats.OFFICIAL.to_publisher(net.state_dict()).items()})
    row = google(f"https://example.org/{path.name}", "70.0", 384)
    monkeypatch.setitem(vit.WEIGHTS, "micro", {"imagenet1k_384": row})
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))
    return path


def checked(*overrides):
    config = composed("backbone=vit", "backbone.variant=micro", "task=cls", *overrides)
    return checks.prepare(config)


def test_weights_for_384_pixels_set_the_image_size(vit_at_384, caplog):
    config = checked("backbone.weights=imagenet1k_384", "dataset=image_folder", "dataset.root=.")
    assert config["image_size"] == [384, 384] and config["dataset"]["mean"] == [0.5, 0.5, 0.5]
    step = config["augment"]["eval"][0]
    assert (step["size"], step["crop_pct"], step["interpolation"]) == ([384, 384], 1.0, "bicubic")
    assert config["augment"]["train"][0]["size"] == [384, 384]
    with torch.device("meta"):
        assert NetworkConfig.from_config(config, 10).build().backbone.spec.grid == (24, 24)
    assert "The weights" not in caplog.text


@pytest.mark.parametrize("overrides", [("dataset=shapes",), ("dataset=image_folder", "dataset.root=.", "image_size=[64,64]")])
def test_another_size_than_that_of_the_weights_is_reported(vit_at_384, caplog, overrides):
    config = checked("backbone.weights=imagenet1k_384", *overrides)
    assert config["image_size"] == config["augment"]["eval"][0]["size"] == [64, 64]
    message = "The weights 'imagenet1k_384' were evaluated at 384x384 pixels; image_size is 64x64."
    assert caplog.text.count(message) == 1


def test_a_file_determines_mean_std_and_image_size(vit_at_384, tmp_path):
    """With its published name all settings of the table; with another name those of the layout and of the position embedding."""
    for name, crop in ((vit_at_384.name, 1.0), ("mine.npz", 0.875)):
        path = vit_at_384.rename(tmp_path / name)
        config = checked(f"backbone.weights={path}", "dataset=image_folder", "dataset.root=.")
        path.rename(vit_at_384)
        assert config["image_size"] == [384, 384] and config["dataset"]["std"] == [0.5, 0.5, 0.5]
        assert config["augment"]["eval"][0]["crop_pct"] == crop


def test_a_checkpoint_of_spine_determines_the_settings(tmp_path):
    config = checked("image_size=[64,96]", "dataset.mean=[0.1,0.2,0.3]", "augment.eval.0.crop_pct=0.95")
    state = NetworkConfig.from_config(config, 3).build().state_dict()
    torch.save({"state_dict": {f"model.{key}": x for key, x in state.items()}, "config": config}, tmp_path / "best.ckpt")
    after = checked(f"backbone.weights={tmp_path / 'best.ckpt'}", "dataset=image_folder", "dataset.root=.")
    assert after["image_size"] == [64, 96] and after["dataset"]["mean"] == [0.1, 0.2, 0.3]
    assert after["augment"]["eval"][0]["crop_pct"] == 0.95


@pytest.mark.parametrize("config", [{}, {"dataset": 3, "augment": {"eval": "x"}, "image_size": "large"}, {"augment": None}])
def test_a_foreign_configuration_in_a_file_is_ignored(config):
    assert settings_of_config(config) == InputSettings()


@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_published_weights_have_evaluation_settings(backbone):
    for rows in weight_table_of(backbone).values():
        for name, row in rows.items():
            settings = row.input_settings
            assert settings.interpolation in ("bilinear", "bicubic", None) and len(settings.mean) == len(settings.std) == 3
            if "top-1" in row.metric:
                assert settings.image_size and 0.8 < settings.crop_pct <= 1 and settings.interpolation
            for pixels in (384, 448, 512):
                if name.endswith(f"_{pixels}") and "coco" not in name:
                    assert settings.image_size == (pixels, pixels)
            if name.split("_")[0] == "coco":
                assert settings.image_size[0] * 3 == settings.image_size[1] * 4


@pytest.mark.parametrize(
    ("backbone", "publisher", "expected"),
    [
        ("vit", "official", HALF), ("vit", "torchvision", IMAGENET), ("vit", "timm", InputSettings()),
        ("beit", "official", HALF), ("beit", "hf", HALF), ("mobilenet_v3", "timm_tf", HALF), ("mobilenet_v2", "hf", HALF),
        ("mobilenet_v2", "torchvision", IMAGENET), ("xception", "timm", HALF), ("swin", "hf", IMAGENET),
        ("shufflenet_v1", "official", InputSettings(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))),
    ],
)  # fmt: skip
def test_layouts_have_mean_and_std_if_all_their_files_agree(backbone, publisher, expected):
    layouts = [layout for layout in layouts_of(backbone) if layout.publisher == publisher]
    classifiers = [layout for layout in layouts if any("head.linear" in str(rule.target) for rule in layout.rules)]
    found = [layout.input_settings for layout in classifiers]
    assert found and all((x.mean, x.std) == (expected.mean, expected.std) for x in found)
