"""Swin: the authors' at its fixed sizes, transformers' at sizes that need padding."""

import torch
from recording import CLASSES, Case, checkout, renamed

from spine.backbones.swin import LAYOUT, VARIANTS

MICRO = VARIANTS["micro"]


def official(size, **numbers):
    module = checkout("Swin-Transformer", "models/swin_transformer.py")
    return module.SwinTransformer(img_size=size, num_classes=CLASSES, drop_path_rate=0.0, **numbers)


def middle_of_tables(state):
    """The authors' last stage has a window of 2 and a table of its offsets at 64 px; ours reads the middle of the variant's."""
    tables = {key: value for key, value in state.items() if key.endswith("bias_table") and value.shape[0] == 3 * 3}
    for key, table in tables.items():
        full = table.new_zeros(7, 7, table.shape[1])
        full[2:5, 2:5] = table.view(3, 3, -1)
        state = {**state, key: full.flatten(0, 1)}
    return renamed(LAYOUT)(state)


HUGGING_FACE = [
    (r"^swin\.embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^swin\.embeddings\.", "patch_embed."),
    (r"^swin\.layernorm\.", "norm."),
    (r"^classifier\.", "head."),
    (r"^swin\.encoder\.(.*)\.layernorm_before\.", r"\1.norm1."),
    (r"^swin\.encoder\.(.*)\.layernorm_after\.", r"\1.norm2."),
    (r"^swin\.encoder\.(.*)\.attention\.relative_position_bias\.", r"\1.attn."),
    (r"^swin\.encoder\.(.*)\.attention\.o_proj\.", r"\1.attn.proj."),
    (r"^swin\.encoder\.(.*)\.attention\.", r"\1.attn."),
    (r"^swin\.encoder\.", ""),
]


def joined(state):
    """Query, key and value are three layers there."""
    for key in [key for key in state if ".q_proj." in key]:
        parts = [state[key.replace(".q_proj.", f".{part}_proj.")] for part in "qkv"]
        state = {**state, key.replace(".q_proj.", ".qkv."): torch.cat(parts)}
    state = {key: value for key, value in state.items() if not any(f".{part}_proj." in key for part in "qkv")}
    return renamed(HUGGING_FACE, LAYOUT)(state)


def hugging_face():
    from transformers import SwinConfig, SwinForImageClassification

    numbers = {key: list(value) if isinstance(value, tuple) else value for key, value in MICRO.items()}
    return SwinForImageClassification(SwinConfig(**numbers, num_labels=CLASSES, drop_path_rate=0.0, attn_implementation="sdpa"))


CASES = [
    Case(
        "swin-official",
        "microsoft/Swin-Transformer, models/swin_transformer.py, Swin-T",
        lambda: official(224),
        "tiny",
        renamed(LAYOUT),
        sizes=((224, 224),),  # the only one that it takes
        train_size=None,  # of the small networks below
    ),
    Case(
        "swin-official-small-maps",
        "microsoft/Swin-Transformer, models/swin_transformer.py, windows of 4 at 64 px",
        lambda: official(64, **MICRO),
        "micro",
        middle_of_tables,
        sizes=((64, 64),),
        train_size=(64, 64),
    ),
    Case(
        "swin-transformers",
        "transformers SwinForImageClassification, windows of 4",
        hugging_face,
        "micro",
        joined,
        # the last map is wider than the window: one that is not stops the shifts of all later images there, or fails
        sizes=((150, 203), (131, 400)),
        train_size=(160, 139),
    ),
]
