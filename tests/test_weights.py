"""Local weight files: loaded strictly, reported, and refused in one sentence."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

import spine
from spine import weights
from spine.backbones import convnext, mobilenet_v2
from spine.errors import InputError


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_our_own_weights_come_back(tmp_path, backbone, suffix):
    one = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64)
    path = tmp_path / f"file{suffix}"
    state = {key: value.contiguous() for key, value in one.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    two = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64, weights=path)
    assert same(one, two)


def test_the_authors_layout_is_read(tmp_path):
    one = spine.create_model("convnext", variant="micro", num_outputs=3)
    official = {
        k.removeprefix("backbone.").replace("pooling.", "").replace("head.linear", "head"): v for k, v in one.state_dict().items()
    }
    torch.save({"model": official}, tmp_path / "a.pth")
    assert same(one, spine.create_model("convnext", variant="micro", num_outputs=3, weights=tmp_path / "a.pth"))


def test_a_classifier_opens_under_another_task_with_a_new_head(tmp_path, capsys):
    one = spine.create_model("mobilenet_v2", variant="micro", num_outputs=3)
    torch.save(one.state_dict(), tmp_path / "a.pth")
    two = spine.create_model("mobilenet_v2", variant="micro", task="seg", num_outputs=5, weights=tmp_path / "a.pth")
    assert same(one.backbone.features, two.backbone.features)
    said = capsys.readouterr().out
    assert "new: head." in said and "unused: backbone.pooling.conv" in said


def test_pretraining_goes_on_to_classification(tmp_path):
    """MAE's encoder norm becomes the classifier's, and positions are resized to the other image size."""
    one = spine.create_model("vit", variant="micro", task="mae", image_size=64)
    torch.save({"state_dict": {f"model.{key}": value for key, value in one.state_dict().items()}}, tmp_path / "last.ckpt")
    two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=96, weights=tmp_path / "last.ckpt")
    assert torch.equal(one.backbone.norm.weight, two.backbone.pooling.norm.weight)
    assert two.backbone.pos_embed.shape == (1, 37, 128)
    assert torch.equal(one.backbone.pos_embed[:, 0], two.backbone.pos_embed[:, 0])


def test_another_variant_is_refused(tmp_path):
    torch.save(spine.create_model("mobilenet_v2", variant="w035", num_outputs=3).state_dict(), tmp_path / "a.pth")
    with pytest.raises(
        InputError, match=r"does not fit this backbone: \d+ of its \d+ tensors do not match. First: backbone.features.0"
    ):
        spine.create_model("mobilenet_v2", variant="w100", num_outputs=3, weights=tmp_path / "a.pth")


def test_strange_files_are_refused_and_nothing_in_them_runs(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        weights.read(tmp_path / "nothing.pth")
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.touch, ())

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(InputError, match=f"{name}' is not a plain weights file, and nothing in it was run"):
            weights.read(tmp_path / name)
    assert not ran.exists()
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"abc")
    for name in ("empty.pth", "broken.safetensors"):
        with pytest.raises(InputError, match=name):
            weights.read(tmp_path / name)
    torch.save({"model": {"epoch": 3}}, tmp_path / "none.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        weights.read(tmp_path / "none.pth")


def test_tables_of_offsets_are_resized_to_the_image_or_the_window(tmp_path):
    """BEiT's follow the image, Swin's the window: near offsets keep their rows, and the report says so."""
    small = spine.create_model("beit", variant="micro", num_outputs=3, image_size=64)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(small.state_dict(), tmp_path / "beit.pth")
    large = spine.create_model("beit", variant="micro", num_outputs=3, image_size=96)
    report = weights.load(large, tmp_path / "beit.pth", [])
    assert len(report.resized) == 6 and not report.new and not report.unused
    key = "backbone.blocks.0.attn.rel_pos_bias.relative_position_bias_table"
    torch.testing.assert_close(large.state_dict()[key][-3:], small.state_dict()[key][-3:])
    torch.testing.assert_close(large.state_dict()[key][60], small.state_dict()[key][24])  # offset 0, 0

    net = spine.create_model("swin", variant="micro", num_outputs=3)
    key = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    tables = {name: value for name, value in net.state_dict().items() if name.endswith("bias_table")}
    wider = {name: torch.randn(13 * 13, value.shape[1]) for name, value in tables.items()}  # of windows of 7
    torch.save({**net.state_dict(), **wider}, tmp_path / "swin.pth")
    assert len(weights.load(net, tmp_path / "swin.pth", []).resized) == len(tables)
    inner = wider[key].view(13, 13, -1)[3:10, 3:10].flatten(0, 1)  # offsets that a window of 4 knows
    torch.testing.assert_close(net.state_dict()[key], inner)


def test_layouts_name_every_tensor_of_a_classifier():
    names = ["stages.0.0.gamma", "norm.weight", "head.bias", "downsample_layers.1.1.weight"]
    assert [weights.rename(n, convnext.LAYOUT) for n in names] == [
        "backbone.stages.0.0.gamma", "backbone.pooling.norm.weight", "head.linear.bias", "backbone.downsample_layers.1.1.weight",
    ]  # fmt: skip
    assert weights.rename("features.18.1.bias", mobilenet_v2.LAYOUT) == "backbone.pooling.conv.1.bias"


def test_a_real_file_opens(shared_data):
    path = shared_data.parent / "weights" / "mobilenet_v2_keras160_backbone.pth"
    net = spine.create_model("mobilenet_v2", variant="w100", num_outputs=10, weights=path)
    assert torch.isfinite(net.eval()(torch.randn(1, 3, 160, 160))).all()
