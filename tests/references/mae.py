"""MAE of the authors, timm, transformers and mmpretrain: fine-tuned, linear probe, and pre-training with decoder."""

import contextlib
import functools
import sys
import types
from unittest import mock

import torch
from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab
from references._transformers import Written

HYPERPARAMETERS = {"embed_dim": 128, "depth": 4, "num_heads": 4}
DECODER = {"decoder_embed_dim": 128, "decoder_depth": 2, "decoder_num_heads": 4}
NORM = functools.partial(nn.LayerNorm, eps=1e-6)


def patch_mask(image):
    """Masks three of four patches, the same for all images."""
    return (torch.arange(image.shape[-2] * image.shape[-1] // 256) % 4 > 0).expand(len(image), -1)


def noise(image):
    """Noise by which the references sort the patches: visible before masked ones, both in raster order."""
    mask = patch_mask(image).to(image)
    return mask + torch.linspace(0, 0.5, mask.shape[1], dtype=image.dtype)


def some_pixels(pixels):
    """Ten pixel values of each patch."""
    return pixels[..., ::77]


@contextlib.contextmanager
def fixed_noise(image):
    """Replaces the random noise of the references."""
    with mock.patch.object(torch, "rand", lambda *shape, device=None: noise(image)):
        yield


# ---- the authors -----------------------------------------------------------------------------------------------------


def authors(pooled):
    module = checkout("mae", "models_vit.py")
    return module.VisionTransformer(global_pool=pooled, num_classes=CLASSES, norm_layer=NORM, qkv_bias=True, **HYPERPARAMETERS)


def probe():
    """The network after the changes of `main_linprobe.py`."""
    net = authors(pooled=False)
    net.head = nn.Sequential(nn.BatchNorm1d(128, affine=False, eps=1e-6), net.head)
    return net


def authors_network(name, **options):
    """Builds a network of the authors' `models_mae.py`, which is made to work with newer versions of timm and NumPy."""
    import numpy as np
    from timm.models import vision_transformer

    def block(*arguments, qk_scale, **options):
        return kept(*arguments, **options)

    kept = vision_transformer.Block  # newer versions have no `qk_scale`, and scale as for None
    with mock.patch.object(vision_transformer, "Block", block), mock.patch.object(np, "float", float, create=True):
        sys.modules["util"] = types.ModuleType("util")
        checkout("mae", "util/pos_embed.py", "util.pos_embed")
        return getattr(checkout("mae", "models_mae.py"), name)(**options)


def authors_pre_training():
    return authors_network("MaskedAutoencoderViT", img_size=64, **HYPERPARAMETERS, **DECODER, norm_layer=NORM)


def authors_pixels(net, image):
    with fixed_noise(image):
        latent, mask, order = net.forward_encoder(image, 0.75)
    assert torch.equal(mask.bool(), patch_mask(image))
    return some_pixels(net.forward_decoder(latent, order))


def authors_loss(normalize):
    """The loss of a pre-training step, as `engine_pretrain.py` computes it."""

    def loss(net, image):
        net.norm_pix_loss = normalize
        with fixed_noise(image):
            return net(image, mask_ratio=0.75)[0]

    return loss


def task_loss(normalize):
    """The loss of a training step of the task."""

    def loss(net, image):
        from spine.interfaces import Labels
        from spine.tasks.mae.task import MaskedAutoencoding  # imports Lightning, which the environment of the references lacks

        task = MaskedAutoencoding(model=net, labels=Labels(), norm_pix_loss=normalize)
        return task.evaluate_batch({"image": image, "patch_mask": patch_mask(image)})[0]

    return loss


# ---- timm, transformers, mmpretrain -----------------------------------------------------------------------------------


def timm(pooling, size=224):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(size, num_classes=CLASSES, global_pool=pooling, fc_norm=pooling == "avg", **HYPERPARAMETERS)


def hugging_face():
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, image_size=64,
        decoder_hidden_size=128, decoder_num_hidden_layers=2, decoder_num_attention_heads=4, decoder_intermediate_size=512,
    )  # fmt: skip
    return ViTMAEForPreTraining(config)


def hugging_face_hub():
    return Written(hugging_face(), ("decoder_encoder.layer", "decoder_layers"))


ARCH = {"embed_dims": 128, "num_layers": 4, "num_heads": 4, "feedforward_channels": 512}


def mmpretrain(pooled):
    backbone = {"type": "VisionTransformer", "arch": ARCH, "img_size": 224}
    backbone |= {"out_type": "avg_featmap", "final_norm": False} if pooled else {"out_type": "cls_token", "final_norm": True}
    neck = None if pooled else {"type": "ClsBatchNormNeck", "input_features": 128}
    head = {"type": "LinearClsHead" if pooled else "VisionTransformerClsHead", "num_classes": CLASSES, "in_channels": 128}
    return _openmmlab.classifier(backbone, head, neck)


def mmpretrain_pre_training():
    models = _openmmlab.models()
    net = nn.Module()
    net.backbone = models.build_backbone({"type": "MAEViT", "arch": ARCH, "img_size": 64})
    net.neck = models.build_neck({"type": "MAEPretrainDecoder", "num_patches": 16, "embed_dim": 128, **DECODER})
    return net


def mmpretrain_pixels(net, image):
    with fixed_noise(image):
        latent, mask, order = net.backbone(image, True)
    assert torch.equal(mask.bool(), patch_mask(image))
    return some_pixels(net.neck(latent, order))


def pre_training(name, source, build, theirs, **more):
    return Case(
        f"mae-{name}",
        source,
        build,
        "micro",
        options={"task": "mae", "image_size": 64, "num_outputs": 768},
        sizes=((64, 64),),
        train_size=(64, 64),
        theirs=theirs,
        ours=lambda net, image: some_pixels(net(image, patch_mask(image))),
        **more,
    )


def step(name, normalize):
    """A pre-training step of the authors and of the task."""
    losses = {"their_loss": authors_loss(normalize), "our_loss": task_loss(normalize)}
    return pre_training(name, "facebookresearch/mae models_mae.py", authors_pre_training, authors_pixels, **losses)


def hugging_face_pixels(net, image):
    return some_pixels(net(image, noise=noise(image)).logits)


SQUARE = {"sizes": ((224, 224),), "train_size": (224, 224)}
FEATURES = {"theirs": lambda net, image: net.head(net.forward_features(image))}
CASES = [
    Case("mae-official", "facebookresearch/mae models_vit.py", lambda: authors(True), "micro", **SQUARE, **FEATURES),
    Case("mae-official-token", "facebookresearch/mae models_vit.py", lambda: authors(False), "micro", **SQUARE, **FEATURES),
    Case("mae-official-probe", "facebookresearch/mae main_linprobe.py", probe, "micro", **SQUARE, **FEATURES),
    pre_training("official-decoder", "facebookresearch/mae models_mae.py", authors_pre_training, authors_pixels),
    step("official-step", normalize=True),
    step("official-step-pixels", normalize=False),
    Case("mae-timm", "timm VisionTransformer(global_pool='avg')", lambda: timm("avg"), "micro", **SQUARE),
    Case("mae-timm-token", "timm VisionTransformer(global_pool='token')", lambda: timm("token"), "micro", **SQUARE),
    Case(
        "mae-timm-160x192",
        "timm VisionTransformer(global_pool='avg')",
        lambda: timm("avg", (160, 192)),
        "micro",
        options={"image_size": (160, 192)},
        sizes=((160, 192),),
        train_size=(160, 192),
    ),
    pre_training("hf", "transformers ViTMAEForPreTraining, names of the hub", hugging_face_hub, hugging_face_pixels),
    pre_training("hf-5", "transformers ViTMAEForPreTraining, as written", lambda: Written(hugging_face()), hugging_face_pixels),
    pre_training("hf-memory", "transformers ViTMAEForPreTraining, as in memory", hugging_face, hugging_face_pixels),
    Case("mae-openmmlab", "mmpretrain VisionTransformer", lambda: mmpretrain(True), "micro", **SQUARE, theirs=_openmmlab.logits),
    Case(
        "mae-openmmlab-probe",
        "mmpretrain VisionTransformer with ClsBatchNormNeck",
        lambda: mmpretrain(False),
        "micro",
        **SQUARE,
        theirs=_openmmlab.logits,
    ),
    pre_training("openmmlab-decoder", "mmpretrain MAEViT and MAEPretrainDecoder", mmpretrain_pre_training, mmpretrain_pixels),
]
