"""Exported files: every format for every backbone and task, metadata, tolerances, and ONNX files in place of checkpoints."""

import itertools
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import run_command
from predictable import SIZE, write_checkpoint, write_images
from safetensors import safe_open
from tokenizer_file import for_task

import spine
from spine.components import default_variant
from spine.config.model_source import compose_model
from spine.errors import InputError
from spine.exporting import graph_export, onnx_files, tracing
from spine.exporting.checking import Difference
from spine.exporting.graph_export import export_graph
from spine.exporting.model import load_network, sample_source
from spine.exporting.options import GRAPHS, ExportOptions
from spine.exporting.weight_files import example_inputs, export_weights
from spine.prediction.exported_file import FileFacts
from spine.prediction.loading import open_predictor
from spine.prediction.onnx_backend import open_onnx

ROOT = Path(__file__).parents[1]
MICRO = ("backbone.variant=micro", "image_size=[64,64]")
QUICK = {"samples": 3, "latency_rounds": 0}
ONE_SIZE = {"beit", "swin"}  # backbones whose graphs hold for one image size
MULTIPLES = {"vit": 16, "mae": 16, "resnest": 32}  # others take any size
MULTIPLES_OF_MAPS = {
    "convnext": 32,
    "vgg16": 32,
}  # of seg and pose: their maps are channels_last, which torch.export has to distinguish
IN_CI = {  # of the pairs of task and backbone: every backbone with cls, and these
    ("seg", "convnext"), ("seg", "vit"), ("pose", "vgg16"), ("pose", "resnest"), ("mae", "vit"), ("mae", "hrnet"), ("beit", "beit"),
    ("beit", "swin"),
}  # fmt: skip


def source_of(checkpoint):
    config = compose_model([f"ckpt_path={checkpoint}"])
    return sample_source(config, open_predictor(config, None, "cpu", "32-true"))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return sorted(write_images(tmp_path_factory.mktemp("images"), count=3).iterdir())


@pytest.fixture(scope="module")
def convnext(tmp_path_factory):
    """The checkpoint of a classifier, and its ONNX file."""
    folder = tmp_path_factory.mktemp("convnext")
    checkpoint = write_checkpoint(folder, *for_task("cls"), "backbone=convnext", *MICRO)
    exported = export_graph(source_of(checkpoint), ExportOptions("onnx", folder / "model.onnx", **QUICK))
    return checkpoint, exported


@pytest.fixture
def checkpoint(convnext):
    return convnext[0]


# ---- ONNX files ----


def test_an_onnx_file_takes_any_size_and_says_what_it_is(convnext):
    _, exported = convnext
    path, beside = exported.files
    assert 0 < exported.difference.relative < 1e-4 and exported.difference.images == 5  # two of them at another size
    session = onnxruntime.InferenceSession(str(path))
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(float)", ["batch", 3, "height", "width"])
    assert (output.name, output.shape) == ("output", ["batch", 5])
    for shape in ((1, 3, 64, 64), (3, 3, 75, 101)):
        assert session.run(None, {"image": np.zeros(shape, np.float32)})[0].shape == (shape[0], 5)
    texts = session.get_modelmeta().custom_metadata_map
    assert json.loads(texts["names"]) == dict(zip("01234", ("disc", "square", "triangle", "star", "cross"), strict=True))
    assert json.loads(texts["mean"]) == [0.485, 0.456, 0.406] and texts["task"] == "cls"
    facts = FileFacts.from_json(texts["spine"], str(path))
    assert facts == exported.facts and facts.inputs[0].shape == ("batch", 3, "height", "width")
    written = json.loads(beside.read_text())
    assert written["model"]["labels"]["classes"][0] == "disc" and written["check"]["relative_difference"] < 1e-4


def test_an_onnx_file_predicts_what_its_checkpoint_predicts(convnext, images):
    checkpoint, exported = convnext
    of_checkpoint = spine.load(checkpoint, device="cpu", precision="32-true").predict(images)
    of_file = spine.load(exported.files[0]).predict(images)
    for one, two in zip(of_checkpoint, of_file, strict=True):
        np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-5)
        assert [each.name for each in one.top(5)] == [each.name for each in two.top(5)]


@pytest.mark.slow
def test_pixels_in_and_probabilities_out_with_a_batch_of_one_size(tmp_path, images):
    checkpoint = write_checkpoint(tmp_path, *for_task("cls"), "backbone=vit", *MICRO)
    more = {"include_preprocessing": True, "postprocessing": "softmax", "batch_size": 2, "fixed_size": True}
    exported = export_graph(source_of(checkpoint), ExportOptions("onnx", tmp_path / "pixels.onnx", **QUICK, **more))
    model = spine.load(checkpoint, device="cpu", precision="32-true")
    expected = model.predict(images)
    pixels = model.to_pixels(torch.stack([model.preprocessing(each.image, 0)[0]["image"] for each in expected]))
    session = onnxruntime.InferenceSession(str(exported.files[0]))
    assert session.get_inputs()[0].shape == [2, 64, 64, 3]
    logits, probabilities = session.run(None, {"image": pixels[:2]})
    assert [each.name for each in session.get_outputs()] == ["output", "probabilities"]
    np.testing.assert_allclose(probabilities, [each.probabilities for each in expected[:2]], atol=1e-5)
    np.testing.assert_allclose(logits.argmax(1), probabilities.argmax(1))
    found = spine.load(exported.files[0]).predict(images)  # three images for batches of two
    for one, two in zip(expected, found, strict=True):
        np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-5)
    with pytest.raises(
        InputError, match=r"takes images of 64x64 pixels, and got one of 96x64. Export it with image_size=\[96,64\]"
    ):
        open_onnx(exported.files[0], "cpu")[1](torch.zeros(1, 3, 96, 64))


def test_files_that_are_not_ours_are_refused(tmp_path, monkeypatch):
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"ONNX Runtime cannot open '.*broken.onnx'"):
        spine.load(tmp_path / "broken.onnx")
    with pytest.raises(InputError, match="There is no file"):
        spine.load(tmp_path / "missing.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (onnx_files.check_packages, lambda: spine.load(tmp_path / "broken.onnx")):
        with pytest.raises(InputError, match=r"pip install -e \.\[export\]"):
            call()


# ---- checks ----


def test_a_file_that_differs_is_not_kept(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(graph_export, "compare", lambda *_: Difference(0.5, 0.01, 3))
    out = tmp_path / "out" / "model.pt"
    with pytest.raises(
        InputError, match=r"differ from PyTorch's by 5.0e-01, 1.0e-02 of the largest output, 3 images; the tolerance"
    ):
        export_graph(source_of(checkpoint), ExportOptions("torchscript", out, fixed_size=True, **QUICK))
    assert list(out.parent.iterdir()) == []
    export_graph(source_of(checkpoint), ExportOptions("torchscript", out, fixed_size=True, tolerance=0.02, **QUICK))
    assert sorted(each.name for each in out.parent.iterdir()) == ["model.pt", "model.pt.json"]


def test_images_are_rendered_if_the_data_set_is_not_here(checkpoint, caplog, monkeypatch):
    def missing(*_):
        raise InputError("There is no folder 'photos'.")

    monkeypatch.setattr("spine.exporting.model.build_data", missing)
    source = source_of(checkpoint)
    assert source.data is None and "compared on rendered images" in caplog.text
    inputs = list(source.inputs("val", 2))
    assert [x.shape for (x,) in inputs] == [(1, 3, 64, 64)] * 2 and not torch.equal(*(x for (x,) in inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "onnx", "out": "a.pt"}, r"out is 'a.pt'; the name of a file of format=onnx ends in .onnx"),
        ({"format": "timm", "out": "a.onnx"}, "Give format=onnx for an ONNX file"),
        ({"format": "timm", "precision": "int8"}, "precision is for format=onnx; format is timm. Leave precision out."),
        ({"format": "torchscript", "out": "a.pt", "precision": "fp16"}, "precision is for format=onnx"),
        ({"format": "safetensors", "include_preprocessing": True}, "include_preprocessing is for format=onnx and torch_export"),
    ],
)
def test_options_that_do_not_fit_together_are_reported(options, message):
    defaults = {"out": "a.safetensors", "precision": "fp32", "include_preprocessing": False, "postprocessing": "none"}
    more = {"batch_size": None, "fixed_size": False, "opset": None, "samples": 8, "calibration_samples": 8, "tolerance": None}
    with pytest.raises(InputError, match=message):
        ExportOptions.take({**defaults, **more, "latency_rounds": 0, **options})


# ---- other formats ----


@pytest.mark.parametrize("kind", [pytest.param("torch_export", marks=pytest.mark.slow), "torchscript"])
def test_files_of_pytorch_describe_themselves(tmp_path, checkpoint, kind):
    path, one_size = tmp_path / f"model{GRAPHS[kind][0]}", kind == "torch_export"
    exported = export_graph(source_of(checkpoint), ExportOptions(kind, path, **QUICK, fixed_size=one_size))
    assert exported.facts.image_size == ((64, 64) if one_size else None)
    extra = {"spine.json": ""}
    if kind == "torch_export":
        module = torch.export.load(path, extra_files=extra).module()
    else:
        module = torch.jit.load(str(path), _extra_files=extra)
    assert FileFacts.from_json(
        extra["spine.json"] if isinstance(extra["spine.json"], str) else extra["spine.json"].decode(), ""
    ) == (exported.facts)
    (output,) = module(torch.zeros(3, 3, *((64, 64) if one_size else (75, 101))))
    assert output.shape == (3, 5)


@pytest.mark.parametrize(("publisher", "suffix"), [("safetensors", "safetensors"), ("timm", "pth"), ("hf", "pth")])
def test_weights_are_read_again_and_described(tmp_path, checkpoint, publisher, suffix):
    network = load_network({**compose_model([f"ckpt_path={checkpoint}"])}, None)
    options = ExportOptions(publisher, tmp_path / f"w.{suffix}")
    metadata = {"image_size": "[64, 64]", "channels": "rgb"}
    exported = export_weights(network.definition, network.model, metadata, example_inputs(network.model, (64, 64)), options)
    assert exported.difference.largest == 0.0 and [each.name for each in exported.files] == [f"w.{suffix}", f"w.{suffix}.json"]
    described = json.loads(exported.files[1].read_text())
    assert described == {
        "image_size": [64, 64],
        "channels": "rgb",
        "backbone": "convnext",
        "variant": "micro",
        "format": publisher,
    }
    if suffix == "safetensors":
        with safe_open(exported.files[0], "pt") as file:
            assert file.metadata()["image_size"] == "[64, 64]"


# ---- everything ----


@pytest.fixture
def captured_once(monkeypatch):
    """ONNX files and those of torch.export are written from one graph: to capture it takes most of the time of an export."""
    capture, graphs = tracing._export, {}

    def once(network, inputs, batch_size, multiple):
        key = (network.network, *(x.shape for x in inputs), batch_size, multiple)
        if key not in graphs:
            try:
                graphs[key] = capture(network, inputs, batch_size, multiple)
            except Exception as error:
                graphs[key] = error
        if isinstance(graphs[key], Exception):
            raise graphs[key]
        return graphs[key]

    monkeypatch.setattr(tracing, "_export", once)


@pytest.mark.parametrize(
    ("task", "backbone"),
    [
        pytest.param(task, backbone, marks=pytest.mark.slow if task == "cls" or pair in IN_CI else pytest.mark.extensive)
        for pair in itertools.product(("cls", "seg", "pose", "mae", "beit"), spine.list_backbones())
        for task, backbone in [pair]
    ],
)
def test_every_format_works_for_every_backbone_and_task(tmp_path, captured_once, backbone, task):
    checkpoint = write_checkpoint(tmp_path, *for_task(task), f"backbone={backbone}", *MICRO)
    source = source_of(checkpoint)
    multiples = MULTIPLES | (MULTIPLES_OF_MAPS if task in ("seg", "pose") else {})
    for kind, suffixes in GRAPHS.items():
        exported = export_graph(source, ExportOptions(kind, tmp_path / f"{kind}{suffixes[0]}", **QUICK))
        one_size = backbone in ONE_SIZE or task in ("mae", "beit")
        assert (exported.facts.image_size is not None) == one_size, exported.reason
        if not one_size and kind != "torchscript":  # whose sizes are tried, and not proven
            assert exported.facts.size_multiple == multiples.get(backbone, 1)


@pytest.mark.parametrize(
    "backbone",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("mobilenet_v2", "vit") else pytest.mark.extensive)
        for name in spine.list_backbones()
    ],
)
def test_networks_of_full_size_are_exported(tmp_path, captured_once, backbone):
    variant = f"backbone.variant={default_variant(backbone)}"  # such as tiny, base_patch16 or w32
    source = source_of(write_checkpoint(tmp_path, *for_task("cls"), f"backbone={backbone}", variant, "image_size=[224,224]"))
    for kind, suffixes in GRAPHS.items():
        export_graph(source, ExportOptions(kind, tmp_path / f"{kind}{suffixes[0]}", **QUICK, fixed_size=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "task", "head"),
    [
        ("segnext", "seg", "hamburger"), ("vit", "seg", "upernet"), ("hrnet", "seg", "ocr"), ("vgg16", "seg", "parsenet"),
        ("mobilenet_v3", "seg", "lraspp"), ("mobilenet_v2", "seg", "aspp"), ("hrnet", "pose", "simcc"),
        ("swin", "pose", "multiscale_heatmap"),
    ],
)  # fmt: skip
def test_every_head_is_exported(tmp_path, captured_once, backbone, task, head):
    options = ("+head.channels=32",) if head in ("upernet", "hamburger") else ()
    checkpoint = write_checkpoint(tmp_path, *for_task(task), f"backbone={backbone}", f"head={head}", *options, *MICRO)
    source = source_of(checkpoint)
    for kind, suffixes in GRAPHS.items():
        export_graph(source, ExportOptions(kind, tmp_path / f"{kind}{suffixes[0]}", **QUICK))


# ---- the command ----


def run_export(folder, *arguments, ok=True):
    done = run_command("export.py", *arguments, folder=folder)
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_command_measures_the_accuracy_of_smaller_files(tmp_path, precision):
    checkpoint = write_checkpoint(tmp_path, *for_task("seg"), "backbone=mobilenet_v2", *MICRO)
    done = run_export(
        tmp_path, f"ckpt_path={checkpoint}", "format=onnx", f"precision={precision}", "out=small.onnx", "tolerance=1",
        "calibration_samples=4", "latency_rounds=2", "fixed_size=true",
    )  # fmt: skip
    for text in ("val/mIoU: 0.", f"mobilenet_v2 micro + fcn, {precision}, ", "largest difference from PyTorch: ", "ms, PyTorch "):
        assert text in done.stdout, done.stdout
    check = json.loads((tmp_path / "small.onnx.json").read_text())["check"]
    assert abs(check["val/mIoU of PyTorch"] - check["val/mIoU"]) < 0.2
    run_export(tmp_path, f"ckpt_path={checkpoint}", "format=onnx", "out=whole.onnx", "latency_rounds=0", "fixed_size=true")
    assert (tmp_path / "small.onnx").stat().st_size < 0.7 * (tmp_path / "whole.onnx").stat().st_size
    model = spine.load(tmp_path / "small.onnx")
    image = write_images(tmp_path / "images", count=1) / "000.png"
    assert model.predict(image).mask.shape == SIZE


@pytest.mark.slow
def test_the_command_exports_published_weights(tmp_path):
    net = spine.create_model("mobilenet_v2", variant="micro", num_outputs=3, image_size=64)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    given = ("backbone=mobilenet_v2", "backbone.variant=micro", "backbone.weights=weights.pth", "classes=names.txt")
    done = run_export(tmp_path, *given, "image_size=[64,64]", "format=onnx", "out=net.onnx", "latency_rounds=0")
    assert "compared on rendered images" in done.stdout + done.stderr
    assert spine.load(tmp_path / "net.onnx").description.labels.classes == ("ant", "bee", "cat")
    done = run_export(tmp_path, *given, "image_size=[64,64]", "format=onnx", "precision=int8", "out=b.onnx", ok=False)
    assert "precision=int8 needs the data set" in done.stderr and not (tmp_path / "b.onnx").exists()


def test_the_configuration_in_the_docs_fits_an_exported_file(tmp_path, checkpoint):
    """docs/serving.md: names, types and shapes of Triton's config.pbtxt."""
    more = {"include_preprocessing": True, "postprocessing": "softmax"}
    facts = export_graph(source_of(checkpoint), ExportOptions("torchscript", tmp_path / "a.pt", **QUICK, **more)).facts
    text = (ROOT / "docs" / "serving.md").read_text()
    found = re.findall(r'name: "(\w+)" data_type: TYPE_(\w+) dims: \[ (.*?) \]', text)
    types = {"uint8": "UINT8", "float32": "FP32"}
    wanted = [
        (each.name, types[each.type], ", ".join(str(side) if isinstance(side, int) else "-1" for side in each.shape[1:]))
        for each in (*facts.inputs, *facts.outputs)
    ]
    assert found == wanted
