"""Tiny files for the Python blocks and commands of the documentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from data_files import write_image, write_mask
from predictable import write_video
from test_configs import trained
from test_datasets import write_fashion
from tokenizer_file import tokenizer_file

import spine
from spine.config.model_source import compose_model
from spine.exporting.graph_export import export_graph
from spine.exporting.model import sample_source
from spine.exporting.options import ExportOptions
from spine.interfaces import Labels
from spine.prediction.loading import open_predictor
from spine.prediction.predictor import Predictor

SMALLER = {  # what makes the blocks of a page small; every key must occur
    "docs/guides/notebooks.md": {
        '("convnext", variant="tiny", task="seg"': '("convnext", variant="micro", task="seg"',
        'variant="tiny", num_outputs=len(data.labels.classes), weights="imagenet1k"': 'variant="micro", num_outputs=2',
        "(224, 224)": "(32, 32)",
        "batch_size=32)": "batch_size=4, num_workers=0)",
        "pl.Trainer(max_epochs=5)": 'pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)',
    },
    "docs/predict.md": {'variant="tiny"': 'variant="micro"'},
    "docs/export.md": {'ExportOptions("onnx", Path("model.onnx"))': 'ExportOptions("onnx", Path("model.onnx"), fixed_size=True)'},
}


@dataclass
class Files:
    """The files of a page, and what its blocks have in place of large ones."""

    replaced: dict[str, str]

    def smaller(self, code: str) -> str:
        """Returns a block with small networks and the paths of tiny files."""
        for old, new in self.replaced.items():
            code = code.replace(old, new)
        return code


def prepare_files(page: str, folder: Path) -> Files:
    """Writes the files that the Python blocks of a page read."""
    text = (Path(__file__).parents[1] / page).read_text()
    replaced = dict(SMALLER.get(page, {}))
    assert all(old in text for old in replaced), page
    if "photos" in text:
        write_photos(folder / "photos")
    if "mobilenet_v2.pth" in text:
        net = spine.create_model("mobilenet_v2", variant="micro", num_outputs=5)
        torch.save(net.state_dict(), folder / "mobilenet_v2.pth")
    if "swin_tiny_patch4_window7_224.pth" in text:
        net = spine.create_model("swin", variant="micro", num_outputs=5)
        torch.save(net.state_dict(), folder / "swin_tiny_patch4_window7_224.pth")
    if "convnext_tiny.pth" in text:
        write_weights(folder)
    for name in ('"tokenizer.safetensors"', '"logs/train/runs/<dvae run>/checkpoints/best.ckpt"'):
        if name in text:
            replaced[name] = repr(str(tokenizer_file()))
    if "spine.load(" in text and page != "README.md":
        for name in ("photo.jpg", "a.jpg", "b.jpg"):
            write_image(folder / name, size=(40, 48))
        write_video(folder / "clip.mp4")
        checkpoint = train_classifier(folder / "run")
        for name in ("logs/train/runs/<run>/checkpoints/best.ckpt", "logs/.../checkpoints/best.ckpt"):
            replaced[f'"{name}"'] = repr(str(checkpoint))
        replaced['"ckpt_path=best.ckpt"'] = repr(f"ckpt_path={checkpoint}")
        if '"model.onnx"' in text:
            source = sample_source(*opened(checkpoint))
            export_graph(source, ExportOptions("onnx", folder / "model.onnx", samples=1, latency_rounds=0, fixed_size=True))
    elif "Segmentation.load_from_checkpoint" in text:
        replaced['"logs/train/runs/<run>/checkpoints/best.ckpt"'] = repr(str(write_segmentation_checkpoint(folder)))
    if "person_keypoints_train.json" in text:
        people = {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}]}
        (folder / "coco_person/annotations").mkdir(parents=True)
        (folder / "coco_person/annotations/person_keypoints_train.json").write_text(json.dumps(people))
    if "examples/my_parts" in text:
        replaced["examples/my_parts"] = str(Path(__file__).parents[1] / "examples" / "my_parts")
    return Files(replaced)


def opened(checkpoint: Path) -> tuple[dict[str, object], Predictor]:
    """Returns the configuration and the model of a checkpoint, for an export."""
    config = compose_model([f"ckpt_path={checkpoint}"])
    return config, open_predictor(config, precision="32-true", device="cpu")


def write_docs_folder(folder: Path) -> Path:
    """Writes what the commands of the pages read: tiny data sets and weights with the names of the pages. Returns the folder."""
    write_photos(folder / "photos", splits=("train", "val", "test"))
    write_photos(folder / "pets", splits=("train", "val"))
    write_photos(folder / "new_photos")
    write_photos(folder / "renamed", splits=("train", "validation", "val"))
    write_masks(folder / "scans", ("train", "val"), "images/{}/{}.png", "masks/{}/{}.png")
    (folder / "scans/classes.txt").write_text("background\ncell\n")
    for name in ("vessel", "lesion"):
        write_masks(folder / "vessels", ("train", "val"), "images/{}/{}.png", f"masks/{{}}/{name}/{{}}.png")
    write_masks(folder / "suffixed", ("train", "val"), "images/{}/{}.png", "masks/{}/{}_mask.png", value=255)
    (folder / "suffixed/classes.txt").write_text("background\ncell\n")
    write_masks(folder / "data/ade/ADEChallengeData2016", ("training", "validation"), "images/{}/{}.jpg", "annotations/{}/{}.png")
    cityscapes = ("leftImg8bit/{}/ulm/{}_leftImg8bit.png", "gtFine/{}/ulm/{}_gtFine_labelIds.png")
    write_masks(folder / "data/cityscapes", ("train", "val"), *cityscapes, value=7)
    write_masks(folder / "data/camvid", ("train", "val"), "{}/{}.png", "{}annot/{}.png")
    for split in ("train", "val"):
        pairs = "".join(f"{split}/{number}.png {split}annot/{number}.png\n" for number in range(4))
        (folder / f"data/camvid/{split}.txt").write_text(pairs)
    for name in ("new_scans/1.png", "hands/images/1.png", "hands/images/2.png", "new_hands/1.png"):
        write_image(folder / name, size=(48, 64))
    write_people(folder / "coco")
    write_list(folder / "birds")
    (folder / "fashion_mnist").mkdir()
    write_fashion(folder / "fashion_mnist", per_class=24)
    write_weights(folder)
    (folder / "boxes.json").write_text(json.dumps({"train/cat/0.png": [[2, 3, 30, 30, 0.9]]}))
    return folder


def write_list(root: Path) -> None:
    """Writes images of two classes and a list with their paths and their names."""
    rows = ["path,id,label,split,group,weight"]
    for number in range(8):
        write_image(root / f"photos/{number}.jpg", size=(40, 48))
        split = "train" if number < 4 else "val"
        rows.append(f"photos/{number}.jpg,{number},{'jay' if number % 2 else 'wren'},{split},walk{number // 4},1")
    (root / "list.csv").write_text("\n".join(rows))


def write_masks(root: Path, splits: tuple[str, ...], image: str, mask: str, value: int = 1) -> None:
    """Writes four images and masks of each split. The masks have a line of `value`."""
    for split in splits:
        for number in range(4):
            write_image(root / image.format(split, number), size=(40, 48))
            write_mask(root / mask.format(split, number), value * np.eye(40, 48))


def write_people(root: Path) -> None:
    """Writes two images of COCO with a person each, in COCO's folders."""
    category = {
        "id": 1,
        "name": "person",
        "keypoints": ["nose", *(f"{side}_{part}" for part in "abcdefgh" for side in ("left", "right"))],
    }
    keypoints = [value for k in range(17) for value in (8 + k, 6 + 2 * k, 2)]
    for split in ("train2017", "val2017"):
        images, annotations = [], []
        for number in (1, 2):
            write_image(root / split / f"{number:012}.jpg", size=(48, 64))
            images.append({"id": number, "file_name": f"{number:012}.jpg", "height": 48, "width": 64})
            person = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": [4, 4, 40, 40], "area": 800}
            annotations.append({**person, "keypoints": keypoints, "num_keypoints": 17})
        content = {"images": images, "annotations": annotations, "categories": [category]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / f"annotations/person_keypoints_{split}.json").write_text(json.dumps(content))


def write_weights(folder: Path) -> None:
    """Writes the weights that pages load, of the smallest networks."""
    for file, backbone, more in (
        ("mobilenet_v2.pth", "mobilenet_v2", {"num_outputs": 5}),
        ("convnext_tiny.pth", "convnext", {"num_outputs": 3}),
        ("swin_tiny_patch4_window7_224.pth", "swin", {"num_outputs": 5}),
        ("vit.pth", "vit", {"num_outputs": 5, "image_size": 64}),
        ("mae.ckpt", "mae", {"task": "mae", "image_size": 64}),
        ("last.ckpt", "mae", {"task": "mae", "image_size": 64}),
    ):
        net = spine.create_model(backbone, variant="micro", **more)
        torch.save(net.state_dict(), folder / file)
    (folder / "imagenet.txt").write_text("ant\nbee\ncat\n")


def write_photos(root: Path, splits: tuple[str, ...] = ("train", "val")) -> None:
    """Writes four images of each of two classes in each split."""
    for split in splits:
        for name in ("cat", "dog"):
            for number in range(4):
                write_image(root / split / name / f"{number}.png", size=(40, 48))


def train_classifier(folder: Path) -> Path:
    """Trains a run of a few rendered images, and returns its checkpoint."""
    folder.mkdir()
    trained(
        folder, "task=cls", "dataset.length={train: 4, val: 2, test: 2}", "dataset.batch_size=2", "dataset.num_workers=0",
        "trainer.max_epochs=1", "trainer.accelerator=cpu",
    )  # fmt: skip
    return folder / "checkpoints" / "best.ckpt"


def write_segmentation_checkpoint(folder: Path) -> Path:
    """Writes a checkpoint of an untrained network with two classes."""
    from spine.tasks.seg.task import Segmentation

    net = spine.create_model("mobilenet_v2", variant="micro", task="seg", num_outputs=2)
    task = Segmentation(model=net, labels=Labels(mask_classes=("background", "cell")))
    content: dict = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(content)
    torch.save(content, folder / "best.ckpt")
    return folder / "best.ckpt"
