"""BEiT of the authors, timm, transformers and mmpretrain: fine-tuned and masked, with the size of `micro`."""

import functools
import sys

import torch
from recording import CLASSES, Case, checkout
from torch import nn

from references import _openmmlab, _segmentation
from references._transformers import Written

HYPERPARAMETERS = {"embed_dim": 96, "depth": 6, "num_heads": 3, "qkv_bias": True, "init_values": 1.0, "use_abs_pos_emb": False}


def authors(size, masked=False):
    module = checkout("unilm", "beit/modeling_finetune.py")
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    if not masked:
        return module.VisionTransformer(size, num_classes=CLASSES, use_rel_pos_bias=True, norm_layer=norm, **HYPERPARAMETERS)
    sys.modules["modeling_finetune"] = module  # the name under which modeling_pretrain.py imports it
    module = checkout("unilm", "beit/modeling_pretrain.py")
    network = module.VisionTransformerForMaskedImageModeling
    return network(size, vocab_size=CLASSES, use_shared_rel_pos_bias=True, norm_layer=norm, **HYPERPARAMETERS)


def timm(size):
    from timm.models.beit import Beit

    return Beit(size, num_classes=CLASSES, use_rel_pos_bias=True, **HYPERPARAMETERS)


def hugging_face(masked=False):
    import transformers

    config = transformers.BeitConfig(
        hidden_size=96, num_hidden_layers=6, num_attention_heads=3, intermediate_size=384, layer_scale_init_value=1.0,
        drop_path_rate=0.0, image_size=64 if masked else 224, num_labels=CLASSES, vocab_size=CLASSES, use_mask_token=masked,
        use_relative_position_bias=not masked, use_shared_relative_position_bias=masked,
    )  # fmt: skip
    network = transformers.BeitForMaskedImageModeling if masked else transformers.BeitForImageClassification
    return network(config)


def authors_dense():
    """With replacements for the packages of registries and loading, and batch norm for one process."""
    names = ("mmcv_custom", "mmseg", "mmseg.utils", "mmseg.models", "mmseg.models.builder")
    with _segmentation.silent_packages(names):
        module = checkout("unilm", "beit/semantic_segmentation/backbone/beit.py", "beit_dense")
    net = module.BEiT((64, 64), use_rel_pos_bias=True, out_indices=[1, 2, 3, 5], **HYPERPARAMETERS)
    net.fpn1[1] = nn.BatchNorm2d(96)
    return net


def hugging_face_upernet():
    """With the maps of the authors: transformers counts blocks from 2 here, the first entry is the patch embedding."""
    import transformers

    config = transformers.BeitConfig(
        hidden_size=96, num_hidden_layers=6, num_attention_heads=3, intermediate_size=384, layer_scale_init_value=1.0,
        drop_path_rate=0.0, image_size=64, num_labels=CLASSES, use_mask_token=False, use_relative_position_bias=True,
        auxiliary_channels=32, out_indices=[1, 2, 3, 4],
    )  # fmt: skip
    net = transformers.BeitForSemanticSegmentation(config)
    net.config._out_indices = [3, 4, 5, 7]
    return net


def hugging_face_maps(net, image):
    net = getattr(net, "net", net)
    states = net.beit(image, output_hidden_states=True).hidden_states
    size = [side // 16 for side in image.shape[-2:]]
    maps = [states[i - 1][:, 1:].transpose(1, 2).unflatten(2, size) for i in net.config.out_indices]
    return net, net.fpn(maps)


def hugging_face_loss(net, image):
    net, maps = hugging_face_maps(net, image)
    return _segmentation.loss(net.decode_head(maps), net.auxiliary_head(maps))


ARCH = {"embed_dims": 96, "num_layers": 6, "num_heads": 3, "feedforward_channels": 384}


def mmpretrain(size):
    backbone = {"type": "BEiTViT", "arch": ARCH, "img_size": size}
    return _openmmlab.classifier(backbone, {"type": "LinearClsHead", "num_classes": CLASSES, "in_channels": 96})


def mmpretrain_masked():
    models = _openmmlab.models()
    net = nn.Module()
    net.backbone = models.build_backbone({"type": "BEiTPretrainViT", "arch": ARCH, "img_size": 64})
    loss = {"type": "CrossEntropyLoss"}
    net.head = models.build_head({"type": "BEiTV1Head", "embed_dims": 96, "num_embed": CLASSES, "loss": loss})
    return net


def mmseg_upernet():
    mmseg = _openmmlab.mmseg()
    backbone = mmseg.backbones.BEiT(
        (64, 64),
        16,
        embed_dims=96,
        num_layers=6,
        num_heads=3,
        out_indices=(1, 2, 3, 5),
        init_values=1.0,
        qv_bias=True,
        norm_cfg={"type": "LN", "eps": 1e-6},
    )
    neck = mmseg.necks.Feature2Pyramid(96, rescales=[4, 2, 1, 0.5], norm_cfg={"type": "BN"})
    return _segmentation.upernet(backbone, [96] * 4, width=96, neck=neck)


def patch_mask(image):
    """The same mask for every image."""
    count = image.shape[-2] * image.shape[-1] // 256
    return (torch.arange(count) % 5 < 2).expand(len(image), -1)


def case(name, source, build, size=(224, 224), **more):
    options = {"image_size": size} if size != (224, 224) else {}
    return Case(f"beit-{name}", source, build, "micro", options=options, sizes=(size,), train_size=size, **more)


def masked(name, source, build, theirs):
    return Case(
        f"beit-{name}",
        source,
        build,
        "micro",
        options={"image_size": 64, "task": "beit"},
        sizes=((64, 64),),
        train_size=(64, 64),
        theirs=theirs,
        ours=lambda net, image: net(image, patch_mask(image)),
    )


def hugging_face_logits(net, image):
    return net(image, bool_masked_pos=patch_mask(image)).logits


FINE_TUNED, PRE_TRAINED = (f"microsoft/unilm beit, modeling_{name}.py" for name in ("finetune", "pretrain"))
CLASSIFIER, MASKED = "transformers BeitForImageClassification", "transformers BeitForMaskedImageModeling"
SEGMENTATION = "transformers BeitForSemanticSegmentation with the authors' maps,"
HUGGING_FACE = {"theirs": lambda net, image: net(image).logits, "their_loss": hugging_face_loss}
DENSE = {"sizes": ((64, 64),), "train_size": (64, 64), "options": {"image_size": 64}}
CASES = [
    case("official", FINE_TUNED, lambda: authors((224, 224))),
    case("official-160x192", FINE_TUNED, lambda: authors((160, 192)), (160, 192)),
    masked(
        "official-masked",
        PRE_TRAINED,
        lambda: authors((64, 64), masked=True),
        lambda net, image: net(image, patch_mask(image), return_all_tokens=True),
    ),
    case("timm", "timm Beit", lambda: timm((224, 224))),
    case("timm-160x192", "timm Beit", lambda: timm((160, 192)), (160, 192)),
    case("hf", f"{CLASSIFIER}, as in files", lambda: Written(hugging_face())),
    case("hf-memory", f"{CLASSIFIER}, as in memory", hugging_face),
    masked("hf-masked", f"{MASKED}, as in files", lambda: Written(hugging_face(masked=True)), hugging_face_logits),
    masked("hf-memory-masked", f"{MASKED}, as in memory", lambda: hugging_face(masked=True), hugging_face_logits),
    case("openmmlab", "mmpretrain BEiTViT", lambda: mmpretrain((224, 224)), theirs=_openmmlab.logits),
    *(
        _segmentation.whole(f"beit-{name}-upernet", source, build, "upernet", **DENSE, **more)
        for name, source, build, more in (
            (
                "official",
                "microsoft/unilm beit/semantic_segmentation, mmsegmentation UPerHead and FCNHead",
                lambda: _segmentation.upernet(authors_dense(), [96] * 4, width=96),
                {},
            ),
            ("hf", f"{SEGMENTATION} as in files", lambda: Written(hugging_face_upernet()), HUGGING_FACE),
            ("hf-memory", f"{SEGMENTATION} as in memory", hugging_face_upernet, HUGGING_FACE),
            ("openmmlab", "mmsegmentation BEiT, Feature2Pyramid, UPerHead and FCNHead", mmseg_upernet, {}),
        )
    ),
    masked(
        "openmmlab-masked",
        "mmpretrain BEiTPretrainViT",
        mmpretrain_masked,
        lambda net, image: net.head.cls_head(net.backbone(image, patch_mask(image))[-1][:, 1:]),
    ),
]
