"""Weights & Biases logger."""

from __future__ import annotations

import logging
import netrc
import os
import secrets
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spine.console import process_rank
from spine.option_types import Config
from spine.tasks.samples import SampleView
from spine.training.loggers.run_logger import LoggedRun, Row, RunLogger
from spine.training.loggers.wandb_media import confusion_plot, sample_image, sample_table

if TYPE_CHECKING:
    from wandb import Run, Settings

log = logging.getLogger(__name__)
ID_FILE = "wandb_id.txt"  # in the run folder; restart=true moves it away with the earlier run
EARLIER = "earlier"  # folder in <run folder>/wandb; `wandb sync` does not look into it
MAX_ID = 64  # characters
MAX_CONFUSION_CLASSES = 50  # the table of the plot has a row for each pair of classes
LogModel = Literal["all"] | bool


class WandbRun(WandbLogger, RunLogger):
    """Logs the rows of metrics.csv to one W&B run, which a resumed run continues.

    W&B's own step is twice the number of the row; what is logged between two rows has the odd
    number between theirs. Rows that W&B already has are not sent again: a resumed run repeats them
    with the same values. Rows up to the checkpoint that it does not have are sent from metrics.csv.
    """

    def __init__(self, run: Run | None = None, log_model: LogModel = False):
        """`run`: None on all processes but the first."""
        super().__init__(experiment=run, log_model=log_model)
        self.rows = 0
        self.first_missing = run.starting_step if run is not None else 0  # W&B's step

    @rank_zero_only
    def start(self, monitor: str, mode: str, rows: Sequence[Row]) -> None:
        """Defines the metrics, and sends the rows of a resumed run that W&B does not have."""
        run, axis = self.experiment, "trainer/global_step"
        run.define_metric(axis)
        run.define_metric("*", step_metric=axis, step_sync=True)
        best = {"val/loss": "min", monitor: "max" if mode == "max" else "min"}
        for name, summary in best.items():
            run.define_metric(name, step_metric=axis, step_sync=True, summary=f"{summary},last")
        for row in rows:
            self.log_metrics({key: value for key, value in row.items() if key != "step"}, int(row["step"]))

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs a row, as MetricsFile does."""
        if 2 * self.rows >= self.first_missing:
            self.experiment.log({**metrics, "trainer/global_step": step}, step=2 * self.rows, commit=True)
        self.rows += 1

    def _log_between_rows(self, name: str, make: Callable[[], object], step: int) -> None:
        """Logs a picture or a table. A failure is reported and does not end the run: online, tables need the server."""
        number = max(0, 2 * self.rows - 1)
        if number < self.first_missing:
            return
        try:
            self.experiment.log({name: make(), "trainer/global_step": max(0, step - 1)}, step=number, commit=False)
        except Exception as error:  # whatever the network, the server and the disk raise
            log.warning("W&B did not take '%s' (%s). It is in the run folder.", name, type(error).__name__)

    @rank_zero_only
    def log_figure(self, name: str, image: np.ndarray, step: int) -> None:
        """Logs a picture."""
        import wandb

        self._log_between_rows(name, partial(wandb.Image, image), step)

    @rank_zero_only
    def log_samples(self, name: str, samples: Sequence[SampleView], step: int) -> None:
        """Logs a table of samples whose losses are known; of others, images with masks or keypoints as layers."""
        if all(sample.loss is not None for sample in samples):
            self._log_between_rows(name, partial(sample_table, samples), step)
        elif any(sample.masks or sample.keypoints for sample in samples):
            self._log_between_rows(name, lambda: [sample_image(sample) for sample in samples], step)

    @rank_zero_only
    def log_confusion(self, name: str, counts: np.ndarray, classes: Sequence[str], step: int) -> None:
        """Logs W&B's plot of a confusion matrix, with at most MAX_CONFUSION_CLASSES classes."""
        if len(classes) <= MAX_CONFUSION_CLASSES:
            self._log_between_rows(name, partial(confusion_plot, counts, classes), step)

    @rank_zero_only
    def log_results(self, config: Config, values: Mapping[str, float]) -> None:
        """Writes the results to the summary of the run."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def finish(self, succeeded: bool) -> None:
        """Ends the run, so that a following run of the same process has its own."""
        self.experiment.finish(exit_code=0 if succeeded else 1)


def wandb(
    run: LoggedRun,
    *,
    project: str = "spine",
    name: str | None = None,
    entity: str | None = None,
    group: str | None = None,
    tags: list[str] | None = None,
    online: bool = False,
    timeout: int = 20,
    log_model: LogModel = False,
) -> WandbRun:
    """Creates a Weights & Biases logger, offline by default. It never prompts and never blocks.

    Without an API key, or without a response within `timeout` seconds, the run is stored offline in
    <run folder>/wandb; `wandb sync` uploads it later. `log_model`: True uploads the best
    checkpoint, "all" every checkpoint that was the best; both need `online`.
    """
    if process_rank() > 0:  # every call of wandb.init would make a run
        return WandbRun()
    import wandb as library

    leave_service_of_parent()
    start = partial(
        library.init, dir=str(run.folder), id=run_id(run), project=project, entity=entity, name=name or run.name,
        group=group or run.group, job_type=run.job_type, tags=tags or None, reinit="finish_previous",
    )  # fmt: skip
    set_aside_earlier_parts(run.folder / "wandb")
    started = None
    if online and (reason := obstacle(library.setup().settings, timeout)):
        log.warning("%s This run is stored offline.", reason)
    elif online:
        try:
            started = start(mode="online", resume="allow", settings=library.Settings(init_timeout=timeout))
        except Exception as error:  # of the network, the server or W&B's service
            library.teardown()  # otherwise, W&B's service refuses the id of the run
            log.warning("W&B did not respond (%s). This run is stored offline.", str(error).splitlines()[0])
    if started is None:
        if log_model:
            log.warning(
                "logger.wandb.log_model uploads checkpoints, which is possible online only: it has no effect on this run."
            )
        # Without `resume`, `wandb sync` replaces what the server has of this run. An offline part
        # always holds the whole run.
        started = start(mode="offline", settings=library.Settings(silent=True))
        log_model = False
    return WandbRun(started, log_model)


def leave_service_of_parent() -> None:
    """Makes W&B start a service for this process.

    A process that was started by another one with W&B would use the service of that one. There, the
    run of a killed process stays in use, so that it could not be resumed.
    """
    if f"-{os.getpid()}-" not in os.environ.get("WANDB_SERVICE", ""):
        os.environ.pop("WANDB_SERVICE", None)


def run_id(run: LoggedRun) -> str:
    """Returns the id of the W&B run in a run folder: the name of the folder and a random suffix.

    A run that is resumed in its folder has the same id. Within a sweep of `wandb agent`, the agent
    determines it.
    """
    if chosen := os.environ.get("WANDB_RUN_ID"):
        return chosen
    path = run.folder / ID_FILE
    if not path.is_file():
        suffix = secrets.token_hex(3)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{run.folder.name[: MAX_ID - len(suffix) - 1]}-{suffix}\n")
    return path.read_text().strip()


def set_aside_earlier_parts(folder: Path) -> None:
    """Moves what earlier starts of a run stored to the folder `earlier`.

    The next part holds all their rows again. `wandb sync` fails for the part of a process that was
    killed before W&B wrote anything to disk.
    """
    for part in [*folder.glob("offline-run-*"), *folder.glob("run-*")]:
        (folder / EARLIER).mkdir(exist_ok=True)
        part.rename(folder / EARLIER / part.name)


def obstacle(settings: Settings, timeout: int) -> str | None:
    """Returns why W&B cannot be used online: there is no API key, or no connection. None if nothing is known."""
    host = urllib.parse.urlsplit(settings.base_url)
    if not (settings.api_key or settings.identity_token_file or _in_netrc(host.hostname or "")):
        return "W&B has no API key (run `wandb login`, or set WANDB_API_KEY)."
    if urllib.request.getproxies():  # the proxy knows whether the server can be reached
        return None
    try:
        with socket.create_connection((host.hostname, host.port or 443), timeout=min(timeout, 5)):
            return None
    except OSError as error:
        return f"{settings.base_url} cannot be reached ({error})."


def _in_netrc(host: str) -> bool:
    """Returns whether the user's netrc file has a password for a host. `wandb login` writes it there."""
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
