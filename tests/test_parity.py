"""Tests that outputs and training steps equal those of reference implementations with the same
random weights, in float64, to 1e-9.

The outputs of the references are recorded (tests/recording.py), so that these tests do not need
their packages. If the packages are installed, the records are computed again and compared.
"""

import copy
import json

import pytest
import torch
from recording import CLASSES, RECORDS, cases, draw, image_of, measure, record
from torch import nn

import spine
from spine.backbones import beit, vit
from spine.interfaces import Features
from spine.layers import positions

CASES = {case.name: case for case in cases()}
LONG = ("hrnet", "segnext", "vgg16", "xception")  # in float64
FIRST = {
    case.backbone: name for name, case in reversed(CASES.items()) if not case.slow and case.backbone not in LONG
}  # CI runs all
NAMES = [pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow) for name in sorted(CASES)]
TOLERANCE = 1e-9  # of the output's standard deviation


@pytest.fixture
def double():
    """Builds networks in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(found, expected):
    """Compares outputs relative to their standard deviation, and tensors relative to their norm."""
    assert found["outputs"].keys() == expected["outputs"].keys()
    for size, values in expected["outputs"].items():
        ours, theirs = (torch.tensor(v, dtype=torch.float64) for v in (found["outputs"][size], values))
        assert ((ours - theirs).abs().max() / theirs.std()) < TOLERANCE, size
    if "loss" not in expected:
        return
    assert abs(found["loss"] - expected["loss"]) < TOLERANCE * expected["loss"]
    assert found["step"].keys() == expected["step"].keys()
    largest = max(norm for norm, _ in expected["step"].values())
    for key, (norm, product) in expected["step"].items():
        # gradients that are zero except for rounding (a bias before a batch norm) are compared relative to the largest one
        scale = max(norm, 1e-4 * largest)
        assert abs(found["step"][key][0] - norm) < TOLERANCE * scale, key
        assert abs(found["step"][key][1] - product) < TOLERANCE * scale, key


@pytest.mark.parametrize("name", NAMES)
def test_published_file_gives_the_outputs_of_its_publisher(name, tmp_path, double):
    """The file alone determines the layout, its conventions, and the variant."""
    case = CASES[name]
    expected = json.loads((RECORDS / f"{name}.json").read_text())
    torch.save(draw({key: tuple(shape) for key, shape in expected["keys"].items()}), tmp_path / "file.pth")
    options = {"num_outputs": CLASSES, "weights": tmp_path / "file.pth", "layout": case.layout, **case.options}
    net = spine.create_model(case.backbone, **options)
    single = copy.deepcopy(net).float().eval()  # the same outputs, up to float32
    for size in case.sizes:
        with torch.no_grad():
            found = case.ours(single, image_of(size, 1).float()).double().flatten()
        theirs = torch.tensor(expected["outputs"][f"{size[0]}x{size[1]}"], dtype=torch.float64)
        assert (found - theirs).square().mean().sqrt() < 1e-5 * theirs.std(), size
    assert_same(measure(net, case, case.ours, dict, case.our_loss), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES))
def test_record_equals_the_reference(name):
    case = CASES[name]
    try:
        found = record(case)
    except (ImportError, RuntimeError, FileNotFoundError) as error:
        pytest.skip(f"{case.source} is not available: {error}")
    expected = json.loads((RECORDS / f"{name}.json").read_text())
    assert {key: list(shape) for key, shape in found["keys"].items()} == expected["keys"]
    assert_same(found, expected)


# ---- comparisons that the records do not contain -----------------------------------------------------------------------


def assert_equal(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float64
    assert ((ours - theirs).abs().max() / theirs.std()) < TOLERANCE


def randomize(net: nn.Module) -> nn.Module:
    """Draws weights with which every tensor has an effect.

    Layer scales of 1e-6 and initial running statistics would hide mistakes.
    """
    net = net.double().eval()
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and (parameter.ndim == 1 or "token" in name or "pos" in name):
            nn.init.normal_(parameter, mean=0.0 if name.endswith("bias") else 0.5, std=0.2)
    for name, buffer in net.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(std=0.2)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return net


def test_mae_equals_transformers(tmp_path, double):
    """Encoder, decoder and loss of masked pre-training equal those of transformers."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from spine.tasks.mae.losses import masked_pixel_loss, normalize_patches
    from spine.tasks.mae.patches import patchify

    config = ViTMAEConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=64, norm_pix_loss=True,
        decoder_hidden_size=128, decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=512,
    )  # fmt: skip
    ours = spine.create_model("mae", variant="micro", task="mae", image_size=64)
    theirs = ViTMAEForPreTraining(config)
    theirs.decoder.initialize_weights(num_patches=16)  # sets the sine-cosine positions, which are zero otherwise
    positions = theirs.decoder.decoder_pos_embed.clone()
    torch.testing.assert_close(ours.head.decoder_pos_embed, positions, atol=1e-6, rtol=0, check_dtype=False)
    theirs = randomize(theirs)
    theirs.decoder.decoder_pos_embed.data = positions
    theirs.vit.embeddings.position_embeddings.data = ours.backbone.pos_embed.detach().clone()
    torch.save(theirs.state_dict(), tmp_path / "file.pth")
    ours = spine.create_model("mae", variant="micro", task="mae", image_size=64, weights=tmp_path / "file.pth").eval()
    image, noise = torch.randn(2, 3, 64, 64), torch.rand(2, 16)
    expected = theirs(image, noise=noise)
    # their encoder has the visible patches in the order of the noise, ours in raster order; attention does not depend on the order
    prediction = ours(image, expected.mask.bool())
    assert_equal(prediction, expected.logits)
    loss = masked_pixel_loss(prediction, normalize_patches(patchify(image, 16)), expected.mask.bool())
    assert abs(loss - expected.loss) < TOLERANCE * expected.loss


def test_masked_vit_without_masked_patches_equals_the_classifier():
    """Networks built for different uses have the same weights and compute the same tokens."""
    pooled = randomize(spine.create_model("vit", variant="micro", num_outputs=3, image_size=64)).backbone
    masked = vit.vit("micro", image_size=(64, 64), use="drop").double().eval()
    state = {key.replace("pooling.norm", "norm"): value for key, value in pooled.state_dict().items()}
    masked.load_state_dict(state, strict=True)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    tokens = masked.forward_masked(image, torch.zeros(2, 16, dtype=torch.bool), "drop")
    features = pooled(image)
    assert isinstance(features, Features)
    assert_equal(tokens.cls_token, pooled.pool(features))


def test_masked_beit_without_masked_patches_equals_the_classifier():
    """A shared table equals the same table in each block, as the authors convert it for fine-tuning."""
    masked = randomize(beit.beit("micro", image_size=(64, 64), use="replace"))
    dense = beit.beit("micro", image_size=(64, 64), use="pooled").double().eval()
    state = {
        key.replace("norm.", "pooling.norm.") if key.startswith("norm.") else key: v for key, v in masked.state_dict().items()
    }
    table = state.pop("rel_pos_bias.relative_position_bias_table")
    del state["mask_token"]
    state |= {f"blocks.{i}.attn.rel_pos_bias.relative_position_bias_table": table for i in range(6)}
    dense.load_state_dict(state, strict=True)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    tokens = masked.forward_masked(image, torch.zeros(2, 16, dtype=torch.bool), "replace")
    features = dense(image)
    assert_equal(tokens.cls_token, dense.pooling.norm(features.cls_token))


def test_relative_positions_of_larger_grids_are_spaced_as_in_the_authors_code():
    """Small relative positions stay, the largest ones coincide; smaller grids use the middle."""
    found = positions.source_coordinates(14, 24)
    assert len(found) == 23 and found == sorted(found)
    assert abs(found[-1] - 13) < 1e-9 and 0.9 < found[0] <= 1
    assert positions.source_coordinates(14, 9) == [float(k) for k in range(1, 9)]
    table = torch.randn(27 * 27 + 3, 2, dtype=torch.float64)
    small = positions.resize_relative_positions(table, (14, 14), (9, 11))
    assert_equal(small[:-3].view(17, 21, 2), table[:-3].view(27, 27, 2)[5:22, 3:24])
    assert torch.equal(small[-3:], table[-3:])
    large = positions.resize_relative_positions(table, (14, 14), (24, 20))
    assert_equal(
        large[:-3].view(47, 39, 2)[[0, 0, 46, 23], [0, 38, 0, 19]], table[:-3].view(27, 27, 2)[[0, 0, 26, 13], [0, 26, 0, 13]]
    )
