"""Files of tokenizers open without running anything in them, and other files are refused in one sentence."""

import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import pytest
import torch
from recording import draw, shapes_of
from torch import nn

from spine.checkpoints.tokenizer_files import load_tokenizer
from spine.errors import InputError
from spine.tokenizers import dvae
from spine.tokenizers.dvae import VARIANTS, DiscreteVAE, DVAEVariant

TINY = DVAEVariant(codes=16, width=4, decoder_input=4, blocks=1)


class Conv2d(nn.Module):
    """The tensors of the published files are called w and b."""

    def __init__(self, layer):
        super().__init__()
        self.w, self.b = layer.weight, layer.bias
        self.device = torch.device("cpu")


def published(part, net):
    """The modules of a part of our network with the names and classes of the DALL-E package."""
    for name, child in list(net.named_children()):
        setattr(net, name, Conv2d(child) if isinstance(child, nn.Conv2d) else published(part, child))
    classes = {dvae.Block: f"{part}Block", dvae.Encoder: "Encoder", dvae.Decoder: "Decoder"}
    if type(net) in classes:
        net.__class__ = getattr(sys.modules[f"dall_e.{part.lower()}"], classes[type(net)])
    return net


@pytest.fixture
def dall_e(monkeypatch):
    """A package `dall_e` with classes of the published names, that exists only while files are written."""
    for module, names in {
        "utils": ["Conv2d"],
        "encoder": ["Encoder", "EncoderBlock"],
        "decoder": ["Decoder", "DecoderBlock"],
    }.items():
        made = types.ModuleType(f"dall_e.{module}")
        for name in names:
            setattr(made, name, type(name, (nn.Module,), {"__module__": made.__name__}))
        monkeypatch.setitem(sys.modules, made.__name__, made)
    monkeypatch.setitem(sys.modules, "dall_e", types.ModuleType("dall_e"))
    Conv2d.__module__ = "dall_e.utils"
    sys.modules["dall_e.utils"].Conv2d = Conv2d
    yield
    Conv2d.__module__ = __name__


@pytest.fixture
def files(tmp_path, dall_e, monkeypatch):
    """encoder.pkl and decoder.pkl of a tiny network, and the network."""
    monkeypatch.setitem(VARIANTS, "tiny", TINY)
    net = DiscreteVAE("tiny").eval()
    net.load_state_dict({name: value.float() for name, value in draw(shapes_of(net)).items()})
    state = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save(published("Encoder", net.encoder), tmp_path / "encoder.pkl")
    torch.save(published("Decoder", net.decoder), tmp_path / "decoder.pkl")
    monkeypatch.undo()  # the package is gone
    monkeypatch.setitem(VARIANTS, "tiny", TINY)
    ours = DiscreteVAE("tiny").eval()
    ours.load_state_dict(state)
    return tmp_path, ours


def state_dict_file(path, net):
    """A state dict with the names of OpenMMLab's dalle_encoder.pth."""
    names = {"weight": "w", "bias": "b"}
    state = OrderedDict()
    for name, value in net.encoder.state_dict().items():
        before, _, last = name.rpartition(".")
        state[f"{before}.{names[last]}"] = value
    torch.save(state, path)
    return path


def test_pickled_networks_open_without_their_package(files):
    folder, ours = files
    image = torch.rand(1, 3, 16, 16)
    net = load_tokenizer(folder / "encoder.pkl")
    assert "dall_e" not in sys.modules and not net.training
    assert torch.equal(net.encode(image), ours.encode(image))
    assert torch.equal(net(image).pixels, ours(image).pixels)  # decoder.pkl is beside it


def test_the_decoder_may_be_missing_or_elsewhere(files):
    folder, _ = files
    (folder / "decoder.pkl").rename(folder / "other.pkl")
    net = load_tokenizer(folder / "encoder.pkl")
    assert net.decoder is None
    with pytest.raises(InputError, match="This tokenizer has no decoder"):
        net.decode_tokens(torch.zeros(1, 4, dtype=torch.int64), (2, 2))
    assert load_tokenizer(folder / "encoder.pkl", folder / "other.pkl").decoder is not None
    with pytest.raises(InputError, match="There is no decoder"):
        load_tokenizer(folder / "encoder.pkl", folder / "nowhere.pkl")


@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_a_state_dict_of_the_encoder_opens(files, wrapper):
    folder, ours = files
    path = state_dict_file(folder / "dalle.pth", ours)
    if wrapper:
        torch.save({wrapper: torch.load(path, weights_only=True)}, path)
    image = torch.rand(2, 3, 16, 16)
    assert torch.equal(load_tokenizer(path).encode(image), ours.encode(image))


class Malicious:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('executed').touch()",))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_would_run_code_is_refused_by_name(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    write({"blocks": Malicious()}, tmp_path / "encoder.pkl")
    with pytest.raises(InputError, match=r"is not opened: it contains (builtins|__builtin__).exec, .* Nothing in it was run."):
        load_tokenizer(tmp_path / "encoder.pkl")
    assert not (tmp_path / "executed").exists()


def test_a_pickle_of_other_classes_is_refused_by_name(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "encoder.pkl")
    with pytest.raises(InputError, match=r"it contains torch.nn.modules.linear.Linear, which is not part of a published network"):
        load_tokenizer(tmp_path / "encoder.pkl")


def test_other_files_are_refused_in_one_sentence(files, tmp_path):
    folder, ours = files
    with pytest.raises(InputError, match="There is no tokenizer 'nowhere.pkl'. Train one with task=dvae"):
        load_tokenizer("nowhere.pkl")
    with pytest.raises(
        InputError, match=r"decoder.pkl' .* another network than dvae tiny|does not hold the encoder|vocabulary of"
    ):
        load_tokenizer(folder / "decoder.pkl")
    torch.save({"layer.weight": torch.zeros(2, 2)}, folder / "other.pth")
    with pytest.raises(
        InputError, match="does not hold the encoder of a discrete VAE: it has no tensor 'blocks.output.conv.weight'"
    ):
        load_tokenizer(folder / "other.pth")
    torch.save({"blocks.output.conv.w": torch.zeros(1000, 8, 1, 1)}, folder / "other.pth")
    with pytest.raises(
        InputError, match=r"has a vocabulary of 1000 codes. Tokenizers of this network have 512 \(small\), 8192 \(dalle\)"
    ):
        load_tokenizer(folder / "other.pth")
    path = state_dict_file(folder / "dalle.pth", ours)
    torch.save({k: v for k, v in torch.load(path, weights_only=True).items() if "group_2" not in k}, path)
    with pytest.raises(
        InputError, match=r"is of another network than dvae tiny: 1\d tensors differ, such as 'encoder.blocks.group_2"
    ):
        load_tokenizer(path)


@pytest.mark.parametrize("name", ["encoder.pkl", "dalle.pth"])
def test_damaged_files_are_refused(files, name):
    folder, ours = files
    state_dict_file(folder / "dalle.pth", ours)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="truncated or damaged|cut short"):
        load_tokenizer(folder / name)


def test_a_changed_tensor_is_found_by_its_checksum(files):
    folder, _ = files
    path = folder / "encoder.pkl"
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo(next(name for name in archive.namelist() if "/data/" in name)).header_offset
    content = bytearray(path.read_bytes())
    content[offset + 200] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_tokenizer(path)


def test_a_checkpoint_of_another_task_is_refused(tmp_path):
    torch.save({"config": {}, "state_dict": {}, "task": {"name": "cls", "options": {}}}, tmp_path / "best.ckpt")
    with pytest.raises(InputError, match="is a checkpoint of task 'cls', and not a tokenizer"):
        load_tokenizer(tmp_path / "best.ckpt")
