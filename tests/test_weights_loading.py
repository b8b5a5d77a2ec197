"""Loading of weight files: what is loaded, resized, newly initialized and reported."""

import pytest
import torch
from safetensors.torch import save_file
from test_configs import composed
from weight_files import equal_weights, random_network, save_checkpoint

import spine
from spine.checkpoints import loading, reader, writer
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.mapping import SPINE_LAYOUT
from spine.config import checks
from spine.errors import InputError
from spine.layers import positions
from spine.models.assembly import network_of


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_files_with_spines_names_load(tmp_path, backbone, suffix):
    one = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64)
    path = tmp_path / f"file{suffix}"
    state = {key: value.contiguous() for key, value in one.state_dict().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    two = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64, weights=path)
    assert equal_weights(one, two)


def test_files_with_the_authors_names_load(tmp_path):
    one = spine.create_model("convnext", variant="micro", num_outputs=3)
    official = {
        k.removeprefix("backbone.").replace("pooling.", "").replace("head.linear", "head"): v for k, v in one.state_dict().items()
    }
    torch.save({"model": official}, tmp_path / "a.pth")
    assert equal_weights(one, spine.create_model("convnext", variant="micro", num_outputs=3, weights=tmp_path / "a.pth"))


def test_report_lists_matched_new_and_unused_tensors(tmp_path, caplog):
    one = spine.create_model("mobilenet_v2", variant="micro", num_outputs=3)
    path = tmp_path / "a.pth"
    torch.save(one.state_dict(), path)
    with caplog.at_level("INFO", logger="spine"):
        two = spine.create_model("mobilenet_v2", variant="micro", task="seg", num_outputs=5, weights=path)
    assert equal_weights(one.backbone.features, two.backbone.features)
    lines = caplog.messages[-1].splitlines()
    assert lines[0] == f"Loaded weights from {path} (layout: spine):"
    assert " tensors matched (" in lines[1] and "of the parameters)" in lines[1]
    assert " new, randomly initialized (" in lines[2] and "head." in lines[2]
    assert " unused, not in this network: backbone.pooling.* (5), head.linear.* (2)" in lines[3]


def test_another_number_of_classes_initializes_only_the_last_layer(tmp_path, caplog):
    torch.save(random_network("mobilenet_v3", variant="micro").state_dict(), tmp_path / "a.pth")
    with caplog.at_level("INFO", logger="spine"):
        spine.create_model("mobilenet_v3", weights=tmp_path / "a.pth", num_outputs=7)
    expected = (
        "2 new, randomly initialized (0.5% of the parameters): "
        "head.linear.weight (3x256 float32 in the file, 7x256 in the network), head.linear.bias"
    )
    assert expected in caplog.text


def test_pretrained_weights_load_into_a_classifier(tmp_path):
    """MAE's encoder norm becomes the classifier's, and the position embedding is resized to the image size."""
    one = spine.create_model("vit", variant="micro", task="mae", image_size=64)
    torch.save({"state_dict": {f"model.{key}": value for key, value in one.state_dict().items()}}, tmp_path / "last.ckpt")
    two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=96, weights=tmp_path / "last.ckpt")
    assert torch.equal(one.backbone.norm.weight, two.backbone.pooling.norm.weight)
    assert two.backbone.pos_embed.shape == (1, 37, 128)
    assert torch.equal(one.backbone.pos_embed[:, 0], two.backbone.pos_embed[:, 0])


def test_weights_of_another_variant_are_rejected(tmp_path):
    torch.save(spine.create_model("mobilenet_v2", variant="w035", num_outputs=3).state_dict(), tmp_path / "a.pth")
    message = (
        r"does not fit. It is a file of mobilenet_v2 w035; the network is mobilenet_v2 w100. "
        r"Read with the layout of \w+, it holds \d+% of .*. First mismatches: backbone"
    )
    with pytest.raises(InputError, match=message):
        spine.create_model("mobilenet_v2", variant="w100", num_outputs=3, weights=tmp_path / "a.pth")


def test_relative_position_bias_is_resized_to_the_image_or_the_window(tmp_path):
    """BEiT's tables follow the image size, Swin's the window size: near positions keep their rows, and the report lists the tables."""
    small = spine.create_model("beit", variant="micro", num_outputs=3, image_size=64)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(small.state_dict(), tmp_path / "beit.pth")
    large = spine.create_model("beit", variant="micro", num_outputs=3, image_size=96)
    report = loading.load(large, reader.read_weight_file(tmp_path / "beit.pth", ()), "beit micro")
    assert len(report.resized) == 6 and not report.new and not report.unused
    key = "backbone.blocks.0.attn.rel_pos_bias.relative_position_bias_table"
    torch.testing.assert_close(large.state_dict()[key][-3:], small.state_dict()[key][-3:])
    torch.testing.assert_close(large.state_dict()[key][60], small.state_dict()[key][24])  # relative position (0, 0)

    net = spine.create_model("swin", variant="micro", num_outputs=3)
    key = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    tables = {name: value for name, value in net.state_dict().items() if name.endswith("bias_table")}
    wider = {name: torch.randn(13 * 13, value.shape[1]) for name, value in tables.items()}  # of windows of 7
    torch.save({**net.state_dict(), **wider}, tmp_path / "swin.pth")
    report = loading.load(net, reader.read_weight_file(tmp_path / "swin.pth", ()), "swin micro")
    assert len(report.resized) == len(tables)
    inner = wider[key].view(13, 13, -1)[3:10, 3:10].flatten(0, 1)  # relative positions within a window of 4
    torch.testing.assert_close(net.state_dict()[key], inner)


@pytest.mark.parametrize("backbone", ["vit", "mae"])
@pytest.mark.parametrize("after", [(192, 240), (240, 176), (96, 96), (176, 240)])
def test_position_embeddings_of_non_square_images_are_resized(tmp_path, backbone, after):
    """The grid of the file follows from its configuration; 240x176 has as many patches in another grid."""
    one = spine.create_model(backbone, variant="micro", task="mae", image_size=(176, 240))
    path = save_checkpoint(one, tmp_path / "last.ckpt", image_size=[176, 240])
    two = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=after)
    report = loading.load(two, reader.read_weight_file(path, layouts_of(backbone)), backbone)
    grid = (after[0] // 16, after[1] // 16)
    expected = positions.resize_positions(one.backbone.pos_embed, (11, 15), grid)
    assert torch.equal(two.backbone.pos_embed, expected)
    assert ("backbone.pos_embed" in report.resized) == (grid != (11, 15)) and "backbone.pos_embed" not in report.new


def test_relative_position_bias_of_non_square_images_is_resized(tmp_path):
    one = spine.create_model("beit", variant="micro", num_outputs=3, image_size=(32, 96))
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter)
    path = save_checkpoint(one, tmp_path / "last.ckpt", image_size=[32, 96])
    for size in ((96, 32), (64, 96)):
        two = spine.create_model("beit", variant="micro", num_outputs=3, image_size=size)
        report = loading.load(two, reader.read_weight_file(path, ()), "beit micro")
        assert len(report.resized) == 6 and not report.new
        key = "backbone.blocks.0.attn.rel_pos_bias.relative_position_bias_table"
        new = (size[0] // 16, size[1] // 16)
        expected = positions.resize_relative_positions(one.state_dict()[key], (2, 6), new)
        assert torch.equal(two.state_dict()[key], expected)


def test_decoder_positions_are_resized_with_pixel_masking(tmp_path):
    one = spine.create_model("convnext", variant="micro", task="mae", image_size=(64, 96))
    path = save_checkpoint(one, tmp_path / "last.ckpt", image_size=[64, 96])
    two = spine.create_model("convnext", variant="micro", task="mae", image_size=(96, 96))
    report = loading.load(two, reader.read_weight_file(path, ()), "convnext micro")
    assert report.resized == ["head.decoder_pos_embed"] and not report.new


def test_grid_of_a_dense_run_includes_the_padding(tmp_path):
    one = spine.create_model("vit", variant="micro", task="seg", num_outputs=3, image_size=(192, 240))
    path = save_checkpoint(one, tmp_path / "last.ckpt", image_size=[180, 240])
    two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=(96, 240), weights=path)
    assert torch.equal(two.backbone.pos_embed, positions.resize_positions(one.backbone.pos_embed, (12, 15), (6, 15)))


def test_head_options_come_from_the_configuration_of_a_checkpoint(tmp_path):
    """No tensor has the number of bases. Dropout belongs to the training, so it is not taken."""
    kind = {"variant": "micro", "task": "seg", "head": "hamburger", "num_outputs": 3}
    one = spine.create_model("segnext", **kind, head_options={"channels": 64, "rank": 8})
    head = {"_target_": "spine.heads.hamburger.HamburgerHead", "channels": 64, "rank": 8, "dropout": 0.5, "levels": None}
    path = save_checkpoint(one, tmp_path / "last.ckpt", head=head)
    two = spine.create_model("segnext", **kind, weights=path)
    assert two.head.hamburger.ham.rank == 8 and two.head.drop.p == 0.1 and equal_weights(one, two)


@pytest.mark.parametrize("bias", [True, False])
def test_classifier_bias_follows_the_file(tmp_path, bias):
    """Also against the published default, for files of a publisher and of spine; an explicit option takes precedence."""
    one = random_network("shufflenet_v1", variant="micro", head_options={"bias": bias}, paper_shuffle=True)
    layout = next(x for x in layouts_of("shufflenet_v1") if x.publisher == "openmmlab")
    writer.write(one.state_dict(), layout, tmp_path / "openmmlab.pth")
    writer.write(one.state_dict(), SPINE_LAYOUT, tmp_path / "spine.safetensors")
    for file in ("openmmlab.pth", "spine.safetensors"):
        two = spine.create_model("shufflenet_v1", weights=tmp_path / file, num_outputs=3)
        assert (two.head.linear.bias is not None) == bias
        assert torch.equal(two.head.linear.weight, one.head.linear.weight)
        other = {"bias": not bias}
        three = spine.create_model("shufflenet_v1", weights=tmp_path / file, num_outputs=3, head_options=other)
        assert (three.head.linear.bias is not None) != bias


@pytest.mark.parametrize(("publisher", "rank"), [("official", 64), ("openmmlab", 16)])
def test_decoder_options_of_a_segmentation_file_reach_the_configuration(tmp_path, publisher, rank):
    """OpenMMLab's large SegNeXt has 16 bases. No key of the yaml overrides that."""
    with torch.device("meta"):
        one = spine.create_model("segnext", variant="base", task="seg", head="hamburger", num_outputs=5)
    state = {key: torch.zeros(value.shape) for key, value in one.state_dict().items()}
    layouts = [x for x in layouts_of("segnext") if x.publisher == publisher and callable(x.head_options)]
    writer.write(state, layouts[0], tmp_path / "a.pth")
    path = f"backbone.weights={tmp_path / 'a.pth'}"
    config = checks.prepare(composed("backbone=segnext", "backbone.variant=null", path, "task=seg", "head=hamburger"))
    assert config["backbone"]["variant"] == "base" and (config["head"]["channels"], config["head"]["rank"]) == (512, rank)


@pytest.mark.parametrize("auxiliary", [True, False])
def test_auxiliary_head_follows_the_file(tmp_path, auxiliary):
    """Of a file of a whole segmentation network; an explicit option takes precedence."""
    kind = {"variant": "micro", "task": "seg", "head": "upernet", "num_outputs": 3}
    options = {"channels": 16} if auxiliary else {"weight": 0.0}
    one = spine.create_model("swin", **kind, head_options={"channels": 32}, auxiliary_head=options)
    layout = next(x for x in layouts_of("swin") if x.publisher == "official" and callable(x.head_options))
    writer.write(one.state_dict(), layout, tmp_path / "a.pth")
    two = spine.create_model("swin", **{**kind, "variant": None}, weights=tmp_path / "a.pth")
    assert (two.auxiliary_head is not None) == auxiliary and equal_weights(one, two)
    other = {"weight": 0.0} if auxiliary else {"weight": 0.2}
    three = spine.create_model("swin", **kind, weights=tmp_path / "a.pth", auxiliary_head=other)
    assert (three.auxiliary_head is None) == auxiliary
    path = f"backbone.weights={tmp_path / 'a.pth'}"
    config = checks.prepare(composed("backbone=swin", "backbone.variant=null", path, "task=seg", "head=upernet"))
    assert config["head"]["channels"] == 32
    assert config["auxiliary_head"].get("channels") == (16 if auxiliary else None)
    assert auxiliary or config["auxiliary_head"]["weight"] == 0


def test_segmentation_files_of_the_authors_of_hrnet_load(tmp_path, caplog):
    """They are stored with the weights of the classes in the loss."""
    one = random_network("hrnet", variant="micro", task="seg", head="fcn")
    layout = next(x for x in layouts_of("hrnet") if x.publisher == "official" and x.required == ("last_layer.0.weight",))
    state = {f"model.{name}": tensor for name, tensor in layout.to_publisher(one.state_dict()).items()}
    assert state["model.last_layer.0.weight"].shape == (120, 120, 1, 1)
    torch.save({"state_dict": {**state, "loss.criterion.weight": torch.ones(3)}}, tmp_path / "a.pth")
    with caplog.at_level("WARNING", logger="spine"):
        two = spine.create_model("hrnet", task="seg", head="fcn", num_outputs=3, weights=tmp_path / "a.pth")
    assert equal_weights(one, two) and not caplog.messages
    assert two.backbone.upsampling == "bilinear"


def test_hrnet_of_older_checkpoints_keeps_its_head_and_upsampling():
    """A configuration of an older version lacks the options of the published head."""
    config = composed("backbone=hrnet", "task=seg", "head=fcn")
    new = network_of(config, 3).build()
    assert new.backbone.upsampling == "bilinear" and not new.head.convs
    config["head"] = {"_target_": config["head"]["_target_"], "levels": None, "channels": None, "dropout": None}
    old = network_of(config, 3).build()
    assert old.backbone.upsampling == "nearest" and len(old.head.convs) == 2
