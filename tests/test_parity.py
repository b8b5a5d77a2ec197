"""Outputs equal those of reference implementations with the same random weights, in float64.

transformers is in the development requirements; timm runs where it can be imported (its own environment), and is skipped elsewhere.
"""

import importlib.util
import re

import pytest
import torch
from torch import nn

import spine
from spine.backbones import convnext, hrnet, mobilenet_v2, vit
from spine.interfaces import Features
from spine.weights import rename

TOLERANCE = 1e-9  # of the output's standard deviation


def randomise(net: nn.Module) -> nn.Module:
    """Weights under which every tensor matters: layer scales of 1e-6 and running statistics of 0 and 1 would hide mistakes."""
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


def load(net, state, layout):
    """Loads a reference's state strictly through the layout of the backbone's file."""
    own = net.state_dict()
    state = {rename(key, layout): value for key, value in state.items()}
    state = {
        key: value.reshape(own[key].shape) if key in own and value.numel() == own[key].numel() else value
        for key, value in state.items()
    }
    net.double().eval().load_state_dict(state, strict=True)
    return net


def assert_equal(ours, theirs):
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype == torch.float64
    assert ((ours - theirs).abs().max() / theirs.std()) < TOLERANCE


def assert_same_training(ours, theirs, ours_out, theirs_out, pairs):
    """Loss and gradients of chosen parameters in training mode."""
    losses = [out.square().mean() for out in (ours_out, theirs_out)]
    for loss in losses:
        loss.backward()
    assert abs(losses[0] - losses[1]) < TOLERANCE * losses[1].abs()
    ours, theirs = dict(ours.named_parameters()), dict(theirs.named_parameters())
    for a, b in pairs:
        assert_equal(ours[a].grad.flatten(), theirs[b].grad.flatten())


# ---- transformers ----------------------------------------------------------------------------------------------------


def convnext_reference():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(depths=[2, 2, 4, 2], hidden_sizes=[24, 48, 96, 160], num_labels=10, layer_norm_eps=1e-6)
    return randomise(ConvNextForImageClassification(config))


def convnext_names(state):
    rules = [
        (r"^convnext\.embeddings\.patch_embeddings\.", "downsample_layers.0.0."),
        (r"^convnext\.embeddings\.layernorm\.", "downsample_layers.0.1."),
        (r"^convnext\.encoder\.stages\.(\d)\.downsampling_layer\.", r"downsample_layers.\1."),
        (r"^convnext\.encoder\.stages\.(\d)\.layers\.(\d+)\.layernorm\.", r"stages.\1.\2.norm."),
        (r"^convnext\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer_scale_parameter", r"stages.\1.\2.gamma"),
        (r"^convnext\.encoder\.stages\.(\d)\.layers\.(\d+)\.", r"stages.\1.\2."),
        (r"^convnext\.layernorm\.", "norm."),
        (r"^classifier\.", "head."),
    ]
    return {rename(key, rules): value for key, value in state.items()}


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_convnext_equals_transformers(size):
    theirs = convnext_reference()
    ours = spine.create_model("convnext", variant="micro", num_outputs=10)
    load(ours, convnext_names(theirs.state_dict()), convnext.LAYOUT)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_equal(ours(image), theirs(image).logits)
    pair = ("backbone.downsample_layers.0.0.weight", "convnext.embeddings.patch_embeddings.weight")
    assert_same_training(ours.train(), theirs.train(), ours(image), theirs(image).logits, [pair])


def vit_names(state):
    parts = {"q": "query", "k": "key", "v": "value"}
    out = {}
    for key, value in state.items():
        key = (
            re.sub(r"^vit\.(encoder\.)?", "", key).replace("layer.", "layers.") if "layer." in key else re.sub(r"^vit\.", "", key)
        )
        out[key] = value
    named = {}
    for key, value in out.items():
        if re.search(r"(query|key|value|q_proj|k_proj|v_proj)\.", key):
            continue
        for pattern, replacement in [
            (r"^embeddings\.cls_token", "cls_token"),
            (r"^embeddings\.position_embeddings", "pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^layers\.(\d+)\.layernorm_before\.", r"blocks.\1.norm1."),
            (r"^layers\.(\d+)\.layernorm_after\.", r"blocks.\1.norm2."),
            (r"^layers\.(\d+)\.attention\.(?:output\.dense|o_proj)\.", r"blocks.\1.attn.proj."),
            (r"^layers\.(\d+)\.(?:intermediate\.dense|mlp\.fc1)\.", r"blocks.\1.mlp.fc1."),
            (r"^layers\.(\d+)\.(?:output\.dense|mlp\.fc2)\.", r"blocks.\1.mlp.fc2."),
            (r"^layernorm\.", "norm."),
            (r"^classifier\.", "head."),
        ]:
            key = re.sub(pattern, replacement, key)
        named[key] = value
    blocks = 1 + max(int(m[1]) for key in named if (m := re.match(r"blocks\.(\d+)\.", key)))
    for i in range(blocks):
        for kind in ("weight", "bias"):
            rows = [
                next(v for k, v in out.items() if re.match(rf"layers\.{i}\..*({parts[p]}|{p}_proj)\.{kind}$", k)) for p in "qkv"
            ]
            named[f"blocks.{i}.attn.qkv.{kind}"] = torch.cat(rows)
    return named


def vit_pair(size):
    """Our micro ViT and theirs, built for `size` pixels, with the same weights."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        image_size=size,
        num_labels=10,
        layer_norm_eps=1e-6,
    )
    theirs = randomise(ViTForImageClassification(config))
    ours = spine.create_model("vit", variant="micro", num_outputs=10, image_size=size)
    return load(ours, vit_names(theirs.state_dict()), vit.LAYOUT), theirs


@pytest.mark.parametrize("size", [64, 96])
def test_vit_equals_transformers(size):
    ours, theirs = vit_pair(size)
    image = torch.randn(2, 3, size, size, dtype=torch.float64)
    assert_equal(ours(image), theirs(image).logits)
    pair = ("backbone.patch_embed.proj.weight", "vit.embeddings.patch_embeddings.projection.weight")
    assert_same_training(ours.train(), theirs.train(), ours(image), theirs(image).logits, [pair])


def test_vit_with_resized_positions_equals_transformers():
    """Built for 64 px and given 96 px, the table is resized as transformers does it."""
    ours, theirs = vit_pair(64)
    image = torch.randn(2, 3, 96, 96, dtype=torch.float64)
    assert_equal(ours(image), theirs(image, interpolate_pos_encoding=True).logits)


def test_mae_equals_transformers():
    """The encoder drops the patches that theirs drops, the decoder restores their places, and the loss is theirs."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    from spine.losses import masked_pixel_loss, normalise_patches
    from spine.targets import patchify

    config = ViTMAEConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=64, layer_norm_eps=1e-6,
        decoder_hidden_size=128, decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=512,
        norm_pix_loss=True,
    )  # fmt: skip
    theirs = ViTMAEForPreTraining(config)
    theirs.vit.embeddings.initialize_weights()  # their fixed sine-cosine positions, which the library leaves at zero
    theirs.decoder.initialize_weights(num_patches=16)
    positions, decoder_positions = (
        theirs.vit.embeddings.position_embeddings.clone(),
        theirs.decoder.decoder_pos_embed.clone(),
    )
    theirs = randomise(theirs)
    theirs.vit.embeddings.position_embeddings.data = positions.double().data
    theirs.decoder.decoder_pos_embed.data = decoder_positions.double().data
    ours = spine.create_model("vit", variant="micro", task="mae", image_size=64)
    torch.testing.assert_close(ours.head.decoder_pos_embed[:, 1:], decoder_positions[:, 1:].float(), atol=1e-6, rtol=0)
    state = theirs.state_dict()
    encoder = {key: value for key, value in state.items() if key.startswith("vit.")}
    named = {f"backbone.{key}": value for key, value in vit_names(encoder).items()}
    decoder = {key.removeprefix("decoder."): value for key, value in state.items() if key.startswith("decoder.")}
    blocks = {f"vit.{k.replace('decoder_layers', 'layers')}": v for k, v in decoder.items() if k.startswith("decoder_layers")}
    named |= {f"head.{key.replace('blocks.', 'decoder_blocks.')}": value for key, value in vit_names(blocks).items()}
    named |= {f"head.{key}": value for key, value in decoder.items() if not key.startswith("decoder_layers")}
    ours.double().eval().load_state_dict(named, strict=True)
    image, noise = torch.randn(2, 3, 64, 64, dtype=torch.float64), torch.rand(2, 16)
    expected = theirs(image, noise=noise)
    # their encoder sees the visible patches in the order of the noise; ours in raster order: attention does not mind
    prediction = ours(image, expected.mask.bool())
    assert_equal(prediction, expected.logits)
    loss = masked_pixel_loss(prediction, normalise_patches(patchify(image, 16)), expected.mask.bool())
    assert abs(loss - expected.loss) < TOLERANCE * expected.loss


# ---- timm ------------------------------------------------------------------------------------------------------------


def timm_model(name, **options):
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torchvision") is None:
        pytest.skip("timm is not installed in this environment")
    import timm

    return randomise(timm.create_model(name, **options))


@pytest.mark.parametrize("size", [(224, 224), (96, 160)])
def test_hrnet_equals_timm(size):
    theirs = timm_model("hrnet_w18_small", num_classes=10)
    ours = spine.create_model("hrnet", variant="w18_small_v1", num_outputs=10)
    load(ours, theirs.state_dict(), hrnet.LAYOUT)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_equal(ours(image), theirs(image))
    assert_same_training(ours.train(), theirs.train(), ours(image), theirs(image), [("backbone.conv1.weight", "conv1.weight")])


MOBILENET_TIMM = [
    (r"^conv_stem\.", "features.0.0."),
    (r"^bn1\.", "features.0.1."),
    (r"^conv_head\.", "features.18.0."),
    (r"^bn2\.", "features.18.1."),
    (r"^classifier\.", "classifier.1."),
    (r"^blocks\.0\.0\.conv_dw\.", "features.1.conv.0.0."),
    (r"^blocks\.0\.0\.bn1\.", "features.1.conv.0.1."),
    (r"^blocks\.0\.0\.conv_pw\.", "features.1.conv.1."),
    (r"^blocks\.0\.0\.bn2\.", "features.1.conv.2."),
]
STARTS = (1, 2, 4, 7, 11, 14, 17)  # of timm's stages among torchvision's `features`
PARTS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def mobilenet_name(key):
    key = rename(key, MOBILENET_TIMM)
    if found := re.match(r"blocks\.(\d)\.(\d)\.(\w+)\.(.*)", key):
        key = f"features.{STARTS[int(found[1])] + int(found[2])}.conv.{PARTS[found[3]]}.{found[4]}"
    return key


@pytest.mark.parametrize("size", [(224, 224), (75, 101)])
def test_mobilenet_v2_equals_timm(size):
    theirs = timm_model("mobilenetv2_100", num_classes=10, drop_rate=0.0)
    ours = spine.create_model("mobilenet_v2", variant="w100", num_outputs=10)
    load(ours, {mobilenet_name(key): value for key, value in theirs.state_dict().items()}, mobilenet_v2.LAYOUT)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    assert_equal(ours(image), theirs(image))
    assert_same_training(
        ours.train(), theirs.train(), ours(image), theirs(image), [("backbone.features.0.0.weight", "conv_stem.weight")]
    )


def test_vit_equals_timm():
    theirs = timm_model("vit_tiny_patch16_224", num_classes=10)
    ours = spine.create_model("vit", variant="tiny_patch16", num_outputs=10)
    load(ours, theirs.state_dict(), vit.LAYOUT)
    image = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    assert_equal(ours(image), theirs(image))


def test_features_of_masked_and_dense_use_are_those_of_the_classifier():
    """The three forms of a ViT share weights and compute the same tokens."""
    pooled = randomise(spine.create_model("vit", variant="micro", num_outputs=3, image_size=64)).backbone
    masked = vit.vit("micro", image_size=(64, 64), use="drop").double().eval()
    state = {key.replace("pooling.norm", "norm"): value for key, value in pooled.state_dict().items()}
    masked.load_state_dict(state, strict=True)
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    tokens = masked.forward_masked(image, torch.zeros(2, 16, dtype=torch.bool), "drop")
    features = pooled(image)
    assert isinstance(features, Features)
    assert_equal(tokens.cls_token, pooled.pool(features))
