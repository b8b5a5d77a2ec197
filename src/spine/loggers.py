"""Where scalars go besides the CSV file that every run writes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger


def tensorboard(folder: str) -> TensorBoardLogger:
    """TensorBoard's event files, in <folder>/tensorboard."""
    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def wandb(
    folder: str,
    *,
    project: str = "spine",
    name: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    online: bool = False,
    timeout: int = 20,
) -> WandbLogger:
    """Weights & Biases, offline unless asked. Never a prompt and never a hang: without a key, or without an answer within
    `timeout` seconds, the run is kept offline in <folder>/wandb, and `wandb sync` uploads it later.
    """
    import wandb as library

    run: Any = None
    options: dict[str, Any] = {
        "dir": folder, "project": project, "name": name or Path(folder).name, "entity": entity, "group": group, "tags": tags or None,
    }  # fmt: skip
    library.finish()  # a sweep's last run, in the same process
    if online and not (os.environ.get("WANDB_API_KEY") or library.api.api_key):
        print("W&B has no API key (run `wandb login`, or set WANDB_API_KEY); this run is kept offline.")
        online = False
    if online:
        try:
            run = library.init(mode="online", settings=library.Settings(init_timeout=timeout), **options)
        except library.errors.Error as error:
            print(f"W&B did not answer ({error}); this run is kept offline.")
    if run is None:
        run = library.init(mode="offline", settings=library.Settings(silent=True), **options)
    return WandbLogger(experiment=run)
