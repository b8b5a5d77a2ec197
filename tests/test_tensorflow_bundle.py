"""Checkpoints of TensorFlow are read without TensorFlow, completely or not at all."""

import base64
import json
import random

import numpy as np
import pytest
import torch
from recording import RECORDS, draw
from tensorflow_files import write_bundle

import spine
from spine.checkpoints import reader
from spine.checkpoints.tensorflow_bundle import values_of_index
from spine.errors import InputError

RECORD = json.loads((RECORDS / "tensorflow_bundle.json").read_text())  # of a checkpoint that TensorFlow wrote
DATA = ".data-00000-of-00001"


@pytest.fixture
def checkpoint(tmp_path):
    for name, content in RECORD["files"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    return tmp_path / "model.ckpt-5.index"


def test_weights_are_those_that_tensorflow_wrote(checkpoint):
    """The step counter is no weight."""
    found = reader.read(checkpoint)
    first = found.pop("MobilenetV2.Conv.weights")
    assert torch.equal(first, torch.arange(108.0).reshape(3, 3, 3, 4))
    assert len(found) == 200
    for i in range(200):
        assert torch.equal(
            found[f"MobilenetV2.expanded_conv_{i}.depthwise.depthwise_weights"], torch.full((3, 3, 2, 1), float(i))
        )


def test_our_files_for_tests_have_the_bytes_of_tensorflow(checkpoint, tmp_path):
    """Their index has one block, so that only the data and the checksums are compared."""
    arrays = {name.replace(".", "/"): tensor.numpy() for name, tensor in reader.read(checkpoint).items()}
    index = write_bundle(tmp_path / "ours", {**arrays, "global_step": np.array(5)})
    assert index.with_suffix(DATA).read_bytes() == checkpoint.with_suffix(DATA).read_bytes()
    ours, theirs = (values_of_index(path.read_bytes()) for path in (index, checkpoint))
    assert ours == theirs and len(ours) == 203


def test_averages_take_the_place_of_weights(tmp_path):
    """The state of the optimizer is left out."""
    w = "MobilenetV2/Conv/weights"
    arrays = {w: np.zeros((2, 3), np.float16), f"{w}/ExponentialMovingAverage": np.ones((2, 3)), f"{w}/RMSProp_1": np.ones(4)}
    found = reader.read(write_bundle(tmp_path / "a", {**arrays, "x": np.ones((), np.float16)}))
    assert found.keys() == {"MobilenetV2.Conv.weights", "x"} and found["x"].shape == () and found["x"].dtype == torch.float16
    assert torch.equal(found["MobilenetV2.Conv.weights"], torch.ones(2, 3, dtype=torch.float64))


@pytest.mark.parametrize("case", ["mobilenet_v2-official", "mobilenet_v3-official-small_minimal_100"])
def test_checkpoints_open_as_networks(case, tmp_path):
    """With the variant and the conventions of TensorFlow; with the same weights as a file of torch."""
    keys = json.loads((RECORDS / f"{case}.json").read_text())["keys"]
    state = {name: tensor.float() for name, tensor in draw({key: tuple(shape) for key, shape in keys.items()}).items()}
    torch.save(state, tmp_path / "file.pth")
    arrays = {name.replace(".", "/"): tensor.numpy() for name, tensor in state.items()}
    index = write_bundle(tmp_path / "model.ckpt-540000", {**arrays, "global_step": np.array(540000)})
    nets = [spine.create_model(case.partition("-")[0], weights=file, num_outputs=10) for file in (index, tmp_path / "file.pth")]
    assert nets[0].config == nets[1].config and nets[0].config.backbone_options["tf_padding"]
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
    assert {module.eps for module in nets[0].modules() if isinstance(module, torch.nn.BatchNorm2d)} == {1e-3}


def test_damaged_checkpoints_are_refused_in_one_sentence(checkpoint, tmp_path):
    data = checkpoint.with_suffix(DATA)
    index, values = checkpoint.read_bytes(), data.read_bytes()
    with pytest.raises(
        InputError, match=r"holds the data of a TensorFlow checkpoint. Give the path of its index, '.*ckpt-5.index'"
    ):
        reader.read(data)
    rng = random.Random(0)
    for _ in range(200):
        damaged = bytearray(index)
        if rng.random() < 0.5:
            damaged = damaged[: rng.randrange(len(index))]
        else:
            damaged[rng.randrange(len(index) - 48)] ^= 1 << rng.randrange(8)
        checkpoint.write_bytes(damaged)
        with pytest.raises(
            InputError, match=r"model.ckpt-5.index' cannot be read as weights; it may be truncated or damaged \(.+\)"
        ):
            reader.read(checkpoint)
    checkpoint.write_bytes(index)
    data.write_bytes(values[:-80])
    with pytest.raises(InputError, match=r"'model.ckpt-5.data-00000-of-00001' is too short"):
        reader.read(checkpoint)
    data.unlink()
    with pytest.raises(InputError, match=r"No such file or directory: '.*model.ckpt-5.data-00000-of-00001'"):
        reader.read(checkpoint)


def test_other_tables_of_leveldb_are_refused(tmp_path):
    arrays = {"a": np.ones((2, 3), np.float32)}
    assert reader.read(write_bundle(tmp_path / "whole", arrays))["a"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(InputError, match="its index is compressed"):
        reader.read(write_bundle(tmp_path / "compressed", arrays, compression=1))
    with pytest.raises(InputError, match="holds no named tensors"):
        reader.read(write_bundle(tmp_path / "integers", {"a": np.ones(3, np.int64)}))
    with pytest.raises(InputError, match="cannot be read as weights"):
        reader.read(write_bundle(tmp_path / "mislabeled", arrays, dtypes={np.dtype(np.float32): 2}))
    (tmp_path / "other.index").write_bytes(b"0" * 200)
    with pytest.raises(InputError, match="it is not an index of a TensorFlow checkpoint"):
        reader.read(tmp_path / "other.index")
