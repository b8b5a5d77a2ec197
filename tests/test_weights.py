"""Reading of weight files: detection of the layout, refusal of unsuitable files, the table of published weights."""

import gc
import os
import pickle
import random
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_configs import composed
from weight_files import random_network

import spine
from spine.checkpoints import loading, reader
from spine.checkpoints.formats import layouts_of
from spine.checkpoints.published import weight_table_of
from spine.components import backbone_module
from spine.config import building, checks
from spine.errors import InputError


def test_unsuitable_files_are_rejected_and_nothing_in_them_is_executed(tmp_path):
    with pytest.raises(InputError, match="no weights file"):
        reader.read(tmp_path / "nothing.pth")
    executed = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (executed.touch, ())

    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"a": Evil()}))
    torch.save({"a": Evil()}, tmp_path / "evil2.pth")
    for name in ("evil.pth", "evil2.pth"):
        with pytest.raises(InputError, match=f"{name}' is not a plain weights file. Nothing in it was executed"):
            reader.read(tmp_path / name)
    assert not executed.exists()
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"abc")
    for name in ("empty.pth", "broken.safetensors"):
        with pytest.raises(InputError, match=name):
            reader.read(tmp_path / name)
    torch.save({"model": {"epoch": 3}}, tmp_path / "none.pth")
    with pytest.raises(InputError, match="holds no named tensors"):
        reader.read(tmp_path / "none.pth")


def test_files_of_another_backbone_are_rejected(tmp_path):
    torch.save(random_network("swin", variant="micro").state_dict(), tmp_path / "a.pth")
    torch.save({"embedding.weight": torch.ones(3), "lstm.bias": torch.ones(3)}, tmp_path / "b.pth")
    with pytest.raises(InputError, match="does not fit"):
        spine.create_model("convnext", weights=tmp_path / "a.pth", num_outputs=3)
    with pytest.raises(InputError, match="First unmatched names: embedding.weight, lstm.bias. Is it a file of another backbone?"):
        spine.create_model("convnext", weights=tmp_path / "b.pth", num_outputs=3)
    with pytest.raises(InputError, match="Unknown layout 'tim'. Did you mean 'timm'"):
        spine.create_model("convnext", weights=tmp_path / "a.pth", num_outputs=3, layout="tim")


def test_a_file_is_read_once_for_check_and_network_and_then_freed(tmp_path, monkeypatch):
    torch.save(random_network("mobilenet_v2", variant="micro").state_dict(), tmp_path / "a.pth")
    opened = []
    original = reader._open

    def counted(path):
        content = original(path)
        opened.append([weakref.ref(value) for value in content.values()])
        return content

    monkeypatch.setattr(reader, "_open", counted)
    config = composed("backbone=mobilenet_v2", f"backbone.weights={tmp_path / 'a.pth'}", "task=cls", "dataset.num_workers=0")
    config = checks.prepare(config)
    run = building.build_run(config)
    assert len(opened) == 1 and run.load_report.matched
    gc.collect()
    assert all(reference() is None for reference in opened[0])
    config = checks.prepare(config)
    torch.save(random_network("mobilenet_v2", variant="micro", in_chans=3).state_dict(), tmp_path / "b.pth")
    os.replace(tmp_path / "b.pth", tmp_path / "a.pth")  # another file with the same name
    config = checks.prepare(config)
    assert len(opened) == 3
    reader.forget_last_file()
    gc.collect()
    assert all(reference() is None for references in opened for reference in references)


def test_mean_and_std_of_published_weights_reach_the_configuration(tmp_path, monkeypatch, caplog):
    torch.save(random_network("xception", variant="standard").state_dict(), tmp_path / "xception-43020ad28.pth")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))  # as if it had been downloaded
    named = ("backbone=xception", "backbone.variant=standard", "backbone.weights=imagenet1k", "task=cls")
    config = composed(*named)
    config = checks.prepare(config)
    assert config["dataset"]["mean"] == config["dataset"]["std"] == [0.5, 0.5, 0.5]
    checks.prepare(composed(*named, "dataset.mean=[0.4,0.4,0.4]"))
    message = "The weights 'imagenet1k' were evaluated with mean [0.5, 0.5, 0.5]; dataset.mean is [0.4, 0.4, 0.4]."
    assert message in caplog.text
    config = composed("task=cls")
    config = checks.prepare(config)
    assert config["dataset"]["mean"] == [0.485, 0.456, 0.406]


def test_names_of_the_weight_table(monkeypatch, tmp_path):
    with pytest.raises(InputError, match="no published weights of that name for variant 'tiny'. Did you mean 'imagenet1k'"):
        spine.create_model("convnext", variant="tiny", weights="imagnet1k", num_outputs=3)
    for backbone in spine.list_backbones():
        module = backbone_module(backbone)
        assert set(weight_table_of(backbone)) <= set(module.VARIANTS)
        rows = [row for rows in weight_table_of(backbone).values() for row in rows.values()]
        assert rows and all(row.address.startswith("https://") and row.license and row.metric for row in rows)
    torch.save(random_network("convnext", variant="tiny").state_dict(), tmp_path / "convnext_tiny_1k_224_ema.pth")
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path))  # as if it had been downloaded
    assert spine.create_model("convnext", weights="imagenet1k", num_outputs=3) is not None


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """A folder with one file of each type, and their tensors."""
    folder = tmp_path_factory.mktemp("valid")
    net = random_network("shufflenet_v2", variant="micro")
    state = net.state_dict()
    torch.save({"model": state}, folder / "a.pth")
    save_file(state, folder / "a.safetensors")
    np.savez(folder / "a.npz", **{key: value.numpy() for key, value in state.items()})
    return folder, state


def damaged_file(kind, rng, folder, state, target):
    """Writes a damaged file. Bits are flipped only in files with checksums: elsewhere the result is a valid file of other weights."""
    source = rng.choice(["a.pth", "a.npz"] if kind == "flip" else ["a.pth", "a.safetensors", "a.npz"])
    path = target.with_suffix(f".{source.split('.')[1]}")
    content = bytearray((folder / source).read_bytes())
    if kind == "flip":
        for _ in range(rng.randint(1, 30)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        return path
    if kind == "cut":
        path.write_bytes(content[: rng.randrange(len(content))])
        return path
    tensors = {key: value.clone() for key, value in state.items()}
    key = rng.choice([key for key in tensors if not key.endswith("num_batches_tracked")])
    if kind == "swap":
        other = rng.choice([k for k in tensors if tensors[k].shape != tensors[key].shape])
        tensors[key], tensors[other] = tensors[other], tensors[key]
    elif kind == "shape":
        tensors[key] = rng.choice([tensors[key][:-1], tensors[key].flatten()[None], torch.zeros(0), torch.tensor(1.0)]).clone()
    elif kind == "dtype":
        wanted = rng.choice([torch.int64, torch.bool, torch.complex64, torch.float16, torch.float64, torch.uint8, torch.bfloat16])
        tensors[key] = tensors[key].to(wanted)
    else:
        tensors[key].view(-1)[rng.randrange(tensors[key].numel())] = rng.choice([float("nan"), float("inf")])
    path = target.with_suffix(".pth")
    torch.save(tensors, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(  # a thousand in all, most of the kinds that are found quickly
    ("kind", "count"), [("flip", 350), ("cut", 350), ("swap", 75), ("shape", 75), ("dtype", 75), ("nan", 75)]
)
def test_damaged_files_are_rejected_or_reported(valid, tmp_path, kind, count):
    """Of a thousand damaged files, each is rejected with a message, or every tensor of the network is the file's or reported."""
    folder, state = valid
    rng = random.Random(kind)
    net = spine.create_model("shufflenet_v2", variant="micro", num_outputs=3)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    rejected = 0
    for i in range(count):
        net.load_state_dict(start)
        path = damaged_file(kind, rng, folder, state, tmp_path / f"{i}")
        try:
            report = loading.load(net, reader.read_weight_file(path, layouts_of("shufflenet_v2")), "shufflenet_v2 micro")
        except InputError as error:
            rejected += 1
            assert len(str(error)) > 40
            continue
        finally:
            path.unlink(missing_ok=True)
        for key, value in net.state_dict().items():
            if key in report.matched:
                if not torch.equal(value, state[key]):  # half precision is a number format, not damage
                    assert kind == "dtype"
                    torch.testing.assert_close(value, state[key], atol=1e-2, rtol=1e-2)
            elif not key.endswith("num_batches_tracked"):
                assert key in report.new and torch.equal(value, start[key])
    assert rejected > {"cut": 0.96, "nan": 0.96, "flip": 0.6}.get(kind, 0) * count


def test_a_real_file_loads(shared_data):
    path = shared_data.parent / "weights" / "mobilenet_v2_keras160_backbone.pth"
    net = spine.create_model("mobilenet_v2", variant="w100", num_outputs=10, weights=path)
    assert torch.isfinite(net.eval()(torch.randn(1, 3, 160, 160))).all()
