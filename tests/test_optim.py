"""Parameter groups of optimizers, and schedules."""

import pytest
import torch

import spine
from spine.errors import InputError
from spine.training import parameter_groups, schedules


@pytest.mark.parametrize("backbone", spine.list_backbones())
def test_groups_have_every_parameter_once_and_do_not_decay_vectors(backbone):
    net = spine.create_model(backbone, variant="micro", num_outputs=3)
    for layer_decay in (1.0, 0.7):
        groups = parameter_groups.parameter_groups(net, 0.1, 0.05, layer_decay)
        seen = [id(p) for group in groups for p in group["params"]]
        assert len(seen) == len(set(seen)) == len(list(net.parameters()))
        for group in groups:
            assert all((p.ndim > 1) or group["weight_decay"] == 0 for p in group["params"])
    names = {id(p): name for name, p in net.named_parameters()}
    undecayed = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
    assert all(("pos_embed" not in name and "cls_token" not in name) or name in undecayed for name in names.values())


def test_scales_of_parsenet_do_not_decay():
    net = spine.create_model("vgg16", variant="micro", task="seg", head="parsenet", num_outputs=3)
    scales = {id(net.head.local_norm.scale), id(net.head.global_norm.scale)}
    decayed = {id(p) for g in parameter_groups.parameter_groups(net, 0.1, 0.05) if g["weight_decay"] > 0 for p in g["params"]}
    assert scales.isdisjoint(decayed) and id(net.head.score.weight) in decayed


def test_lower_layers_have_lower_learning_rates():
    net = spine.create_model("convnext", variant="micro", num_outputs=3)
    rates = {}
    names = {id(p): name for name, p in net.named_parameters()}
    for group in parameter_groups.parameter_groups(net, 1.0, 0.05, layer_decay=0.5):
        for p in group["params"]:
            rates[names[id(p)]] = group["lr"]
    assert rates["head.linear.weight"] == 1.0
    assert rates["backbone.pooling.norm.weight"] == 1.0  # the last norm has the learning rate of the head
    assert rates["backbone.stages.3.0.dwconv.weight"] == 0.5
    groups = len(net.backbone.layer_groups())
    assert rates["backbone.downsample_layers.0.0.weight"] == pytest.approx(0.5 ** (groups - 1))
    assert rates["backbone.stages.3.0.dwconv.weight"] > rates["backbone.stages.1.0.dwconv.weight"]


@pytest.mark.parametrize("variant", ["tiny", "base"])
def test_convnext_has_the_layer_groups_of_the_authors(variant):
    with torch.device("meta"):
        net = spine.create_model("convnext", variant=variant, num_outputs=3)
    assert len(net.backbone.layer_groups()) == 14  # 0 to 12 of their code, and 13: the last norm, with the head


def test_frozen_parameters_are_left_out():
    net = spine.create_model("vit", variant="micro", task="mae", image_size=64)
    seen = {id(p) for group in parameter_groups.parameter_groups(net, 0.1, 0.05) for p in group["params"]}
    assert id(net.head.decoder_pos_embed) not in seen


@pytest.mark.parametrize("decay", [0.0, 1.5])
def test_layer_decay_out_of_range_is_rejected(decay):
    with pytest.raises(InputError, match="layer_decay"):
        parameter_groups.parameter_groups(spine.create_model("convnext", variant="micro", num_outputs=2), 0.1, 0.05, decay)


def rates(schedule, steps=100, **options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = schedule(optimizer, steps, **options)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def test_schedules():
    cosine = rates(schedules.cosine, warmup=0.1, min_lr_ratio=0.01)
    assert cosine[0] == pytest.approx(1 / 11) and cosine[10] == 1 and cosine[55] == pytest.approx(0.505) and cosine[-1] < 0.012
    poly = rates(schedules.poly, warmup=0.0, power=1.0)
    assert poly[0] == 1 and poly[50] == pytest.approx(0.5) and poly[-1] == pytest.approx(0.01)
    assert rates(schedules.constant) == [1.0] * 100
    with pytest.raises(InputError, match="warmup is 5"):
        rates(schedules.cosine, warmup=5)


def test_scales_of_channels_do_not_decay():
    """The scales of ParseNet are (C, 1, 1), and count as vectors."""
    net = spine.create_model("vgg16", variant="micro", task="seg", head="parsenet", num_outputs=3)
    scales = {id(p) for name, p in net.named_parameters() if name.endswith("norm.scale")}
    decays = {
        id(p): group["weight_decay"] for group in parameter_groups.parameter_groups(net, 0.1, 0.05) for p in group["params"]
    }
    assert len(scales) == 2 and all(decays[scale] == 0 for scale in scales)
    assert decays[id(net.head.score.weight)] == 0.05
