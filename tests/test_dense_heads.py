"""Tests of segmentation heads, of output strides, of auxiliary heads, and of published pairs of backbone and head."""

import pytest
import torch
from test_configs import composed

import spine
from spine.components import task_spec
from spine.config import checks, messages
from spine.errors import InputError
from spine.interfaces import Labels, TrainingOutputs
from spine.layers.dilation import dilate
from spine.models.assembly import NetworkConfig, resolve_auxiliary_head, resolve_backbone_options, resolve_head_options
from spine.tasks.seg.task import Segmentation

STRIDED = ["mobilenet_v2", "mobilenet_v3", "resnest", "xception"]


def network(backbone, head, variant="micro", **options):
    return NetworkConfig(backbone, head, task_spec("seg"), 5, backbone_options={"variant": variant}, **options)


def meta(backbone, head, **options):
    with torch.device("meta"):
        return spine.create_model(backbone, variant="micro", task="seg", head=head, num_outputs=5, **options)


def test_stride_becomes_dilation():
    assert dilate((1, 2, 2, 1, 2, 1), 32) == [(1, 1), (2, 1), (2, 1), (1, 1), (2, 1), (1, 1)]
    assert dilate((1, 2, 2, 1, 2, 1), 8) == [(1, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    assert dilate((2, 2, 1, 2, 1), 8) == [(2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    assert dilate((2, 2, 2, 2), 8, inclusive=True) == [(2, 1), (2, 1), (1, 2), (1, 4)]
    with pytest.raises(InputError, match="output_stride is 4; choose 8, 16 or 32"):
        dilate((2,), 4)


@pytest.mark.parametrize("backbone", STRIDED)
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_stride_is_the_stride_of_the_coarsest_map(backbone, output_stride):
    with torch.device("meta"):
        net = spine.create_model(
            backbone, variant="micro", task="seg", head="ocr", num_outputs=5, output_stride=output_stride
        ).backbone.eval()
        maps = net(torch.empty(1, 3, 96, 128)).maps
    assert [level.stride for level in net.spec.levels] == [4, 8, *((16, 16) if output_stride == 16 else (8, 8))]
    assert maps[-1].shape[-2:] == (96 // output_stride, 128 // output_stride)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "xception"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dilated_network_computes_the_same_at_more_positions(backbone, output_stride):
    """Every second or fourth position of the coarsest map has the value of the network with stride 32."""
    common = {"variant": "micro", "num_outputs": 3}
    coarse = spine.create_model(backbone, **common).double().eval()
    fine = spine.create_model(backbone, **common, output_stride=output_stride).double().eval()
    fine.load_state_dict(coarse.state_dict())
    image = torch.randn(1, 3, 96, 128, dtype=torch.float64)
    with torch.no_grad():
        expected, found = coarse.backbone(image).maps[-1], fine.backbone(image).maps[-1]
    step = 32 // output_stride
    torch.testing.assert_close(found[..., ::step, ::step], expected)


@pytest.mark.parametrize(
    ("backbone", "variant", "head", "options"),
    [
        ("segnext", "base", "hamburger", ({"channels": 512, "rank": 64}, {}, None)),
        ("swin", "tiny", "upernet", ({}, {}, 2)),
        ("convnext", "base", "upernet", ({}, {}, 2)),
        ("beit", "large_patch16", "upernet", ({"channels": 1024}, {}, 2)),
        ("hrnet", "w48", "fcn", ({"channels": 720, "num_convs": 0, "join_norm": True}, {}, None)),
        ("hrnet", "w48", "ocr", ({}, {}, None)),
        ("mobilenet_v2", "w100", "aspp", ({"channels": 512, "bottleneck_kernel": 3}, {"output_stride": 8}, 2)),
        ("mobilenet_v3", "large_100", "lraspp", ({}, {"output_stride": 16, "last_conv": True}, None)),
        ("xception", "standard", "aspp", ({}, {"output_stride": 16}, None)),
        ("convnext", "tiny", "fcn", ({}, {}, None)),
    ],
)
def test_names_of_backbone_and_head_are_enough_for_the_published_network(backbone, variant, head, options):
    pair = network(backbone, head, variant)
    of_head, of_backbone, level = options
    assert resolve_head_options(pair).items() >= of_head.items()
    assert resolve_backbone_options(pair).items() >= of_backbone.items()
    assert resolve_auxiliary_head(pair).get("level") == level


def test_configuration_names_the_options_of_the_published_network():
    """They are saved in checkpoints. Keys that the user gives win."""
    config = composed("backbone=mobilenet_v2", "task=seg", "head=aspp", "head.channels=64", "auxiliary_head=fcn")
    config = checks.prepare(config)
    assert config["backbone"]["output_stride"] == 8 and config["backbone"]["dilate_first"]
    assert config["head"]["channels"] == 64 and config["head"]["bottleneck_kernel"] == 3
    assert config["auxiliary_head"] == {
        "level": 2,
        "weight": 0.4,
        "channels": 256,
        "num_convs": 1,
        "concat_input": False,
        "dropout": 0.1,
    }
    net = NetworkConfig.from_config(config, 5)
    assert NetworkConfig.from_dict(net.to_dict()).to_dict() == net.to_dict()


def test_head_of_an_older_configuration_stays_as_it_was():
    """Before HRNet's own head was an option, `fcn` had 3x3 convolutions on every backbone."""
    config = checks.prepare(composed("backbone=hrnet", "task=seg"))
    older = {**config, "head": {"_target_": "spine.heads.fcn.FCN", "levels": None, "channels": 128, "dropout": 0.1}}
    assert len(NetworkConfig.from_config(config, 5).build().head.convs) == 0
    assert len(NetworkConfig.from_config(older, 5).build().head.convs) == 2


def test_auxiliary_head_is_for_training_only():
    net = meta("swin", "upernet", head_options={"channels": 32})
    with torch.device("meta"):
        image = torch.empty(2, 3, 64, 64)
        out = net.train()(image)
        assert isinstance(out, TrainingOutputs) and out.output.shape == (2, 5, 16, 16)
        assert [(tuple(extra.shape), weight) for extra, weight in out.auxiliary] == [((2, 5, 4, 4), 0.4)]
        assert net.eval()(image).shape == (2, 5, 16, 16)
    assert meta("swin", "upernet", auxiliary_head={"weight": 0}).auxiliary_head is None
    changed = meta("segnext", "hamburger", auxiliary_head={"level": 0, "channels": 16, "weight": 1.0})
    assert [level.stride for level in changed.backbone.spec.levels] == [4, 8, 16, 32]  # the hamburger reads the last three
    assert changed.auxiliary.main_maps == (1, 2, 3) and changed.auxiliary.map == 0


def test_auxiliary_losses_are_added_with_their_weights():
    labels = Labels(mask_classes=tuple("abcde"))
    net = spine.create_model(
        "swin", variant="micro", task="seg", head="upernet", num_outputs=5, head_options={"channels": 32, "dropout": 0.0},
        auxiliary_head={"weight": 0.3, "dropout": 0.0},
    )  # fmt: skip
    task = Segmentation(model=net, labels=labels)
    batch = {"image": torch.randn(2, 3, 64, 64), "mask": torch.randint(5, (2, 64, 64))}
    out = net.train()(batch["image"])
    parts = [(out.output, 1.0), *out.auxiliary]
    resized = [(torch.nn.functional.interpolate(x, (64, 64), mode="bilinear"), weight) for x, weight in parts]
    expected = sum(weight * torch.nn.functional.cross_entropy(x, batch["mask"]) for x, weight in resized)
    torch.testing.assert_close(task.evaluate_batch(batch)[0], expected)


@pytest.mark.parametrize(
    ("backbone", "head", "options", "message"),
    [
        ("convnext", "lraspp", {"levels": (0, 1, 2)}, r"'lraspp' reads two maps, .* not 3. Use head.levels=\[1,3\]"),
        (
            "convnext",
            "lraspp",
            {"head_options": {"branch_channels": (32, 64)}},
            r"'lraspp' reads a map for each of head.branch_channels=\[32, 64\] and a coarse one, not 2. Use head.levels=\[1,2,3\]",
        ),
        ("convnext", "aspp", {"levels": (0, 1, 2)}, r"'aspp' reads a fine and a coarse map, .* Use head.levels=\[0,3\]"),
        ("convnext", "fcn", {"head_options": {"join": False}}, r"head.join is false, but the head reads 4 maps"),
        ("convnext", "fcn", {"auxiliary_head": {"level": 7}}, "There is no feature level 7"),
        ("convnext", "fcn", {"auxiliary_head": {"wieght": 1.0}}, "'auxiliary_head.wieght'. Did you mean 'weight'"),
    ],
)
def test_heads_that_cannot_read_a_backbone_say_what_fits(backbone, head, options, message):
    with torch.device("meta"), pytest.raises(InputError, match=message):
        network(backbone, head, **options).build()


def test_auxiliary_head_is_for_segmentation():
    with pytest.raises(InputError, match="task 'cls' has none. Leave it out, or use task=seg"):
        checks.prepare(composed("auxiliary_head=fcn"))
    with pytest.raises(InputError, match="Unknown key 'auxiliary_head.levels'"):
        checks.prepare(composed("task=seg", "auxiliary_head=fcn", "+auxiliary_head.levels=[1]"))


def test_aspp_without_decoder_reads_one_map():
    net = meta("mobilenet_v2", "aspp", output_stride=16, auxiliary_head={"weight": 0}, head_options={"dilations": []})
    assert net.head.low is not None and len(net.head.branches) == 1
    with torch.device("meta"):
        plain = network("mobilenet_v2", "aspp", levels=(-1,), auxiliary_head={"weight": 0}).build()
    assert plain.head.low is None and len(plain.backbone.spec.levels) == 1


def test_batch_of_one_image_gets_a_clear_message_if_batch_norm_cannot_use_it():
    net = spine.create_model(
        "mobilenet_v2", variant="micro", task="seg", head="aspp", num_outputs=5, head_options={"channels": 32}
    )
    with pytest.raises(ValueError) as error:
        net.train()(torch.randn(1, 3, 64, 64))
    assert str(messages.user_message(error.value)).endswith("Set dataset.batch_size=2 or more.")
    assert net.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 5, 16, 16)
