"""Weights & Biases."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from spine.console import process_rank

log = logging.getLogger(__name__)


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

    if process_rank() > 0:  # Lightning's logger makes no run on the other processes
        return WandbLogger(save_dir=folder, offline=True)
    run: Any = None
    options: dict[str, Any] = {
        "dir": folder, "project": project, "name": name or Path(folder).name, "entity": entity, "group": group, "tags": tags or None,
    }  # fmt: skip
    library.finish()  # a sweep's last run, in the same process
    if online and not (os.environ.get("WANDB_API_KEY") or library.api.api_key):
        log.warning("W&B has no API key (run `wandb login`, or set WANDB_API_KEY); this run is kept offline.")
        online = False
    if online:
        try:
            run = library.init(mode="online", settings=library.Settings(init_timeout=timeout), **options)
        except library.errors.Error as error:
            log.warning("W&B did not answer (%s); this run is kept offline.", error)
    if run is None:
        run = library.init(mode="offline", settings=library.Settings(silent=True), **options)
    run.define_metric("trainer/global_step")  # WandbLogger does this only for runs that it starts itself
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run)
