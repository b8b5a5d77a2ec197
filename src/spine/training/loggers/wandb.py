"""Weights & Biases logger."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

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
    """Creates a Weights & Biases logger, offline by default. It never prompts and never blocks.

    Without an API key, or without a response within `timeout` seconds, the run is stored offline in
    <folder>/wandb; `wandb sync` uploads it later.
    """
    import wandb as library

    if process_rank() > 0:  # Lightning's logger starts no run on the other processes
        return WandbLogger(save_dir=folder, offline=True)
    run = None
    start = partial(
        library.init, dir=folder, project=project, name=name or Path(folder).name, entity=entity, group=group, tags=tags or None
    )
    library.finish()  # the previous run of a sweep, in the same process
    if online and not (os.environ.get("WANDB_API_KEY") or library.api.api_key):
        log.warning("W&B has no API key (run `wandb login`, or set WANDB_API_KEY). This run is stored offline.")
        online = False
    if online:
        try:
            run = start(mode="online", settings=library.Settings(init_timeout=timeout))
        except library.errors.Error as error:
            log.warning("W&B did not respond (%s). This run is stored offline.", error)
    if run is None:
        run = start(mode="offline", settings=library.Settings(silent=True))
    run.define_metric("trainer/global_step")  # WandbLogger does this only for runs that it starts itself
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return WandbLogger(experiment=run)
