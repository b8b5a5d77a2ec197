"""What every backbone and every head promises, found by listing their folders."""

import inspect
import itertools

import pytest
import torch

import spine
from spine.components import backbone_module, head_class, modules, task_spec
from spine.errors import InputError
from spine.interfaces import Features
from spine.models.masked import MaskedModel

TASKS = {name: task_spec(name) for name in modules("task")}

BACKBONES, HEADS = spine.list_backbones(), list(modules("head"))
OUTPUTS = {"cls": 7, "pose": 5, "seg": 6, "mae": None, "beit": None}
FITTING = [(b, t, h) for b, t, h in itertools.product(BACKBONES, TASKS, HEADS) if head_class(h).reads == TASKS[t].head_input]
MISFITS = [(t, h) for t, h in itertools.product(TASKS, HEADS) if head_class(h).reads != TASKS[t].head_input]


def micro(backbone, **options):
    return getattr(backbone_module(backbone), backbone)("micro", **options)


def run(net, image):
    if isinstance(net, MaskedModel):
        patch_mask = torch.arange(net.grid[0] * net.grid[1]).expand(len(image), -1) % 4 > 0
        return net(image, patch_mask)
    return net(image)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone_keeps_the_word_of_its_spec(backbone):
    net = micro(backbone, use="maps").eval()
    features = net(torch.randn(2, 3, 96, 128))
    assert len(features.maps) == len(net.spec.levels) == 4
    for level, x in zip(net.spec.levels, features.maps, strict=True):
        assert x.shape[:2] == (2, level.channels)
        for side, whole in zip(x.shape[2:], (96, 128), strict=True):  # an unpadded stem costs Xception's finest map a pixel
            assert whole // level.stride - side in ((0, 1) if backbone == "xception" else (0,))
    strides = [level.stride for level in net.spec.levels]
    assert strides == sorted(strides)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pooled_embedding_has_the_stated_width(backbone):
    net = micro(backbone, use="pooled").eval()
    features = net(torch.randn(2, 3, 64, 64))
    assert isinstance(features, Features)
    assert net.pool(features).shape == (2, net.spec.embed_dim)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("levels", [(0,), (1, 2, 3), (-1,), (0, 2)])
def test_chosen_levels_equal_those_of_all(backbone, levels):
    """A network built for some levels computes the same maps as one built for all, with fewer parameters or as many."""
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
def test_stem_to_top_names_every_parameter_once(backbone, use):
    if use in ("drop", "replace") and use not in micro(backbone, use="maps").spec.masking:
        pytest.skip(f"it cannot {use} patches")
    net = micro(backbone, use=use)
    for name, _ in net.named_parameters():
        assert sum(name.startswith(group) for group in net.layer_groups()) == 1, name


@pytest.mark.parametrize(("backbone", "task", "head"), FITTING)
def test_every_fitting_head_gets_a_gradient_to_every_parameter(backbone, task, head):
    """No parameter without a use: process groups would stop at one."""
    net = spine.create_model(backbone, variant="micro", task=task, head=head, num_outputs=OUTPUTS[task], image_size=64)
    net.train()
    out = run(net, torch.randn(4, 3, 64, 64))
    if head == "heatmap":
        assert out.shape == (4, OUTPUTS[task], 16, 16)
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


@pytest.mark.parametrize(("task", "head"), MISFITS)
def test_head_that_reads_something_else_is_refused(task, head):
    with pytest.raises(InputError, match=f"Task '{task}' passes .* to its head; '{head}' reads .* Heads for {task}: "):
        spine.create_model("convnext", variant="micro", task=task, head=head, num_outputs=3)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("task", ["cls", "seg"])
def test_all_but_plain_token_networks_take_any_size(backbone, task):
    if micro(backbone, use="maps").spec.patch_size:
        pytest.skip("it cuts images into patches")
    net = spine.create_model(backbone, variant="micro", task=task, num_outputs=4).eval()
    assert run(net, torch.randn(1, 3, 75, 101)).shape[:2] == (1, 4)


@pytest.mark.parametrize("backbone", ["vit", "mae", "beit"])
def test_token_networks_name_the_sizes_that_fit(backbone):
    with pytest.raises(InputError, match="16x16 patches; 500x500 is not a multiple. Nearest sizes that fit: 496, 512"):
        spine.create_model(backbone, variant="micro", num_outputs=2, image_size=500)


@pytest.mark.parametrize("backbone", ["vit", "mae", "beit"])
def test_token_networks_take_another_size_than_they_were_built_for(backbone):
    net = spine.create_model(backbone, variant="micro", num_outputs=3, image_size=(64, 64)).eval()
    assert net(torch.randn(2, 3, 96, 48)).shape == (2, 3)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_training_goes_on_after_inference_mode(backbone):
    """What a network keeps for an image size, it may have made in inference mode; here for a size it was not built for, too."""
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


def test_unknown_names_are_answered_with_the_nearest():
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
def test_a_use_that_it_was_not_written_for_is_refused(backbone):
    with pytest.raises(InputError, match="use is 'tokens'; this backbone can be built for pooled, maps"):
        micro(backbone, use="tokens")


def test_hybrids_are_masked_by_painting():
    with torch.device("meta"):
        net = spine.create_model("vit", variant="tiny_r_s16_p8", task="mae", image_size=64)
    assert net.mask_pixel is not None and net.patch_size == 32


def test_there_is_no_fifth_level():
    with pytest.raises(InputError, match="no feature level 4"):
        micro("convnext", use="maps", levels=(4,))


def test_masked_painting_hides_the_patch():
    """What lies under the painted pixel does not reach the answer."""
    net = spine.create_model("convnext", variant="micro", task="mae", image_size=64).eval()
    image, patch_mask = torch.randn(1, 3, 64, 64), torch.tensor([[True, False, False, False]])
    changed = image.clone()
    changed[:, :, :32, :32] += 5
    torch.testing.assert_close(net(image, patch_mask), net(changed, patch_mask))
    changed[:, :, :32, 32:] += 5
    assert not torch.allclose(net(image, patch_mask), net(changed, patch_mask))


@pytest.mark.parametrize("backbone", ["vit", "mae"])
def test_masked_vit_does_not_see_hidden_patches_and_keeps_places(backbone):
    net = spine.create_model(backbone, variant="micro", task="mae", image_size=64).eval()
    image, patch_mask = torch.randn(2, 3, 64, 64), torch.rand(2, 16).argsort(1) < 12  # four visible in each row
    hidden = patch_mask.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    torch.testing.assert_close(net(image, patch_mask), net(image.masked_fill(hidden, 9.0), patch_mask))
    full = torch.zeros(2, 16, 128)
    tokens = net.backbone.forward_masked(image, patch_mask, "drop")
    full[~patch_mask] = tokens.patches.flatten(0, 1)
    torch.testing.assert_close(full[0][~patch_mask[0]], tokens.patches[0])


def test_masked_beit_does_not_see_hidden_patches():
    net = spine.create_model("beit", variant="micro", task="beit", image_size=64).eval()
    image, patch_mask = torch.randn(2, 3, 64, 64), torch.rand(2, 16) < 0.4
    hidden = patch_mask.view(2, 1, 4, 4).repeat_interleave(16, 2).repeat_interleave(16, 3)
    torch.testing.assert_close(net(image, patch_mask), net(image.masked_fill(hidden, 9.0), patch_mask))
    assert not torch.allclose(net(image, patch_mask), net(image, ~patch_mask))


def has_checkpointing(backbone):
    return "grad_checkpointing" in inspect.signature(getattr(backbone_module(backbone), backbone)).parameters


@pytest.mark.parametrize("backbone", [b for b in BACKBONES if has_checkpointing(b)])
def test_gradient_checkpointing_changes_nothing_but_memory(backbone):
    """The same gradients and, although the forward pass runs twice, the same running statistics."""
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


def test_hamburger_is_deterministic_in_evaluation_and_takes_bases():
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
    torch.testing.assert_close(net.head(features)[:1], alone)  # an answer does not depend on its batch
    bases = torch.rand(3, 32, 16)
    torch.testing.assert_close(net.head(features, bases), net.head(features, 3 * bases))  # they are normalised
    assert not torch.allclose(net.head(features, bases), net.head(features))
