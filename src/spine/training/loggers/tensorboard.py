"""TensorBoard logger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from spine.option_types import Config
from spine.training.loggers.run_logger import LoggedRun, Row, RunLogger


class TensorBoard(TensorBoardLogger, RunLogger):
    """Writes scalars, pictures and hyperparameters to <run folder>/tensorboard.

    A resumed run hides the events after its checkpoint from TensorBoard. Events up to the
    checkpoint are on disk, because every checkpoint calls `save`.
    """

    @rank_zero_only
    def start(self, monitor: str, mode: str, rows: Sequence[Row]) -> None:
        """Hides the events of steps that the resumed run repeats."""
        if not rows:
            return
        last = int(rows[-1]["step"])
        # Within an epoch, a validation may follow the checkpoint at the same step. At the end of an
        # epoch nothing follows, and the pictures of this step are kept.
        first_hidden = last + 1 if "train/loss" in rows[-1] else last
        self._kwargs["purge_step"] = first_hidden  # of the writer, which Lightning makes when it is first used
        for row in rows:
            if row["step"] >= first_hidden:
                self.log_metrics({key: value for key, value in row.items() if key != "step"}, int(row["step"]))

    @rank_zero_only
    def log_figure(self, name: str, image: np.ndarray, step: int) -> None:
        """Logs a picture."""
        self.experiment.add_image(name, image, max(0, step - 1), dataformats="HWC")  # at the step of the metrics

    @rank_zero_only
    def log_results(self, config: Config, values: Mapping[str, float]) -> None:
        """Logs the hyperparameters with the results, for the HParams tab."""
        self.log_hyperparams(config, dict(values))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the events in memory to disk. The file stays open for the results."""
        self.save()

    @rank_zero_only
    def finish(self, succeeded: bool) -> None:
        """Closes the file."""
        super().finalize("success" if succeeded else "failed")


def tensorboard(run: LoggedRun) -> TensorBoard:
    """Creates a logger that writes event files to <run folder>/tensorboard."""
    return TensorBoard(str(run.folder), name="tensorboard", version="", default_hp_metric=False)
