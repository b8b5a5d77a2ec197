"""Rules that the layouts of several backbones share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from spine.checkpoints.input_settings import InputSettings
from spine.checkpoints.mapping import JOIN_QKV, Rule, TensorConversion

# Images of the ShuffleNets' authors, as OpenCV reads them.
BGR_255 = InputSettings(mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255), channels="bgr")

# Publisher, with the order of axes of JAX and TensorFlow: (h, w, in, out); spine: (out, in, h, w).
CONV_KERNEL = TensorConversion(lambda x: x.permute(3, 2, 0, 1), lambda x: (x.permute(2, 3, 1, 0),))


def numbered_blocks(depths: Iterable[int], start: int) -> list[tuple[int, int, int]]:
    """Returns (stage, index within the stage, number in the sequence of all blocks) of every block.

    `depths`: blocks of each stage. `start`: number of the first block.
    """
    blocks = [(stage, i) for stage, depth in enumerate(depths) for i in range(depth)]
    return [(stage, i, number) for number, (stage, i) in enumerate(blocks, start)]


def conv_norm(
    source: str,
    target: str,
    positions: tuple[int, int] = (0, 1),
    names: tuple[str, str] = ("conv", "bn"),
) -> tuple[Rule, ...]:
    """Rules for a convolution and its norm: `names` at the publisher, `positions` in a sequence of spine."""
    prefix = f"{source}." if source else ""
    pairs = zip(names, positions, strict=True)
    return tuple(Rule(f"{prefix}{name}.*", f"{target}.{position}.*") for name, position in pairs)


class BlockNames(NamedTuple):
    """Names of the layers of a transformer block at Hugging Face."""

    query: str
    key: str
    value: str
    output: str
    fc1: str
    fc2: str


def names_in_files(attention: str = "attention.attention") -> BlockNames:
    """Names in Hugging Face's files, which every version of transformers reads and writes."""
    qkv = (f"{attention}.query", f"{attention}.key", f"{attention}.value")
    return BlockNames(*qkv, "attention.output.dense", "intermediate.dense", "output.dense")


# Names of networks in memory since transformers 5, which renames the tensors of files when it reads and writes them.
NAMES_IN_MEMORY = BlockNames(
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    output="attention.o_proj",
    fc1="mlp.fc1",
    fc2="mlp.fc2",
)


def hugging_face_block(source: str, target: str, names: BlockNames, key_bias: bool = True) -> tuple[Rule, ...]:
    """Rules for a transformer block whose query, key and value are separate layers at Hugging Face.

    Without `key_bias` (BEiT), the biases of query and value are two tensors in spine as well.
    """
    query, key, value = (f"{source}.{name}" for name in (names.query, names.key, names.value))
    biases = (
        (Rule((f"{query}.bias", f"{key}.bias", f"{value}.bias"), f"{target}.attn.qkv.bias", JOIN_QKV),)
        if key_bias
        else (Rule(f"{query}.bias", f"{target}.attn.q_bias"), Rule(f"{value}.bias", f"{target}.attn.v_bias"))
    )
    return (
        Rule(f"{source}.layernorm_before.*", f"{target}.norm1.*"),
        Rule(f"{source}.layernorm_after.*", f"{target}.norm2.*"),
        Rule((f"{query}.weight", f"{key}.weight", f"{value}.weight"), f"{target}.attn.qkv.weight", JOIN_QKV),
        *biases,
        Rule(f"{source}.{names.output}.*", f"{target}.attn.proj.*"),
        Rule(f"{source}.{names.fc1}.*", f"{target}.mlp.fc1.*"),
        Rule(f"{source}.{names.fc2}.*", f"{target}.mlp.fc2.*"),
    )


def hugging_face_embeddings(prefix: str) -> tuple[Rule, ...]:
    """Rules for the class token, position embedding and patch embedding of a ViT. `prefix`: "vit." or ""."""
    return (
        Rule(f"{prefix}embeddings.cls_token", "backbone.cls_token"),
        Rule(f"{prefix}embeddings.position_embeddings", "backbone.pos_embed"),
        Rule(f"{prefix}embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"),
    )


def openmmlab_block(source: str, target: str) -> tuple[Rule, ...]:
    """Rules for the norms and the MLP of a transformer block of OpenMMLab."""
    return (
        Rule(f"{source}.ln1.*", f"{target}.norm1.*"),
        Rule(f"{source}.ln2.*", f"{target}.norm2.*"),
        Rule(f"{source}.ffn.layers.0.0.*", f"{target}.mlp.fc1.*"),
        Rule(f"{source}.ffn.layers.1.*", f"{target}.mlp.fc2.*"),
    )


OPENMMLAB_VIT = (  # encoder without its last norm
    Rule("backbone.cls_token", "backbone.cls_token"),
    Rule("backbone.pos_embed", "backbone.pos_embed"),
    Rule("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
    *openmmlab_block("backbone.layers.*", "backbone.blocks.*"),
    Rule("backbone.layers.*.attn.**", "backbone.blocks.*.attn.**"),
)
TIMM_VIT = (  # encoder without its last norm, in timm and the authors' code of MAE
    Rule("cls_token", "backbone.cls_token"),
    Rule("pos_embed", "backbone.pos_embed"),
    Rule("patch_embed.**", "backbone.patch_embed.**"),
    Rule("blocks.**", "backbone.blocks.**"),
)
