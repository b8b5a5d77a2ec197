"""Weight files: recognised, loaded, reported, written back, and refused in one sentence."""

import gc
import inspect
import itertools
import os
import pickle
import random
import weakref

import numpy as np
import pytest
import torch
from recording import draw, shapes_of
from safetensors import safe_open
from safetensors.torch import save_file
from test_configs import composed

import spine
from spine.checkpoints import loading, reader
from spine.checkpoints import mapping as names
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.published import weight_table_of
from spine.components import backbone_module
from spine.config import building, checks
from spine.errors import InputError
from spine.layers import positions
from spine.models.masked import MaskedModel

WRITABLE = sorted({(backbone, layout.publisher) for backbone in spine.list_backbones() for layout in layouts_of(backbone)})


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def random_network(backbone, **options):
    """With weights and statistics that all differ."""
    net = spine.create_model(backbone, **{"num_outputs": 3, "image_size": 64, **options}).eval()
    net.load_state_dict({key: value.float() for key, value in draw(shapes_of(net)).items()}, strict=False)
    return net


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
    assert "new (" in said and "head." in said and "unused: backbone.pooling.conv" in said


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
    told = r"does not fit. This is mobilenet_v2 w035; you asked for mobilenet_v2 w100. .* holds \d+% of .* First that do not fit: backbone"
    with pytest.raises(InputError, match=told):
        spine.create_model("mobilenet_v2", variant="w100", num_outputs=3, weights=tmp_path / "a.pth")


def test_strange_files_are_refused_and_nothing_in_them_runs(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        reader.read(tmp_path / "nothing.pth")
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (ran.touch, ())

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(InputError, match=f"{name}' is not a plain weights file, and nothing in it was run"):
            reader.read(tmp_path / name)
    assert not ran.exists()
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"abc")
    for name in ("empty.pth", "broken.safetensors"):
        with pytest.raises(InputError, match=name):
            reader.read(tmp_path / name)
    torch.save({"model": {"epoch": 3}}, tmp_path / "none.pth")
    with pytest.raises(InputError, match="holds no tensors by name"):
        reader.read(tmp_path / "none.pth")


def test_tables_of_offsets_are_resized_to_the_image_or_the_window(tmp_path):
    """BEiT's follow the image, Swin's the window: near offsets keep their rows, and the report says so."""
    small = spine.create_model("beit", variant="micro", num_outputs=3, image_size=64)
    for parameter in small.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(small.state_dict(), tmp_path / "beit.pth")
    large = spine.create_model("beit", variant="micro", num_outputs=3, image_size=96)
    report = loading.load(large, reader.read_weight_file(tmp_path / "beit.pth", ()), "beit micro")
    assert len(report.resized) == 6 and not report.new and not report.unused
    key = "backbone.blocks.0.attn.rel_pos_bias.relative_position_bias_table"
    torch.testing.assert_close(large.state_dict()[key][-3:], small.state_dict()[key][-3:])
    torch.testing.assert_close(large.state_dict()[key][60], small.state_dict()[key][24])  # offset 0, 0

    net = spine.create_model("swin", variant="micro", num_outputs=3)
    key = "backbone.layers.0.blocks.1.attn.relative_position_bias_table"
    tables = {name: value for name, value in net.state_dict().items() if name.endswith("bias_table")}
    wider = {name: torch.randn(13 * 13, value.shape[1]) for name, value in tables.items()}  # of windows of 7
    torch.save({**net.state_dict(), **wider}, tmp_path / "swin.pth")
    report = loading.load(net, reader.read_weight_file(tmp_path / "swin.pth", ()), "swin micro")
    assert len(report.resized) == len(tables)
    inner = wider[key].view(13, 13, -1)[3:10, 3:10].flatten(0, 1)  # offsets that a window of 4 knows
    torch.testing.assert_close(net.state_dict()[key], inner)


def checkpoint_of(net, path, **config):
    """A file as training writes it."""
    state = {f"model.{key}": value for key, value in net.state_dict().items()}
    torch.save({"state_dict": state, "config": config}, path)
    return path


@pytest.mark.parametrize("backbone", ["vit", "mae"])
@pytest.mark.parametrize("after", [(192, 240), (240, 176), (96, 96), (176, 240)])
def test_positions_of_a_size_that_is_not_square_are_resized(tmp_path, backbone, after):
    """The file's grid stands in its configuration; 240x176 has as many patches, in other places."""
    one = spine.create_model(backbone, variant="micro", task="mae", image_size=(176, 240))
    path = checkpoint_of(one, tmp_path / "last.ckpt", image_size=[176, 240])
    two = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=after)
    report = loading.load(two, reader.read_weight_file(path, layouts_of(backbone)), backbone)
    grid = (after[0] // 16, after[1] // 16)
    expected = positions.resize_positions(one.backbone.pos_embed, (11, 15), grid)
    assert torch.equal(two.backbone.pos_embed, expected)
    assert ("backbone.pos_embed" in report.resized) == (grid != (11, 15)) and "backbone.pos_embed" not in report.new


def test_offsets_of_a_size_that_is_not_square_are_resized(tmp_path):
    one = spine.create_model("beit", variant="micro", num_outputs=3, image_size=(32, 96))
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter)
    path = checkpoint_of(one, tmp_path / "last.ckpt", image_size=[32, 96])
    for size in ((96, 32), (64, 96)):
        two = spine.create_model("beit", variant="micro", num_outputs=3, image_size=size)
        report = loading.load(two, reader.read_weight_file(path, ()), "beit micro")
        assert len(report.resized) == 6 and not report.new
        key = "backbone.blocks.0.attn.rel_pos_bias.relative_position_bias_table"
        new = (size[0] // 16, size[1] // 16)
        expected = positions.resize_relative_positions(one.state_dict()[key], (2, 6), new)
        assert torch.equal(two.state_dict()[key], expected)


def test_a_decoder_behind_a_painted_network_meets_another_size(tmp_path):
    one = spine.create_model("convnext", variant="micro", task="mae", image_size=(64, 96))
    path = checkpoint_of(one, tmp_path / "last.ckpt", image_size=[64, 96])
    two = spine.create_model("convnext", variant="micro", task="mae", image_size=(96, 96))
    report = loading.load(two, reader.read_weight_file(path, ()), "convnext micro")
    assert report.resized == ["head.decoder_pos_embed"] and not report.new


def test_a_dense_run_pads_to_whole_patches_before_its_grid_is_counted(tmp_path):
    one = spine.create_model("vit", variant="micro", task="seg", num_outputs=3, image_size=(192, 240))
    path = checkpoint_of(one, tmp_path / "last.ckpt", image_size=[180, 240])
    two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=(96, 240), weights=path)
    assert torch.equal(two.backbone.pos_embed, positions.resize_positions(one.backbone.pos_embed, (12, 15), (6, 15)))


def test_an_export_carries_its_size_and_what_else_it_is_given(tmp_path):
    one = spine.create_model("vit", variant="micro", num_outputs=3, image_size=(32, 96))
    metadata = {"spine": "0.1.0", "backbone": "vit", "image_size": "[32, 96]", "class_names": '["a", "b", "c"]'}
    for layout in (names.SPINE_LAYOUT, next(x for x in layouts_of("vit") if x.publisher == "timm")):
        reader.write(one.state_dict(), layout, tmp_path / "a.safetensors", metadata)
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert metadata.items() <= file.metadata().items()
        two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=96, weights=tmp_path / "a.safetensors")
        assert torch.equal(two.backbone.pos_embed, positions.resize_positions(one.backbone.pos_embed, (2, 6), (6, 6)))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path, suffix):
    state, path = {"backbone.a": torch.ones(3)}, tmp_path / f"a.{suffix}"
    before = os.umask(0o022)
    try:
        reader.write(state, names.SPINE_LAYOUT, path)
        assert path.stat().st_mode & 0o777 == 0o644
        os.umask(0o027)
        reader.write(state, names.SPINE_LAYOUT, path)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [path]  # no part is left


def test_a_file_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        reader.write({"backbone.a": torch.ones(3)}, names.SPINE_LAYOUT, tmp_path / "file" / "a.safetensors")


def test_a_file_is_read_once_from_the_check_to_the_network_and_then_forgotten(tmp_path, monkeypatch):
    torch.save(random_network("mobilenet_v2", variant="micro").state_dict(), tmp_path / "a.pth")
    opened = []
    original = reader._open

    def counted(path):
        content = original(path)
        opened.append([weakref.ref(value) for value in content.values()])
        return content

    monkeypatch.setattr(reader, "_open", counted)
    config = composed("backbone=mobilenet_v2", f"backbone.weights={tmp_path / 'a.pth'}", "task=cls", "dataset.num_workers=0")
    config = checks.prepare(config)
    run = building.build_run(config)
    assert len(opened) == 1 and run.load_report.matched
    gc.collect()
    assert all(reference() is None for reference in opened[0])
    config = checks.prepare(config)
    torch.save(random_network("mobilenet_v2", variant="micro", in_chans=3).state_dict(), tmp_path / "b.pth")
    os.replace(tmp_path / "b.pth", tmp_path / "a.pth")  # another file under the same name
    config = checks.prepare(config)
    assert len(opened) == 3
    reader.release()
    gc.collect()
    assert all(reference() is None for references in opened for reference in references)


def test_our_own_checkpoint_tells_its_head(tmp_path):
    """What no tensor shows, the number of bases, stands in the configuration; dropout is a matter of the new training."""
    kind = {"variant": "micro", "task": "seg", "head": "hamburger", "num_outputs": 3}
    one = spine.create_model("segnext", **kind, head_options={"channels": 64, "rank": 8})
    head = {"_target_": "spine.heads.hamburger.HamburgerHead", "channels": 64, "rank": 8, "dropout": 0.5, "levels": None}
    path = checkpoint_of(one, tmp_path / "last.ckpt", head=head)
    two = spine.create_model("segnext", **kind, weights=path)
    assert two.head.hamburger.ham.rank == 8 and two.head.drop.p == 0.1 and same(one, two)


KINDS = {  # what is published of a system beside classifiers
    "beit": {"task": "beit"},
    "hrnet": {"task": "pose"},
    "mae": {"task": "mae", "num_outputs": None},
    "segnext": {"task": "seg", "head": "hamburger"},
    "vgg16": {"task": "seg", "head": "parsenet", "variant": "largefov"},
}


def answer(net, image):
    if isinstance(net, MaskedModel):
        return net(image, torch.arange(16).expand(len(image), -1) % 4 > 0)
    return net(image)


@pytest.mark.parametrize(
    ("backbone", "publisher"), [p if p[0] == "convnext" else pytest.param(*p, marks=pytest.mark.slow) for p in WRITABLE]
)
def test_what_is_written_for_a_publisher_opens_again(tmp_path, backbone, publisher):
    """Written under their names, the file alone tells layout, conventions and variant, and the network is the same."""
    module = backbone_module(backbone)
    layouts = [layout for layout in layouts_of(backbone) if layout.publisher == publisher]
    defaults = {name: p.default for name, p in inspect.signature(getattr(module, backbone)).parameters.items()}
    written, image = 0, torch.randn(2, 3, 64, 64)
    for layout, kind in itertools.product(layouts, [{"variant": "micro"}, {"variant": "micro", **KINDS.get(backbone, {})}]):
        head_options = {} if callable(layout.head_options) else dict(layout.head_options)
        try:
            one = random_network(backbone, **kind, head_options=head_options, **layout.options)
            chosen = names.layout_for(one.state_dict(), layouts_of(backbone), publisher, {**defaults, **layout.options}, defaults)
        except InputError:  # the layout of another head, or of a network of another kind
            continue
        path, again = tmp_path / f"{written}.pth", tmp_path / f"{written}.safetensors"
        reader.write(one.state_dict(), chosen, path)
        options = {key: value for key, value in kind.items() if key != "variant"}
        two = spine.create_model(backbone, **{"num_outputs": 3, **options}, weights=path, image_size=64, layout=publisher).eval()
        assert torch.equal(answer(one, image), answer(two, image))
        reader.write(two.state_dict(), chosen, again)
        first, second = reader.read(path), reader.read(again)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        written += 1
    assert written


@pytest.mark.parametrize("bias", [True, False])
def test_a_file_says_whether_its_classifier_has_a_bias(tmp_path, bias):
    """Against the published default, from files of others and our own; an explicit option wins."""
    one = random_network("shufflenet_v1", variant="micro", head_options={"bias": bias}, paper_shuffle=True)
    layout = next(x for x in layouts_of("shufflenet_v1") if x.publisher == "openmmlab")
    reader.write(one.state_dict(), layout, tmp_path / "theirs.pth")
    reader.write(one.state_dict(), names.SPINE_LAYOUT, tmp_path / "own.safetensors")
    for file in ("theirs.pth", "own.safetensors"):
        two = spine.create_model("shufflenet_v1", weights=tmp_path / file, num_outputs=3)
        assert (two.head.linear.bias is not None) == bias
        assert torch.equal(two.head.linear.weight, one.head.linear.weight)
        other = {"bias": not bias}
        three = spine.create_model("shufflenet_v1", weights=tmp_path / file, num_outputs=3, head_options=other)
        assert (three.head.linear.bias is not None) != bias


@pytest.mark.parametrize(("publisher", "rank"), [("official", 64), ("openmmlab", 16)])
def test_a_segmenters_file_gives_its_decoder_to_the_command_line(tmp_path, publisher, rank):
    """OpenMMLab's large SegNeXt has 16 bases; no key of the yaml stands in its way."""
    with torch.device("meta"):
        one = spine.create_model("segnext", variant="base", task="seg", head="hamburger", num_outputs=5)
    state = {key: torch.zeros(value.shape) for key, value in one.state_dict().items()}
    layouts = [x for x in layouts_of("segnext") if x.publisher == publisher and callable(x.head_options)]
    reader.write(state, layouts[0], tmp_path / "a.pth")
    path = f"backbone.weights={tmp_path / 'a.pth'}"
    config = composed("backbone=segnext", "backbone.variant=null", path, "task=seg", "head=hamburger")
    config = checks.prepare(config)
    assert config["backbone"]["variant"] == "base" and (config["head"]["channels"], config["head"]["rank"]) == (512, rank)


def test_another_number_of_classes_renews_the_last_layer_alone(tmp_path, capsys):
    torch.save(random_network("mobilenet_v3", variant="micro").state_dict(), tmp_path / "a.pth")
    spine.create_model("mobilenet_v3", weights=tmp_path / "a.pth", num_outputs=7)
    told = capsys.readouterr().out
    assert "2 new (0.5% of the parameters): head.linear.weight (3x256 float32 in the file, 7x256 here), head.linear.bias" in told


def test_a_file_of_another_backbone_is_named_as_strange(tmp_path):
    torch.save(random_network("swin", variant="micro").state_dict(), tmp_path / "a.pth")
    torch.save({"embedding.weight": torch.ones(3), "lstm.bias": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match="does not fit"):
        spine.create_model("convnext", weights=tmp_path / "a.pth", num_outputs=3)
    with pytest.raises(InputError, match="First strange ones: embedding.weight, lstm.bias. Is it a file of another backbone?"):
        spine.create_model("convnext", weights=tmp_path / "b.pth", num_outputs=3)
    with pytest.raises(InputError, match="Unknown layout 'tim'. Did you mean 'timm'"):
        spine.create_model("convnext", weights=tmp_path / "a.pth", num_outputs=3, layout="tim")


def test_mean_and_deviation_of_a_row_reach_the_images(tmp_path, monkeypatch, caplog):
    torch.save(random_network("xception", variant="standard").state_dict(), tmp_path / "xception-43020ad28.pth")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))  # as if it had been fetched
    named = ("backbone=xception", "backbone.variant=standard", "backbone.weights=imagenet1k", "task=cls")
    config = composed(*named)
    config = checks.prepare(config)
    assert config["dataset"]["mean"] == config["dataset"]["std"] == [0.5, 0.5, 0.5]
    checks.prepare(composed(*named, "dataset.mean=[0.4,0.4,0.4]"))
    assert "The weights 'imagenet1k' were made with mean [0.5, 0.5, 0.5]; dataset.mean is [0.4, 0.4, 0.4]." in caplog.text
    config = composed("task=cls")
    config = checks.prepare(config)
    assert config["dataset"]["mean"] == [0.485, 0.456, 0.406]


def test_names_of_the_weight_table(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="no published weights of that name for variant 'tiny'. Did you mean 'imagenet1k'"):
        spine.create_model("convnext", variant="tiny", weights="imagnet1k", num_outputs=3)
    for backbone in spine.list_backbones():
        module = backbone_module(backbone)
        assert set(weight_table_of(backbone)) <= set(module.VARIANTS)
        rows = [row for rows in weight_table_of(backbone).values() for row in rows.values()]
        assert rows and all(row.address.startswith("https://") and row.license and row.metric for row in rows)
    torch.save(random_network("convnext", variant="tiny").state_dict(), tmp_path / "convnext_tiny_1k_224_ema.pth")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))  # as if it had been fetched
    assert spine.create_model("convnext", weights="imagenet1k", num_outputs=3) is not None


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """One file of each kind, and what it holds."""
    folder = tmp_path_factory.mktemp("valid")
    net = random_network("shufflenet_v2", variant="micro")
    state = net.state_dict()
    torch.save({"model": state}, folder / "a.pth")
    save_file(state, folder / "a.safetensors")
    np.savez(folder / "a.npz", **{key: value.numpy() for key, value in state.items()})
    return folder, state


def edit(kind, dice, folder, state, target):
    """A damaged file; False where the damage cannot be told from other weights (bits of plain numbers without a checksum)."""
    source = dice.choice(["a.pth", "a.npz"] if kind == "flip" else ["a.pth", "a.safetensors", "a.npz"])
    path = target.with_suffix(f".{source.split('.')[1]}")
    content = bytearray((folder / source).read_bytes())
    if kind == "flip":
        for _ in range(dice.randint(1, 30)):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(content)
        return path
    if kind == "cut":
        path.write_bytes(content[: dice.randrange(len(content))])
        return path
    tensors = {key: value.clone() for key, value in state.items()}
    key = dice.choice([key for key in tensors if not key.endswith("num_batches_tracked")])
    if kind == "swap":
        other = dice.choice([k for k in tensors if tensors[k].shape != tensors[key].shape])
        tensors[key], tensors[other] = tensors[other], tensors[key]
    elif kind == "shape":
        tensors[key] = dice.choice([tensors[key][:-1], tensors[key].flatten()[None], torch.zeros(0), torch.tensor(1.0)]).clone()
    elif kind == "dtype":
        wanted = dice.choice(
            [torch.int64, torch.bool, torch.complex64, torch.float16, torch.float64, torch.uint8, torch.bfloat16]
        )
        tensors[key] = tensors[key].to(wanted)
    else:
        tensors[key].view(-1)[dice.randrange(tensors[key].numel())] = dice.choice([float("nan"), float("inf")])
    path = target.with_suffix(".pth")
    torch.save(tensors, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip", "cut", "swap", "shape", "dtype", "nan"])
def test_damaged_files_are_refused_or_told(valid, tmp_path, capsys, kind):
    """A thousand edits in all: each ends in a sentence, or in a network whose every tensor is the file's or is reported."""
    folder, state = valid
    dice = random.Random(kind)
    net = spine.create_model("shufflenet_v2", variant="micro", num_outputs=3)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    refused = 0
    for i in range(167):
        net.load_state_dict(start)
        path = edit(kind, dice, folder, state, tmp_path / f"{i}")
        try:
            report = loading.load(net, reader.read_weight_file(path, layouts_of("shufflenet_v2")), "shufflenet_v2 micro")
        except InputError as error:
            refused += 1
            assert len(str(error)) > 40
            continue
        finally:
            path.unlink(missing_ok=True)
        for key, value in net.state_dict().items():
            if key in report.matched:
                tolerance = 1e-2 if kind == "dtype" else 0  # half precision is a number format, not damage
                torch.testing.assert_close(value, state[key], atol=tolerance, rtol=tolerance)
            elif not key.endswith("num_batches_tracked"):
                assert key in report.new and torch.equal(value, start[key])
    assert refused > {"cut": 160, "nan": 160, "flip": 100}.get(kind, 0)


def test_a_real_file_opens(shared_data):
    path = shared_data.parent / "weights" / "mobilenet_v2_keras160_backbone.pth"
    net = spine.create_model("mobilenet_v2", variant="w100", num_outputs=10, weights=path)
    assert torch.isfinite(net.eval()(torch.randn(1, 3, 160, 160))).all()
