"""Records a step of BEiT's pre-training and block masks of the authors' code, for tests/test_beit.py.

    python tests/recording_beit.py       (in an environment with timm and the package DALL-E)

The authors' code is read from checkouts in the folder SPINE_CHECKOUTS, as in recording.py. Weights, images and random numbers
depend on names and seeds only, so the records contain none.
"""

import functools
import json
import random
import sys

import numpy as np
import torch
from recording import RECORDS, checkout, draw, gradients, image_of, shapes_of
from torch import nn

from spine.checkpoints.formats import layouts_of

SIZE, GRID, CODES, COUNT = (96, 128), (6, 8), 512, 3  # of the step: image size, patches, codes of the tokenizer, images
HYPERPARAMETERS = {"embed_dim": 96, "depth": 6, "num_heads": 3, "qkv_bias": True, "init_values": 1.0, "use_abs_pos_emb": False}
MASKS = [((14, 14), 75, 16), ((6, 8), 18, 48 * 16 / 196), ((24, 24), 220, 16)]  # grid, masked patches, smallest block
SEEDS, STEP_SEEDS = range(100), (3, 4, 5)  # of the masks; the last one of the step has a patch less than the others


def tokenizer_image():
    """Returns images (B, 3, h, w) uint8 for the tokenizer with a random color in each patch, the same for each call."""
    colors = torch.randint(256, (COUNT, 3, *GRID), generator=torch.Generator().manual_seed(7), dtype=torch.uint8)
    return colors.repeat_interleave(8, 2).repeat_interleave(8, 3)


def authors_masks(grid, max_masked, min_block, seeds):
    """Returns masks (h, w) of the authors' generator, one for each seed."""
    np.int = int  # NumPy's old name, which the authors use
    make = checkout("unilm", "beit/masking_generator.py").MaskingGenerator
    masks = []
    for seed in seeds:
        random.seed(seed)
        masks.append(make(grid, max_masked, min_num_patches=min_block)().astype(bool))
    return masks


def authors_network():
    """Returns the network of modeling_pretrain.py, with the size of `micro`."""
    sys.modules["modeling_finetune"] = checkout("unilm", "beit/modeling_finetune.py")
    network = checkout("unilm", "beit/modeling_pretrain.py").VisionTransformerForMaskedImageModeling
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    return network(SIZE, vocab_size=CODES, use_shared_rel_pos_bias=True, norm_layer=norm, **HYPERPARAMETERS)


def authors_encoder():
    """Returns DALL-E's encoder with the size of `small`."""
    from dall_e.encoder import Encoder

    return Encoder(n_hid=32, vocab_size=CODES, use_mixed_precision=False)


def filled(net, dtype):
    """Returns a network with drawn weights, and names and shapes of its tensors."""
    shapes = shapes_of(net)
    net.to(dtype).load_state_dict(draw(shapes), strict=False)
    return net, shapes


def record_step():
    """Returns one step as in engine_for_pretraining.py, in float64; the tokenizer computes in float32, as there."""
    from dall_e.utils import map_pixels

    network, keys = filled(authors_network(), torch.float64)
    encoder, encoder_keys = filled(authors_encoder(), torch.float32)
    masks = np.stack(authors_masks(*MASKS[1], STEP_SEEDS))
    masked = torch.from_numpy(masks).flatten(1)
    with torch.no_grad():
        tokens = encoder(map_pixels(tokenizer_image().float() / 255)).argmax(1).flatten(1)
    output = network.train()(image_of(SIZE, COUNT), bool_masked_pos=masked, return_all_tokens=False)
    loss = nn.CrossEntropyLoss()(input=output, target=tokens[masked])
    loss.backward()
    layout = next(layout for layout in layouts_of("beit") if layout.publisher == "official" and layout.match_fraction(keys) == 1)
    return {
        "source": "microsoft/unilm beit: engine_for_pretraining.py, modeling_pretrain.py, masking_generator.py; openai/DALL-E encoder",
        "keys": keys,
        "encoder_keys": encoder_keys,
        "masks": masks.astype(int).tolist(),
        "tokens": tokens.tolist(),
        "loss": loss.item(),
        "step": gradients(network, lambda state: layout.to_spine(state)[0]),
    }


def record_masks():
    """Returns masks of every seed, as hexadecimal numbers whose bits are the patches in raster order."""
    rows = [
        {"grid": grid, "max_masked": max_masked, "min_block": min_block, "masks": list(map(to_hex, authors_masks(*case, SEEDS)))}
        for case in MASKS
        for grid, max_masked, min_block in [case]
    ]
    return {"source": "microsoft/unilm beit, masking_generator.py, after random.seed(0), random.seed(1), ...", "cases": rows}


def to_hex(mask):
    """Returns the patches of a mask as the bits of a hexadecimal number."""
    return f"{int(''.join(map(str, mask.astype(int).ravel())), 2):x}"


if __name__ == "__main__":
    for name, found in (("beit-step", record_step()), ("beit-masks", record_masks())):
        (RECORDS / f"{name}.json").write_text(json.dumps(found) + "\n")
        print(name)
