"""ViT of the authors (their files, read by timm), timm, torchvision, transformers and mmpretrain, with hybrids."""

import tempfile
from pathlib import Path

import torch
from recording import CLASSES, Case
from torch import nn
from torch.nn import functional as F

from references import _openmmlab
from references._transformers import Written

HYPERPARAMETERS = {"embed_dim": 128, "depth": 4, "num_heads": 4}  # of our micro
HYBRIDS = {"vit_tiny_r_s16_p8_224": (192, 3, 8, 64, ()), "vit_small_r26_s32_224": (384, 6, 1, 2048, (2, 2, 2, 2))}


# ---- the authors -----------------------------------------------------------------------------------------------------


def flax_transformer(dim, heads, depth, embedding, patches):
    """Returns names and shapes of the tensors of a file. `embedding`: height, width and channels of a patch."""
    shapes = {
        "cls": (1, 1, dim),
        "Transformer.posembed_input.pos_embedding": (1, 1 + patches, dim),
        "embedding.kernel": (*embedding, dim),
        "embedding.bias": (dim,),
        "Transformer.encoder_norm.scale": (dim,),
        "Transformer.encoder_norm.bias": (dim,),
        "head.kernel": (dim, CLASSES),
        "head.bias": (CLASSES,),
    }
    for i in range(depth):
        block = f"Transformer.encoderblock_{i}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}.{norm}.scale": (dim,), f"{block}.{norm}.bias": (dim,)}
        attention, mlp = f"{block}.MultiHeadDotProductAttention_1", f"{block}.MlpBlock_3"
        for part in ("query", "key", "value"):
            shapes |= {
                f"{attention}.{part}.kernel": (dim, heads, dim // heads),
                f"{attention}.{part}.bias": (heads, dim // heads),
            }
        shapes |= {f"{attention}.out.kernel": (heads, dim // heads, dim), f"{attention}.out.bias": (dim,)}
        shapes |= {f"{mlp}.Dense_0.kernel": (dim, 4 * dim), f"{mlp}.Dense_0.bias": (4 * dim,)}
        shapes |= {f"{mlp}.Dense_1.kernel": (4 * dim, dim), f"{mlp}.Dense_1.bias": (dim,)}
    return shapes


def flax_resnet(depths):
    """Returns names and shapes of the tensors of a hybrid's ResNet."""
    shapes = {"conv_root.kernel": (7, 7, 3, 64), "gn_root.scale": (64,), "gn_root.bias": (64,)}
    channels = 64
    for i, depth in enumerate(depths):
        width = 64 * 2**i
        for j in range(depth):
            layers = {"1": (1, 1, channels, width), "2": (3, 3, width, width), "3": (1, 1, width, 4 * width)}
            if j == 0:
                layers["_proj"] = (1, 1, channels, 4 * width)
            channels = 4 * width
            for name, shape in layers.items():
                unit = f"block{i + 1}.unit{j + 1}"
                shapes |= {
                    f"{unit}.conv{name}.kernel": shape,
                    f"{unit}.gn{name}.scale": shape[3:],
                    f"{unit}.gn{name}.bias": shape[3:],
                }
    return shapes


class Authors(nn.Module):
    """The tensors of a file of the authors. The network is timm's, which loads the file."""

    def __init__(self, net, shapes):
        super().__init__()
        self.net = net
        self.tensors = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def state_dict(self):
        return self.tensors

    def load_state_dict(self, state, strict):
        import numpy as np

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "file.npz")
            np.savez(path, **{name.replace(".", "/"): tensor.numpy() for name, tensor in state.items()})
            self.net.load_pretrained(str(path))

    def forward(self, image):
        return self.net(image)


def authors():
    return Authors(timm(act_layer="gelu_tanh"), flax_transformer(128, 4, 4, (16, 16, 3), 14 * 14))


def authors_hybrid(name):
    """The authors divide filters by their standard deviation + 1e-5, and their group norms have eps 1e-6."""
    from timm.layers import StdConv2dSame, pad_same

    class AuthorsConv(StdConv2dSame):
        def forward(self, x):
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)
            mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), correction=0, keepdim=True)
            return F.conv2d(x, (self.weight - mean) / (std + 1e-5), None, self.stride)

    net = timm_hybrid(name, act_layer="gelu_tanh")
    for module in net.modules():
        if isinstance(module, StdConv2dSame):
            module.__class__ = AuthorsConv
        elif isinstance(module, nn.GroupNorm):
            module.eps = 1e-6
    dim, heads, patch, channels, depths = HYBRIDS[name]
    return Authors(net, {**flax_transformer(dim, heads, 12, (patch, patch, channels), 7 * 7), **flax_resnet(depths)})


# ---- the others ------------------------------------------------------------------------------------------------------


def timm(size=(224, 224), **options):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(size, num_classes=CLASSES, **HYPERPARAMETERS, **options)


def timm_hybrid(name, **options):
    import timm

    return timm.create_model(name, num_classes=CLASSES, **options)


def torchvision():
    from torchvision.models import VisionTransformer

    return VisionTransformer(224, 16, num_layers=4, num_heads=4, hidden_dim=128, mlp_dim=512, num_classes=CLASSES)


class PublishedWeights(nn.Module):
    """torchvision's network with the tensor names of its files, in which the layers of an MLP are linear_1 and linear_2."""

    def __init__(self):
        super().__init__()
        self.net = torchvision()
        self.names = {
            name: name.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2") for name in self.net.state_dict()
        }

    def forward(self, image):
        return self.net(image)

    def state_dict(self):
        return {self.names[name]: tensor for name, tensor in self.net.state_dict().items()}

    def named_parameters(self):
        return [(self.names[name], parameter) for name, parameter in self.net.named_parameters()]

    def load_state_dict(self, state, strict):  # their network accepts these names
        return self.net.load_state_dict(state, strict=True)


def hugging_face(**options):
    from transformers import ViTConfig, ViTForImageClassification

    size = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512, **options}
    return ViTForImageClassification(ViTConfig(**size, num_labels=CLASSES))


def hugging_face_hybrid():
    """R26 + ViT-S/32, assembled from parts, because the library has removed the class of the hybrids."""
    from transformers import BitBackbone, BitConfig

    class Patches(nn.Module):
        """One token per pixel of the last map of a BiT."""

        def __init__(self):
            super().__init__()
            config = BitConfig(
                layer_type="bottleneck",
                depths=[2, 2, 2, 2],
                global_padding="same",
                embedding_dynamic_padding=True,
                out_features=["stage4"],
            )
            self.backbone = BitBackbone(config)
            self.projection = nn.Conv2d(2048, 384, 1)

        def forward(self, image):
            return self.projection(self.backbone(image).feature_maps[-1]).flatten(2).transpose(1, 2)

    net = hugging_face(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1536, patch_size=32)
    net.vit.embeddings.patch_embeddings = Patches()
    net = Written(net)
    net.names |= {name: name for name in net.names if ".bit." in name}  # these names are not changed
    return net


def resized(net, image):
    """Forward pass with resized position embeddings."""
    return net(image, interpolate_pos_encoding=True)


def openmmlab():
    arch = {"embed_dims": 128, "num_layers": 4, "num_heads": 4, "feedforward_channels": 512}
    head = {"type": "VisionTransformerClsHead", "num_classes": CLASSES, "in_channels": 128}
    return _openmmlab.classifier({"type": "VisionTransformer", "arch": arch, "img_size": 224, "patch_size": 16}, head)


ONE = {"sizes": ((224, 224),), "train_size": (224, 224)}
READ = {"sizes": ((224, 224),), "train_size": None}  # timm copies the tensors of the file, so they have no gradients
CASES = [
    Case("vit-official", "google-research/vision_transformer, read by timm", authors, "micro", **READ),
    *(
        Case(f"vit-official-{short}", f"the same, as {name}", lambda name=name: authors_hybrid(name), variant, **READ)
        for short, name, variant in (
            ("stem", "vit_tiny_r_s16_p8_224", "tiny_r_s16_p8"),
            ("hybrid", "vit_small_r26_s32_224", "small_r26_s32"),
        )
    ),
    Case("vit-timm", "timm VisionTransformer", timm, "micro", **ONE),
    Case(
        "vit-timm-160x192",
        "timm VisionTransformer",
        lambda: timm((160, 192)),
        "micro",
        {"image_size": (160, 192)},
        sizes=((160, 192),),
        train_size=(160, 192),
    ),
    Case("vit-timm-stem", "timm vit_tiny_r_s16_p8_224", lambda: timm_hybrid("vit_tiny_r_s16_p8_224"), "tiny_r_s16_p8", **ONE),
    Case(
        "vit-timm-hybrid",
        "timm vit_small_r26_s32_224",
        lambda: timm_hybrid("vit_small_r26_s32_224"),
        "small_r26_s32",
        slow=True,
        **ONE,
    ),
    Case("vit-torchvision", "torchvision VisionTransformer", torchvision, "micro", **ONE),
    Case("vit-torchvision-file", "torchvision VisionTransformer, named as in its files", PublishedWeights, "micro", **ONE),
    Case("vit-hf", "transformers ViT, as its files name it", lambda: Written(hugging_face()), "micro", theirs=resized),
    Case("vit-hf-memory", "transformers ViTForImageClassification", hugging_face, "micro", theirs=resized),
    Case("vit-hf-hybrid", "transformers' BiT in its ViT, as ViTHybrid", hugging_face_hybrid, "small_r26_s32", **READ),
    Case("vit-openmmlab", "mmpretrain VisionTransformer", openmmlab, "micro", theirs=_openmmlab.logits, **ONE),
]
