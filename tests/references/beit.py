"""BEiT: the authors' networks, fine-tuned and masked, at the size of `micro`."""

import functools
import sys

import torch
from recording import CLASSES, Case, checkout, renamed
from torch import nn

from spine.backbones.beit import LAYOUT

NUMBERS = {"embed_dim": 96, "depth": 6, "num_heads": 3, "qkv_bias": True, "init_values": 1.0, "use_abs_pos_emb": False}


def authors(size, masked=False):
    module = checkout("unilm", "beit/modeling_finetune.py")
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    if not masked:
        return module.VisionTransformer(size, num_classes=CLASSES, use_rel_pos_bias=True, norm_layer=norm, **NUMBERS)
    sys.modules["modeling_finetune"] = module  # as its neighbour imports it
    module = checkout("unilm", "beit/modeling_pretrain.py")
    network = module.VisionTransformerForMaskedImageModeling
    return network(size, vocab_size=CLASSES, use_shared_rel_pos_bias=True, norm_layer=norm, **NUMBERS)


def hidden(image):
    """The same mask for every image."""
    count = image.shape[-2] * image.shape[-1] // 256
    return (torch.arange(count) % 5 < 2).expand(len(image), -1)


def case(name, size, masked=False, **more):
    task = {"task": "beit"} if masked else {}
    return Case(
        f"beit-{name}",
        f"microsoft/unilm beit, modeling_{'pretrain' if masked else 'finetune'}.py",
        lambda: authors(size, masked),
        "micro",
        renamed(LAYOUT),
        options={"image_size": size, **task},
        sizes=(size,),
        train_size=size,
        **more,
    )


CASES = [
    case("authors", (224, 224)),
    case("authors-160x192", (160, 192)),
    case(
        "authors-masked",
        (224, 224),
        masked=True,
        theirs=lambda net, image: net(image, hidden(image), return_all_tokens=True),
        ours=lambda net, image: net(image, hidden(image)),
    ),
]
