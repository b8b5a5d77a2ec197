"""Callback that ends trials of a study that are not promising."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl

from spine.option_types import Config
from spine.training.study import STUDY, load_study


class PruneTrial(pl.Callback):
    """Reports a metric to the study after each validation, and ends the run if its pruner says so."""

    def __init__(self, folder: Path, metric: str, pruner: str, epochs: int):
        """`folder`: of the run, in the folder of the sweep. `metric`: the objective of the study."""
        self.folder, self.metric, self.pruner, self.epochs = folder, metric, pruner, epochs
        self.pruned_epoch: int | None = None  # counted from 1

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports the metric. The epoch ends as usual, with its checkpoint."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        epoch, prune = trainer.current_epoch + 1, False
        if trainer.is_global_zero:
            prune = self._report(epoch, float(trainer.callback_metrics[self.metric]))
        if trainer.strategy.broadcast(prune):
            self.pruned_epoch = epoch
            trainer.should_stop = True

    def _report(self, epoch: int, value: float) -> bool:
        """Returns whether the trial of this run is to be pruned. A resumed run may have reported the epoch before."""
        import optuna

        study = load_study(self.folder.parent, self.pruner, self.epochs)
        for found in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if found.user_attrs.get("folder") == self.folder.name:
                trial = optuna.trial.Trial(study, found._trial_id)
                if epoch not in found.intermediate_values:
                    trial.report(value, epoch)
                return trial.should_prune()
        return False


def pruning(config: Config, folder: Path, monitor: str) -> list[pl.Callback]:
    """Returns the callback of a trial of a study with a pruner, and nothing for other runs. `monitor`: of the task."""
    sweep = config.get("sweep") or {}
    if sweep.get("pruner") is None or not (folder.parent / STUDY).is_file():
        return []
    metric = next(iter(sweep["objectives"] or [monitor]))
    return [PruneTrial(folder, metric, sweep["pruner"], config["trainer"]["max_epochs"])]


def pruned_epoch(trainer: pl.Trainer) -> int | None:
    """Returns the epoch after which a run was pruned, or None."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, PruneTrial)]  # type: ignore[attr-defined]
    return found[0].pruned_epoch if found else None
