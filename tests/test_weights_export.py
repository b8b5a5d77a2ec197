"""Writing of weight files: layouts of publishers, metadata, permissions."""

import inspect
import itertools
import os

import pytest
import torch
from safetensors import safe_open
from weight_files import random_network

import spine
from spine.checkpoints import reader, writer
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.mapping import SPINE_LAYOUT
from spine.components import backbone_module
from spine.errors import InputError
from spine.layers import positions
from spine.models.masked import MaskedModel

WRITABLE = sorted(
    {(backbone, layout.publisher) for backbone in spine.list_backbones() for layout in layouts_of(backbone) if layout.writable}
)
OTHER_NETWORKS = {  # networks with published weights other than classifiers
    "beit": [{"task": "beit"}, {"task": "seg", "head": "upernet"}],
    "convnext": [{"task": "seg", "head": "upernet"}],
    "hrnet": [{"task": "pose"}, {"task": "seg", "head": "fcn"}, {"task": "seg", "head": "ocr"}],
    "mae": [{"task": "mae", "num_outputs": None}],
    "mobilenet_v2": [{"task": "seg", "head": "aspp"}],
    "mobilenet_v3": [{"task": "seg", "head": "lraspp"}],
    "segnext": [{"task": "seg", "head": "hamburger"}],
    "swin": [{"task": "seg", "head": "upernet"}],
    "vgg16": [{"task": "seg", "head": "parsenet", "variant": "largefov"}],
}


def output(net, image):
    if isinstance(net, MaskedModel):
        return net(image, torch.arange(16).expand(len(image), -1) % 4 > 0)
    return net(image)


@pytest.mark.parametrize(
    ("backbone", "publisher"), [p if p[0] == "shufflenet_v2" else pytest.param(*p, marks=pytest.mark.slow) for p in WRITABLE]
)
def test_files_written_for_a_publisher_load_again(tmp_path, backbone, publisher):
    """The file alone determines layout, conventions and variant, and the network is the same."""
    module = backbone_module(backbone)
    layouts = [layout for layout in layouts_of(backbone) if layout.publisher == publisher]
    defaults = {name: p.default for name, p in inspect.signature(getattr(module, backbone)).parameters.items()}
    written, image = 0, torch.randn(2, 3, 64, 64)
    networks = [{"variant": "micro"}, *({"variant": "micro", **other} for other in OTHER_NETWORKS.get(backbone, []))]
    for layout, kind in itertools.product(layouts, networks):
        head_options = {} if callable(layout.head_options) else dict(layout.head_options)
        try:
            one = random_network(backbone, **kind, head_options=head_options, **layout.options)
            if callable(layout.head_options):
                head_options = layout.head_options(one.state_dict())
                one = random_network(backbone, **kind, head_options=head_options, **layout.options)
            options = {**defaults, **layout.options}
            chosen = writer.layout_for(one.state_dict(), layouts_of(backbone), publisher, options, defaults)
        except InputError:  # the layout is for another head or another kind of network
            continue
        if chosen.options != layout.options:  # so is this one, and the publisher's networks of this kind have other conventions
            continue
        path, again = tmp_path / f"{written}.pth", tmp_path / f"{written}.safetensors"
        writer.write(one.state_dict(), chosen, path)
        options = {key: value for key, value in kind.items() if key != "variant"}
        two = spine.create_model(backbone, **{"num_outputs": 3, **options}, weights=path, image_size=64, layout=publisher).eval()
        assert torch.equal(output(one, image), output(two, image))
        writer.write(two.state_dict(), chosen, again)
        first, second = reader.read(path), reader.read(again)
        assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
        written += 1
    assert written


@pytest.mark.parametrize(
    ("publisher", "message"),
    [
        ("tim", "This backbone cannot be written as 'tim'. Did you mean 'timm'.* Choices: .*safetensors"),
        ("hf", "This network cannot be written as 'hf'. The layout of hf has no tensor for 'head.extra'."),
    ],
)
def test_networks_that_a_publisher_does_not_have_are_rejected(publisher, message):
    state = {**random_network("convnext", variant="micro").state_dict(), "head.extra": torch.ones(1)}
    options = {"pool_norm_eps": 1e-6}
    with pytest.raises(InputError, match=message):
        writer.layout_for(state, layouts_of("convnext"), publisher, options, options)


def test_exports_carry_image_size_and_metadata(tmp_path):
    one = spine.create_model("vit", variant="micro", num_outputs=3, image_size=(32, 96))
    metadata = {"spine": "0.1.0", "backbone": "vit", "image_size": "[32, 96]", "class_names": '["a", "b", "c"]'}
    for layout in (SPINE_LAYOUT, next(x for x in layouts_of("vit") if x.publisher == "timm")):
        writer.write(one.state_dict(), layout, tmp_path / "a.safetensors", metadata)
        with safe_open(tmp_path / "a.safetensors", "pt") as file:
            assert metadata.items() <= file.metadata().items()
        two = spine.create_model("vit", variant="micro", num_outputs=3, image_size=96, weights=tmp_path / "a.safetensors")
        assert torch.equal(two.backbone.pos_embed, positions.resize_positions(one.backbone.pos_embed, (2, 6), (6, 6)))


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_written_files_have_the_permissions_of_any_new_file(tmp_path, suffix):
    state, path = {"backbone.a": torch.ones(3)}, tmp_path / f"a.{suffix}"
    before = os.umask(0o022)
    try:
        writer.write(state, SPINE_LAYOUT, path)
        assert path.stat().st_mode & 0o777 == 0o644
        os.umask(0o027)
        writer.write(state, SPINE_LAYOUT, path)
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == [path]  # no partial file is left


def test_files_that_cannot_be_written_are_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        writer.write({"backbone.a": torch.ones(3)}, SPINE_LAYOUT, tmp_path / "file" / "a.safetensors")
