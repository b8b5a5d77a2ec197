"""Checkpoints of networks with random weights, and images on disk, for tests of predictions."""

import json

import cv2
import numpy as np
import torch
from test_configs import composed

from spine.config.building import build_run
from spine.config.checks import prepare
from spine.data.formats.shapes import Shapes

COUNT, SIZE = 6, (80, 64)  # number, height and width of the images
FAST = ("dataset.num_workers=0", "dataset.batch_size=4", "trainer.accelerator=cpu", f"dataset.length={{train: 8, val: {COUNT}}}")


def write_checkpoint(folder, *overrides):
    """Writes the checkpoint of a network with random weights as a run does, without training. Returns its path."""
    config = prepare(composed(*FAST, f"dataset.size={list(SIZE)}", *overrides))
    run = build_run(config, "val")
    with torch.no_grad():
        for parameter in run.task.model.parameters():  # heads start with weights close to zero: all answers would be alike
            if parameter.ndim > 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    content = {"state_dict": run.task.state_dict()}
    run.task.on_save_checkpoint(content)
    path = folder / "checkpoints" / "best.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def write_images(folder, count=COUNT, size=SIZE):
    """Writes the rendered images of the validation split as PNG files, in order. Returns the folder."""
    data = Shapes("val", size=size, length={"val": count})
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(folder / f"{i:03}.png"), data.load(i)["image"][..., ::-1])
    return folder


def write_boxes(path, count=COUNT, size=SIZE):
    """Writes the boxes of the rendered images as a JSON file. Returns its path."""
    data = Shapes("val", size=size, length={"val": count})
    path.write_text(json.dumps({f"{i:03}.png": [data.load(i)["box"].tolist()] for i in range(count)}))
    return path


def write_video(path, count=5, size=(48, 64)):
    """Writes a video of gray frames that become lighter. Returns its path."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (size[1], size[0]))
    for i in range(count):
        writer.write(np.full((*size, 3), 40 * i, np.uint8))
    writer.release()
    return path
