"""Tiny files for the Python blocks and commands of the documentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from data_files import write_image
from test_configs import trained
from tokenizer_file import tokenizer_file

import spine
from spine.interfaces import Labels

SMALLER = {  # what makes the blocks of a page small; every key must occur
    "docs/guides/notebooks.md": {
        '("convnext", variant="tiny", task="seg"': '("convnext", variant="micro", task="seg"',
        'variant="tiny", num_outputs=len(data.labels.classes), weights="imagenet1k"': 'variant="micro", num_outputs=2',
        "(224, 224)": "(32, 32)",
        "batch_size=32)": "batch_size=4, num_workers=0)",
        "pl.Trainer(max_epochs=5)": 'pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False)',
    },
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
    for name in ('"tokenizer.safetensors"', '"logs/train/runs/<dvae run>/checkpoints/best.ckpt"'):
        if name in text:
            replaced[name] = repr(str(tokenizer_file()))
    if "spine.load(" in text and page != "README.md":
        write_image(folder / "photo.jpg", size=(40, 48))
        replaced['"logs/train/runs/<run>/checkpoints/best.ckpt"'] = repr(str(train_classifier(folder / "run")))
    elif "Segmentation.load_from_checkpoint" in text:
        replaced['"logs/train/runs/<run>/checkpoints/best.ckpt"'] = repr(str(write_segmentation_checkpoint(folder)))
    if "person_keypoints_train.json" in text:
        people = {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}]}
        (folder / "coco_person/annotations").mkdir(parents=True)
        (folder / "coco_person/annotations/person_keypoints_train.json").write_text(json.dumps(people))
    if "examples/my_parts" in text:
        replaced["examples/my_parts"] = str(Path(__file__).parents[1] / "examples" / "my_parts")
    return Files(replaced)


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
