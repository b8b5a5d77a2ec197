"""A stand-in for Lightning's Trainer, with what data modules read of it."""

from types import SimpleNamespace

import torch


def fake_trainer(rank=0, world=1, overfit_batches=0, folder=""):
    """Returns a Trainer of process `rank` of `world` on the CPU, whose run folder is `folder`."""
    return SimpleNamespace(
        global_rank=rank,
        world_size=world,
        num_devices=1,
        overfit_batches=overfit_batches,
        default_root_dir=str(folder),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
