"""backbone.patch_size of ViT, MAE and BEiT."""

import pytest
import torch
import torch.nn.functional as F
from test_configs import composed
from weight_files import random_network

import spine
from spine.config import checks
from spine.data.building import build_data
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.layers.transformer import resize_patch_kernel

BACKBONES = ("beit", "mae", "vit")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_network_has_the_patch_size_that_was_given(backbone):
    net = spine.create_model(backbone, variant="micro", num_outputs=10, image_size=28, patch_size=4)
    assert net.patch_size == 4 and net.backbone.grid == (7, 7)
    assert net(torch.randn(2, 3, 28, 28)).shape == (2, 10)
    assert spine.create_model(backbone, variant="micro", num_outputs=10, patch_size=None).patch_size == 16


@pytest.mark.parametrize("backbone", ("mae", "vit"))
def test_the_decoder_predicts_the_pixels_of_a_patch(backbone):
    net = spine.create_model(backbone, variant="micro", task="mae", image_size=28, patch_size=4)
    patch_mask = torch.arange(49).expand(2, -1) % 4 > 0
    assert net(torch.randn(2, 3, 28, 28), patch_mask).shape == (2, 49, 4 * 4 * 3)


@pytest.mark.parametrize("task", ["cls", "mae", "seg", "pose"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_task_takes_a_patch_size_from_the_command_line(backbone, task):
    config = checks.prepare(composed(f"backbone={backbone}", f"task={task}", "backbone.patch_size=8"))
    assert config["backbone"]["patch_size"] == 8


def test_images_of_segmentation_are_padded_to_the_patch_size():
    data = build_data(checks.prepare(composed("backbone=vit", "task=seg", "backbone.patch_size=12")))
    assert data.pad_multiple == 12 and data.transformed("val")[Draw(0, 0)]["image"].shape == (3, 72, 72)  # 64 pixels


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["backbone=vit", "backbone.variant=base_r50_s16", "backbone.patch_size=8"],
            "backbone.patch_size is 8, but the ResNet of a hybrid determines the patch size of this variant. Leave it out, or choose "
            "a variant without a ResNet.",
        ),
        (
            ["backbone=mae", "backbone.patch_size=0"],
            "backbone.patch_size is 0; it must be a whole number of pixels, 1 or more, or null for the patch size of the variant.",
        ),
        (
            ["backbone=vit", "backbone.patch_size=12"],
            "ViT cuts images into 12x12 patches; 64x64 is not a multiple. Nearest sizes that fit: 60, 72. Or set "
            "backbone.patch_size to a divisor of both sides.",
        ),
    ],
)
def test_mistakes_are_reported_in_one_sentence(overrides, message):
    with pytest.raises(InputError) as error:
        checks.prepare(composed(*overrides))
    assert str(error.value) == message


def test_other_backbones_have_no_patch_size():
    with pytest.raises(InputError, match="Unknown key 'backbone.patch_size'"):
        checks.prepare(composed("backbone=swin", "+backbone.patch_size=8"))


# ---- weights of another patch size ----


@pytest.mark.parametrize(("old", "new"), [(4, 8), (8, 16), (14, 16), (7, 9)])
def test_tokens_of_enlarged_patches_stay_the_same(old, new):
    kernel, patch = torch.randn(5, 3, old, old, dtype=torch.float64), torch.randn(2, 3, old, old, dtype=torch.float64)
    enlarged = F.interpolate(patch, (new, new), mode="bicubic", antialias=True)
    tokens = torch.einsum("bcyx,dcyx->bd", patch, kernel)
    assert torch.allclose(torch.einsum("bcyx,dcyx->bd", enlarged, resize_patch_kernel(kernel, new)), tokens, atol=1e-9)


def test_kernels_of_smaller_patches_are_the_best_in_the_sense_of_least_squares():
    kernel = torch.randn(1, 1, 8, 8, dtype=torch.float64)
    resized = F.interpolate(torch.eye(64, dtype=torch.float64).view(-1, 1, 8, 8), (4, 4), mode="bicubic", antialias=True).flatten(
        1
    )
    best = torch.linalg.lstsq(resized, kernel.flatten()[:, None]).solution
    assert torch.allclose(resize_patch_kernel(kernel, 4).flatten(), best[:, 0], atol=1e-9)
    assert resize_patch_kernel(kernel, 8) is kernel


@pytest.mark.parametrize("backbone", BACKBONES)
def test_weights_of_another_patch_size_are_resized_and_reported(tmp_path, caplog, backbone):
    before = random_network(backbone, variant="micro")  # 16 pixels, grid of 4x4
    torch.save(before.state_dict(), tmp_path / "a.pth")
    with caplog.at_level("INFO", logger="spine"):
        after = spine.create_model(
            backbone, variant="micro", num_outputs=3, image_size=32, patch_size=8, weights=tmp_path / "a.pth"
        )
    kernel = before.backbone.patch_embed.proj.weight
    assert torch.equal(after.backbone.patch_embed.proj.weight, resize_patch_kernel(kernel, 8))
    assert "1 of them resized" in caplog.text and "backbone.patch_embed.proj.weight" in caplog.text
    for name, tensor in after.state_dict().items():  # the grid is the same, so that positions are not resized
        assert name == "backbone.patch_embed.proj.weight" or torch.equal(tensor, before.state_dict()[name]), name


def test_the_variant_of_a_file_is_found_by_its_patch_size(tmp_path):
    """At twice the image size, patches of 32 pixels have the grid of the file, and its kernel would be resized."""
    before = spine.create_model("vit", variant="small_patch16", num_outputs=3, image_size=64)
    torch.save(before.state_dict(), tmp_path / "a.pth")
    after = spine.create_model("vit", num_outputs=3, image_size=128, weights=tmp_path / "a.pth")
    assert after.patch_size == 16
    assert torch.equal(after.backbone.patch_embed.proj.weight, before.backbone.patch_embed.proj.weight)
