"""Parameter groups of optimizers, and the learning rate for a batch size."""

import pytest
import torch

import spine
from spine.errors import InputError
from spine.training import optimizers, parameter_groups


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


def test_scales_of_channels_do_not_decay():
    """The scales of ParseNet are (C, 1, 1), and count as vectors."""
    net = spine.create_model("vgg16", variant="micro", task="seg", head="parsenet", num_outputs=3)
    scales = {id(p) for name, p in net.named_parameters() if name.endswith("norm.scale")}
    decays = {
        id(p): group["weight_decay"] for group in parameter_groups.parameter_groups(net, 0.1, 0.05) for p in group["params"]
    }
    assert len(scales) == 2 and all(decays[scale] == 0 for scale in scales)
    assert decays[id(net.head.score.weight)] == 0.05


def scales_and_decays(net, **options):
    """Returns learning rate scale and weight decay by name."""
    groups = parameter_groups.parameter_groups(net, 0.1, 0.05, **options)
    return {name: (group["lr_scale"], group["weight_decay"]) for group in groups for name in group["names"]}


def test_recipes_can_decay_norms_and_exclude_names():
    """As in SegNeXt: the head has ten times the learning rate, and of the backbone the norms do not decay."""
    net = spine.create_model("segnext", variant="micro", task="seg", num_outputs=3)
    found = scales_and_decays(net, head_lr_scale=10.0, decay_norm_and_bias=True, no_decay=[r"^backbone\..*norm"])
    assert all(scale == (10.0 if name.startswith("head.") else 1.0) for name, (scale, _) in found.items())
    assert all(decay == (0.0 if name.startswith("backbone.") and "norm" in name else 0.05) for name, (_, decay) in found.items())
    biases = [name for name in found if name.endswith("bias") and "norm" not in name]
    assert biases and all(found[name][1] == 0.05 for name in biases)


def test_without_names_tokens_decay():
    net = spine.create_model("vit", variant="micro", num_outputs=3, image_size=64)
    assert scales_and_decays(net)["backbone.cls_token"] == (1.0, 0.0)
    assert scales_and_decays(net, no_decay=[])["backbone.cls_token"] == (1.0, 0.05)


def test_scales_by_name_multiply():
    net = spine.create_model("convnext", variant="micro", num_outputs=3)
    found = scales_and_decays(net, head_lr_scale=10.0, lr_scales={r"^backbone": 0.5, r"\.bias$": 2.0})
    assert found["head.linear.weight"][0] == 10.0 and found["head.linear.bias"][0] == 20.0
    assert found["backbone.downsample_layers.0.0.weight"][0] == 0.5 and found["backbone.downsample_layers.0.0.bias"][0] == 1.0


def test_parameter_groups_work_on_the_meta_device():
    with torch.device("meta"):
        net = spine.create_model("vit", variant="base_patch16", num_outputs=1000)
    assert scales_and_decays(net, layer_decay=0.65)["backbone.patch_embed.proj.weight"][0] == pytest.approx(0.65**13)


def test_wrong_expressions_are_rejected():
    net = spine.create_model("convnext", variant="micro", num_outputs=2)
    with pytest.raises(InputError, match=r"optimizer.lr_scales: 'heda' matches no parameter that is trained.*such as backbone"):
        scales_and_decays(net, lr_scales={"heda": 1.0})
    with pytest.raises(InputError, match=r"optimizer.no_decay: '\(' is not a regular expression"):
        scales_and_decays(net, no_decay=["("])


def test_the_learning_rate_is_proportional_to_the_batch():
    net = spine.create_model("convnext", variant="micro", num_outputs=2)
    made = optimizers.adamw(net, lr=1.5e-4, lr_batch_size=256, global_batch_size=4096, layer_decay=0.5)
    assert made.defaults["lr"] == pytest.approx(2.4e-3)
    assert all(group["lr"] == pytest.approx(2.4e-3 * group["lr_scale"]) for group in made.param_groups)
    with pytest.raises(InputError, match="lr_batch_size is 256, which needs global_batch_size"):
        optimizers.sgd(net, lr=0.1, lr_batch_size=256)


@pytest.mark.parametrize("make", [optimizers.adamw, optimizers.rmsprop, optimizers.lars, optimizers.lamb, optimizers.lion])
def test_optimizers_continue_exactly_from_a_saved_state(make, tmp_path):
    def steps(optimizer, model, numbers):
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()

    torch.manual_seed(0)
    whole = torch.nn.Linear(4, 3)
    resumed = torch.nn.Linear(4, 3)
    resumed.load_state_dict(whole.state_dict())
    steps(make(whole, lr=0.01), whole, range(6))
    first = make(resumed, lr=0.01)
    steps(first, resumed, range(3))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make(resumed, lr=0.01)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    steps(second, resumed, range(3, 6))
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
