"""Opens tokenizers: checkpoints of `task=dvae`, and the published files of DALL-E's discrete VAE.

Nothing in a file is executed. DALL-E's encoder.pkl and decoder.pkl are networks that were pickled whole; OpenMMLab's dalle_encoder.pth is
a state dict of the same encoder.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors.torch import save_file

from spine.checkpoints import reader
from spine.checkpoints.mapping import State
from spine.checkpoints.pickled_module import read_pickled_module
from spine.checkpoints.run_checkpoint import upgrade_checkpoint
from spine.errors import InputError
from spine.tokenizers.dvae import VARIANTS, DiscreteVAE, TokenizerConfig

HOW_TO_GET = "Train one with task=dvae, or give DALL-E's encoder.pkl or OpenMMLab's dalle_encoder.pth"
PUBLISHED_MODULES = (  # classes of the modules in DALL-E's files
    "dall_e.encoder.Encoder",
    "dall_e.encoder.EncoderBlock",
    "dall_e.decoder.Decoder",
    "dall_e.decoder.DecoderBlock",
    "dall_e.utils.Conv2d",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.activation.ReLU",
    "torch.nn.modules.pooling.MaxPool2d",
    "torch.nn.modules.upsampling.Upsample",
    "torch.nn.modules.linear.Identity",
)
PUBLISHED_NAMES = {"w": "weight", "b": "bias"}  # last parts of the names of tensors in the published files
VOCABULARY = "blocks.output.conv.weight"  # of the encoder: (codes, channels, 1, 1)


def load_tokenizer(path: str | Path, decoder_path: str | Path | None = None) -> DiscreteVAE:
    """Returns the tokenizer of a file, frozen and in evaluation mode.

    `path`: a checkpoint of `task=dvae` or its export, DALL-E's encoder.pkl, or a state dict of its encoder, such as OpenMMLab's
    dalle_encoder.pth.
    `decoder_path`: the decoder of a published encoder; by default the file beside it that has "decoder" in place of "encoder" in its
    name, if there is one. Without a decoder, the tokenizer encodes only. Raises InputError if a file is missing, damaged, of another
    kind, or of another network.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no tokenizer '{path}'. {HOW_TO_GET}.")
    content = _open(Path(path))
    if "config" in content and "state_dict" in content:
        net = _of_checkpoint(path, content)
    elif f"encoder.{VOCABULARY}" in content:
        net = _of_one_file(path, content)
    else:
        decoder = _find_decoder(Path(path)) if decoder_path is None else Path(decoder_path)
        if decoder is not None and not decoder.is_file():
            raise InputError(f"There is no decoder '{decoder}'.")
        net = _of_published(path, content, decoder)
    return net.requires_grad_(False).eval()


def save_tokenizer(net: DiscreteVAE, path: Path) -> None:
    """Writes a tokenizer to one safetensors file, which `load_tokenizer` reads. The file appears once it is complete."""
    part = path.with_name(f".{path.name}.part")
    save_file({name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}, part)
    part.replace(path)


def _open(path: Path) -> dict:
    """The content of a file: a dictionary of a checkpoint, or named tensors."""
    if path.suffix == ".safetensors":
        return reader.read(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # a network that was pickled whole, or something that is refused by name
        return read_pickled_module(path, PUBLISHED_MODULES)
    except Exception:  # damaged, or of another kind
        return reader.read(path)
    is_checkpoint = isinstance(content, dict) and isinstance(content.get("config"), dict) and "state_dict" in content
    return content if is_checkpoint else reader.read(path)


def _of_checkpoint(path: str | Path, content: dict) -> DiscreteVAE:
    task = content["task"]["name"] if isinstance(content.get("task"), dict) else "an older version of spine"
    if task != "dvae":
        raise InputError(f"'{path}' is a checkpoint of task '{task}', and not a tokenizer. {HOW_TO_GET}.")
    state = upgrade_checkpoint(content)["state_dict"]
    net = TokenizerConfig.from_dict(content["network"]).build()
    return _filled(path, net, {key.removeprefix("model."): x for key, x in state.items() if key.startswith("model.")})


def _of_published(path: str | Path, content: State, decoder: Path | None) -> DiscreteVAE:
    encoder = _renamed(content)
    if VOCABULARY not in encoder:
        raise InputError(
            f"'{path}' does not hold the encoder of a discrete VAE: it has no tensor '{VOCABULARY}' (its first is "
            f"'{next(iter(content), 'none')}'). {HOW_TO_GET}."
        )
    state = {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    variant = _variant_with(len(encoder[VOCABULARY]), path)
    if decoder is not None:
        state |= {f"decoder.{name}": tensor for name, tensor in _renamed(_open(decoder)).items()}
    return _filled(path if decoder is None else decoder, DiscreteVAE(variant, decoder=decoder is not None), state)


def _of_one_file(path: str | Path, content: State) -> DiscreteVAE:
    """Of a file of `save_tokenizer` or export.py, which holds encoder and decoder."""
    variant = _variant_with(len(content[f"encoder.{VOCABULARY}"]), path)
    return _filled(path, DiscreteVAE(variant, decoder=any(name.startswith("decoder.") for name in content)), content)


def _variant_with(codes: int, path: str | Path) -> str:
    """The variant with a vocabulary of `codes`. Raises InputError if there is none."""
    variant = next((name for name, row in VARIANTS.items() if row.codes == codes), None)
    if variant is None:
        known = ", ".join(f"{row.codes} ({name})" for name, row in VARIANTS.items())
        raise InputError(f"'{path}' has a vocabulary of {codes} codes. Tokenizers of this network have {known}.")
    return variant


def _renamed(state: State) -> State:
    """Named tensors of a published file, in float32 and with spine's names."""
    names = {name: name.rpartition(".") for name in state}
    return {f"{a}{dot}{PUBLISHED_NAMES.get(last, last)}": state[name].float() for name, (a, dot, last) in names.items()}


def _filled(path: str | Path, net: DiscreteVAE, state: State) -> DiscreteVAE:
    """`net` with the tensors of a file. Raises InputError if names or shapes differ."""
    own = net.state_dict()
    wrong = sorted(
        name for name in {*own, *state} if name not in own or name not in state or own[name].shape != state[name].shape
    )
    if wrong:
        raise InputError(
            f"'{path}' is of another network than dvae {net.variant}: {len(wrong)} tensors differ, such as '{wrong[0]}'."
        )
    net.load_state_dict(state)
    return net


def _find_decoder(encoder: Path) -> Path | None:
    decoder = encoder.with_name(encoder.name.replace("encoder", "decoder"))
    return decoder if decoder != encoder and decoder.is_file() else None
