"""Draws docs/images/results.png from three trained checkpoints: segmentation, keypoints, masked reconstruction.

    python examples/results_figure.py seg=<best.ckpt> pose=<best.ckpt> mae=<best.ckpt> out=docs/images/results.png

Only outputs of the networks are drawn, no images of the data sets: their licenses do not allow redistribution.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.commands.eval import checkpoint_config
from spine.config.building import build_run
from spine.config.completion import complete
from spine.data.collation import collate
from spine.data.sampler import Draw
from spine.reporting.figures import palette
from spine.tasks.mae.patches import patchify, unpatchify

COLUMNS = 6


def main(arguments: list[str]) -> None:
    """Draws one row for each task."""
    paths = dict(argument.split("=", 1) for argument in arguments)
    figure = Figure(figsize=(12, 5.6), dpi=100, layout="constrained")
    axes = figure.subplots(3, COLUMNS, gridspec_kw={"height_ratios": [0.75, 1, 0.74]})
    rows = {"seg": ("segmentation", segmented), "pose": ("face keypoints", heatmaps), "mae": ("reconstruction", reconstructed)}
    for line, (task, (title, draw)) in zip(axes, rows.items(), strict=True):
        for axis, image in zip(line, draw(*loaded(paths[task])), strict=True):
            axis.imshow(image, cmap="inferno", vmin=0, vmax=1 if image.ndim == 2 else None)
            axis.set(xticks=[], yticks=[])
            for side in axis.spines.values():
                side.set_visible(False)
        line[0].set_ylabel(title)
    figure.savefig(paths["out"])


def loaded(path: str):
    """The task of a checkpoint in evaluation mode, and a batch of validation samples from different parts of the split."""
    config = OmegaConf.to_container(OmegaConf.create(checkpoint_config(path)), resolve=True)
    run = build_run(complete(config), "val")
    run.task.load_state_dict(read_checkpoint(path)["state_dict"])
    samples = run.data.transformed("val")
    indices = np.linspace(0, len(samples) - 1, COLUMNS).astype(int)
    return run.task.eval(), collate([samples[Draw(0, int(index))] for index in indices])


def segmented(task, batch):
    """Predicted class maps, in colors."""
    with torch.no_grad():
        masks = task.predict_batch(batch)["mask"].numpy()
    return palette(len(task.labels.mask_classes), task.labels.palette)[masks]


def heatmaps(task, batch):
    """The maximum of the predicted heatmaps."""
    with torch.no_grad():
        return task.model(batch["image"]).float().amax(1).clamp(0, 1).numpy()


def reconstructed(task, batch):
    """The predictions for all patches: three quarters of them were masked."""
    with torch.no_grad():
        prediction = task.model(batch["image"], batch["patch_mask"]).float()
    if task.norm_pix_loss:
        variance, mean = torch.var_mean(patchify(batch["image"], task.model.patch_size), dim=-1, keepdim=True)
        prediction = prediction * (variance + 1e-6).sqrt() + mean
    images = unpatchify(prediction, task.model.patch_size, task.model.grid)
    mean, std = (torch.tensor(task.config["dataset"][key]).view(1, -1, 1, 1) for key in ("mean", "std"))
    return (images * std + mean).clamp(0, 1).permute(0, 2, 3, 1).numpy()


if __name__ == "__main__":
    Path("docs/images").mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:])
