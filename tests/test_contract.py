"""Contract tests of all backbones and heads, which are found by listing their folders."""

import inspect
import itertools

import pytest
import torch

import spine
from spine.components import backbone_module, head_class, modules, task_spec
from spine.errors import InputError
from spine.interfaces import Features, TrainingOutputs
from spine.models.assembly import head_fits
from spine.models.masked import MaskedModel

TASKS = {name: task_spec(name) for name in modules("task")}

BACKBONES, HEADS = spine.list_backbones(), list(modules("head"))
OUTPUTS = {"cls": 7, "pose": 5, "seg": 6, "mae": None, "beit": None}
FITTING = [(b, t, h) for b, t, h in itertools.product(BACKBONES, TASKS, HEADS) if head_fits(head_class(h), TASKS[t])]
MISMATCHES = [
    (t, h) for t, h in itertools.product(TASKS, HEADS) if TASKS[t].head_input and not head_fits(head_class(h), TASKS[t])
]


def micro(backbone, **options):
    return getattr(backbone_module(backbone), backbone)("micro", **options)


def run(net, image):
    if isinstance(net, MaskedModel):
        patch_mask = torch.arange(net.grid[0] * net.grid[1]).expand(len(image), -1) % 4 > 0
        return net(image, patch_mask)
    return net(image)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_maps_have_the_shapes_of_the_feature_spec(backbone):
    net = micro(backbone, use="maps").eval()
    features = net(torch.randn(2, 3, 96, 128))
    assert len(features.maps) == len(net.spec.levels) == 4
    for level, x in zip(net.spec.levels, features.maps, strict=True):
        assert x.shape[:2] == (2, level.channels)
        for side, whole in zip(
            x.shape[2:], (96, 128), strict=True
        ):  # the stem of Xception has no padding: its finest map is one pixel smaller
            assert whole // level.stride - side in ((0, 1) if backbone == "xception" else (0,))
    strides = [level.stride for level in net.spec.levels]
    assert strides == sorted(strides)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pooled_embedding_has_the_width_of_the_feature_spec(backbone):
    net = micro(backbone, use="pooled").eval()
    features = net(torch.randn(2, 3, 64, 64))
    assert isinstance(features, Features)
    assert net.pool(features).shape == (2, net.spec.embed_dim)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("levels", [(0,), (1, 2, 3), (-1,), (0, 2)])
def test_chosen_levels_equal_those_of_a_network_with_all_levels(backbone, levels):
    """The maps are equal, and the network has no additional parameters."""
    every = micro(backbone, use="maps").eval()
    some = micro(backbone, use="maps", levels=levels).eval()
    own = some.state_dict()
    some.load_state_dict({key: value for key, value in every.state_dict().items() if key in own}, strict=True)
    image = torch.randn(1, 3, 64, 64)
    maps, chosen = every(image).maps, some(image).maps
    for level, x in zip(sorted(level % 4 for level in levels), chosen, strict=True):
        torch.testing.assert_close(x, maps[level])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("use", ["pooled", "maps", "drop", "replace"])
def test_layer_groups_contain_every_parameter_once(backbone, use):
    if use in ("drop", "replace") and use not in micro(backbone, use="maps").spec.masking:
        pytest.skip(f"cannot {use} patches")
    net = micro(backbone, use=use)
    for name, _ in net.named_parameters():
        assert sum(name.startswith(group) for group in net.layer_groups()) == 1, name


@pytest.mark.parametrize(
    ("backbone", "task", "head"),
    [
        each
        if each[0] in ("hrnet", "vit") or each[2] == TASKS[each[1]].default_head
        else pytest.param(*each, marks=pytest.mark.slow)
        for each in FITTING
    ],
)
def test_every_parameter_gets_a_gradient(backbone, task, head):
    """Distributed training stops with an error at an unused parameter."""
    options = {"channels": 32} if head in ("upernet", "lraspp", "aspp", "ocr") else {}
    kind = {"task": task, "head": head, "num_outputs": OUTPUTS[task], "head_options": options}
    net = spine.create_model(backbone, variant="micro", image_size=64, **kind)
    net.train()
    out = run(net, torch.randn(4, 3, 64, 64))
    if isinstance(out, TrainingOutputs):
        assert task == "seg" and all(extra.shape[:2] == (4, OUTPUTS[task]) and weight == 0.4 for extra, weight in out.auxiliary)
        out = torch.cat([out.output.flatten(2), *(extra.flatten(2) for extra, _ in out.auxiliary)], dim=2)
    if head == "heatmap":
        assert out.shape == (4, OUTPUTS[task], 16, 16)
    elif head == "simcc":
        assert out.shape == (4, OUTPUTS[task], 256)
    elif task == "cls":
        assert out.shape == (4, 7)
    elif task == "mae":
        assert out.shape == (4, net.grid[0] * net.grid[1], net.patch_size**2 * 3)
    elif task == "beit":
        assert out.shape == (4, net.grid[0] * net.grid[1], 8192)
    else:
        assert out.shape[:2] == (4, OUTPUTS[task])
    out.square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize(("task", "head"), MISMATCHES)
def test_head_with_another_input_is_rejected(task, head):
    with pytest.raises(InputError, match=f"Task '{task}' passes .* to its head; .*'{head}' .* Heads for {task}: "):
        spine.create_model("convnext", variant="micro", task=task, head=head, num_outputs=3)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("task", ["cls", "seg"])
def test_networks_without_patches_accept_any_size(backbone, task):
    if micro(backbone, use="maps").spec.patch_size:
        pytest.skip("requires multiples of the patch size")
    net = spine.create_model(backbone, variant="micro", task=task, num_outputs=4).eval()
    assert run(net, torch.randn(1, 3, 75, 101)).shape[:2] == (1, 4)


@pytest.mark.parametrize("backbone", ["vit", "mae", "beit"])
def test_token_networks_report_the_nearest_sizes(backbone):
    with pytest.raises(InputError, match="16x16 patches; 500x500 is not a multiple. Nearest sizes that fit: 496, 512"):
        spine.create_model(backbone, variant="micro", num_outputs=2, image_size=500)


@pytest.mark.parametrize("backbone", ["vit", "mae", "beit"])
def test_token_networks_accept_another_size_than_they_were_built_for(backbone):
    net = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=(64, 64)).eval()
    assert net(torch.randn(2, 3, 96, 48)).shape == (2, 3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_works_after_inference_mode(backbone):
    """Tensors that are cached per image size may be created in inference mode."""
    net = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64)
    image = torch.randn(2, 3, 96, 64)
    with torch.inference_mode():
        net.eval()(image)
    net.train()(image).sum().backward()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_in_chans_reaches_the_stem(backbone):
    assert spine.create_model(backbone, variant="micro", num_outputs=3, in_chans=1, image_size=64)(
        torch.randn(2, 1, 64, 64)
    ).shape == (2, 3)


def test_unknown_names_report_the_nearest_spelling():
    with pytest.raises(InputError, match="Unknown backbone 'convnex'. Did you mean 'convnext'"):
        spine.create_model("convnex", num_outputs=2)
    with pytest.raises(InputError, match="Unknown variant 'tini' of convnext. Did you mean 'tiny'"):
        spine.create_model("convnext", variant="tini", num_outputs=2)
    with pytest.raises(InputError, match="Unknown head 'fnc'. Did you mean 'fcn'"):
        spine.create_model("convnext", task="seg", head="fnc", num_outputs=2)
    with pytest.raises(InputError, match="Unknown key 'backbone.drop_path'. Did you mean 'drop_path_rate'"):
        spine.create_model("convnext", drop_path=0.1, num_outputs=2)
    with pytest.raises(InputError, match="Unknown task 'sge'. Did you mean 'seg'"):
        spine.create_model("convnext", task="sge", num_outputs=2)
    with pytest.raises(InputError, match="num_outputs is missing"):
        spine.create_model("convnext")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_unsupported_use_is_rejected(backbone):
    with pytest.raises(InputError, match="use is 'tokens'; this backbone can be built for pooled, maps"):
        micro(backbone, use="tokens")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_builder_rejects_hyperparameters_and_unknown_options(backbone):
    options = set(inspect.signature(getattr(backbone_module(backbone), backbone)).parameters)
    hyperparameters = {key for row in backbone_module(backbone).VARIANTS.values() for key in row} - options
    for key in ("unknown", *hyperparameters):
        with pytest.raises(TypeError, match=rf"{backbone}\(\) got an unexpected keyword argument '{key}'"):
            micro(backbone, **{key: 1})


def test_hybrids_are_masked_in_pixel_space():
    with torch.device("meta"):
        net = spine.create_model("vit", variant="tiny_r_s16_p8", task="mae", image_size=64)
    assert net.mask_pixel is not None and net.patch_size == 32


def test_unknown_level_is_rejected():
    with pytest.raises(InputError, match="no feature level 4"):
        micro("convnext", use="maps", levels=(4,))


def test_mask_pixel_hides_the_image_content():
    """The prediction does not depend on the pixels of masked patches."""
    net = spine.create_model("convnext", variant="micro", task="mae", image_size=64).eval()
    image, patch_mask = torch.randn(1, 3, 64, 64), torch.tensor([[True, False, False, False]])
    changed = image.clone()
    changed[:, :, :32, :32] += 5
    torch.testing.assert_close(net(image, patch_mask), net(changed, patch_mask))
    changed[:, :, :32, 32:] += 5
    assert not torch.allclose(net(image, patch_mask), net(changed, patch_mask))


@pytest.mark.parametrize("backbone", ["vit", "mae"])
def test_masked_vit_ignores_masked_patches_and_keeps_raster_order(backbone):
    net = spine.create_model(backbone, variant="micro", task="mae", image_size=64).eval()
    image, patch_mask = torch.randn(2, 3, 64, 64), torch.rand(2, 16).argsort(1) < 12  # four visible patches per image
    masked = patch_mask.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    torch.testing.assert_close(net(image, patch_mask), net(image.masked_fill(masked, 9.0), patch_mask))
    full = torch.zeros(2, 16, 128)
    tokens = net.backbone.forward_masked(image, patch_mask, "drop")
    full[~patch_mask] = tokens.patches.flatten(0, 1)
    torch.testing.assert_close(full[0][~patch_mask[0]], tokens.patches[0])


def test_masked_beit_ignores_masked_patches():
    net = spine.create_model("beit", variant="micro", task="beit", image_size=64).eval()
    image, patch_mask = torch.randn(2, 3, 64, 64), torch.rand(2, 16) < 0.4
    masked = patch_mask.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    torch.testing.assert_close(net(image, patch_mask), net(image.masked_fill(masked, 9.0), patch_mask))
    assert not torch.allclose(net(image, patch_mask), net(image, ~patch_mask))


def has_checkpointing(backbone):
    return "grad_checkpointing" in inspect.signature(getattr(backbone_module(backbone), backbone)).parameters


@pytest.mark.parametrize("backbone", [b for b in BACKBONES if has_checkpointing(b)])
def test_gradient_checkpointing_does_not_change_training(backbone):
    """Gradients are equal, and so are running statistics, although the forward pass runs twice."""
    plain = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64, grad_checkpointing=False).double()
    saving = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=64, grad_checkpointing=True).double()
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    for net in (plain, saving):
        net.train()(image).square().mean().backward()
    for (name, ours), theirs in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad, msg=name)
    for (name, ours), theirs in zip(plain.named_buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(theirs, ours, msg=name)


def test_hamburger_is_deterministic_in_evaluation_and_accepts_bases():
    net = spine.create_model(
        "convnext", variant="micro", task="seg", head="hamburger", num_outputs=3, head_options={"channels": 32}
    )
    image = torch.randn(3, 3, 64, 64)
    net.train()
    features = net.backbone(image)
    assert not torch.equal(net.head(features), net.head(features))
    net.eval()
    features = net.backbone(image)
    alone = net.head(Features(tuple(x[:1] for x in features.maps)))
    torch.testing.assert_close(net.head(features)[:1], alone)  # predictions do not depend on the other images of the batch
    bases = torch.rand(3, 32, 16)
    torch.testing.assert_close(net.head(features, bases), net.head(features, 3 * bases))  # bases are normalized
    assert not torch.allclose(net.head(features, bases), net.head(features))
