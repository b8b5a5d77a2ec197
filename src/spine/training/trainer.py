"""Lightning's Trainer with spine's callbacks and loggers."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import Strategy

from spine.components import check_arguments
from spine.errors import InputError
from spine.option_types import Config
from spine.tasks.base import Task
from spine.training.batch_norm import BatchNormReport, require_batch_norm
from spine.training.checkpoints import LAST, AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, TopCheckpoints
from spine.training.divergence import LossCheck
from spine.training.early_stopping import EarlyStopping
from spine.training.ema import MovingAverage
from spine.training.figures import PredictionFigures
from spine.training.freezing import Freeze
from spine.training.global_batch import GlobalBatch
from spine.training.loggers.metrics_file import MetricsFile
from spine.training.loggers.run_logger import run_loggers
from spine.training.progress import RunProgress
from spine.training.pruning import pruning
from spine.training.random_state import RandomState
from spine.training.run_report import RunReport
from spine.training.skipping import SkipBadSteps
from spine.training.step_statistics import StepStatistics
from spine.training.stopping import StopOnSignal

HIDDEN_WARNINGS = (  # patterns
    ".*LeafSpec.*",
    ".*does not have many workers.*",
    ".*It is recommended to use .*sync_dist=True.*",  # the metrics are gathered already
    ".*You have overridden `on_after_batch_transfer` in `LightningModule`.*",  # the hook of the task is meant
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*Experiment logs directory .* exists and is not empty.*",
    ".*dirpath has changed.*",  # the command reports this itself
    ".*callbacks used to create the checkpoint need to be provided.*",  # the timer of max_time
    ".*nn.functional.all_gather is deprecated.*",  # Lightning calls it
    ".*FSDP2-wrapped module .* returned a view tensor.*",  # no network changes the output of a block in place
    ".*number of training batches .* is smaller than the logging interval.*",
)


def make_trainer(
    config: Config,
    folder: Path,
    task: Task,
    loggers: Sequence[Logger] = (),
    callbacks: Sequence[Callback] = (),
    kept_rows: int = 0,
) -> pl.Trainer:
    """Creates Lightning's Trainer for a plain configuration.

    It always writes metrics.csv to `folder`.

    `loggers`, `callbacks`: used in addition to those of spine. `kept_rows`: number of rows of an
    existing metrics.csv that are kept, if a run is resumed. Raises InputError if the trainer does
    not take a key of `config["trainer"]`.
    """
    options = _lightning_options(config["trainer"])
    check_arguments(pl.Trainer.__init__, options, "trainer")
    metrics = MetricsFile(folder / "metrics.csv", kept_rows)
    for logger in loggers:
        logger.log_hyperparams(config)
    for logger in run_loggers(loggers):
        logger.start(task.monitor, task.mode, metrics.kept)
    return pl.Trainer(
        default_root_dir=str(folder),
        logger=[metrics, *loggers],
        callbacks=[
            *_standard_callbacks(config, folder, task, loggers, metrics),
            *pruning(config, folder, task.monitor),
            *callbacks,
        ],
        enable_progress_bar=False,  # RunProgress draws it
        plugins=[AtomicCheckpointIO(), *_environment()],
        enable_model_summary=False,
        use_distributed_sampler=False,
        **{**options, "strategy": _strategy(options)},
    )


def _lightning_options(trainer: Config) -> Config:
    """Returns the arguments of Lightning's Trainer. Validations after optimizer steps are counted in batches there.

    `GlobalBatch` multiplies them by the number of batches of a step.
    """
    options = {key: value for key, value in trainer.items() if key != "val_every_n_steps"}
    if options.get("max_steps") is None:
        options["max_steps"] = -1
    if (every := trainer.get("val_every_n_steps")) is not None:
        limit = options["max_steps"]
        options["val_check_interval"] = min(every, limit) if limit > 0 else every
        options["check_val_every_n_epoch"] = None
    return options


def _environment() -> list[SLURMEnvironment]:
    """Returns SLURM's environment without Lightning's requeueing, where Lightning would choose it.

    Its handlers save and requeue inside the signal handler; `training.preemption` does it after the step.
    """
    chosen = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if chosen else []


def _strategy(options: Config) -> str | Strategy:
    """Returns the strategy of the trainer. Raises InputError if it does not support the precision."""
    strategy: str = options.get("strategy", "auto")
    if strategy != "fsdp":
        return strategy
    if options["precision"] in ("16-mixed", "16", 16):
        raise InputError(
            f"trainer.strategy is fsdp, which does not train with trainer.precision={options['precision']}. "
            f"Use bf16-mixed, bf16-true or 32-true, or trainer.strategy=ddp."
        )
    from spine.training.fsdp import FullySharded  # takes half a second

    return FullySharded()


def _standard_callbacks(
    config: Config, folder: Path, task: Task, loggers: Sequence[Logger], metrics: MetricsFile
) -> list[Callback]:
    """Returns the callbacks that every run has."""
    normalization = config["dataset"]["mean"], config["dataset"]["std"]
    statistics, random_state = StepStatistics(), RandomState(config["seed"])
    saving, checkpoints = config["callbacks"], folder / "checkpoints"
    every = saving.get("checkpoint_every_minutes"), saving.get("checkpoint_every_steps")
    last = LastCheckpoint(checkpoints / LAST, metrics, *every)
    dataset, progress = config["dataset"], RunProgress(sys.stdout.isatty(), statistics)
    skipping = SkipBadSteps() if saving.get("on_nan") == "skip" else None
    losses = LossCheck(folder, config["seed"], config["trainer"]["log_every_n_steps"], saving.get("spike_threshold"), skipping)
    callbacks: list[Callback] = [
        GlobalBatch(
            dataset.get("global_batch_size"), dataset["batch_size"]
        ),  # first: others measure the gradients that it scales
        BatchNormReport(config["trainer"].get("sync_batchnorm", False)),
        PredictionFigures(
            str(folder / "figures"), *normalization, loggers, saving["figure_every_n_epochs"], dataset.get("channels", "rgb")
        ),
        statistics,  # before the gradients of a bad step are dropped
        *([skipping] if skipping else []),
        losses,
        *_recipe_callbacks(config, task),
        progress,
        random_state,
        StopOnSignal(last, random_state),
    ]
    if config["trainer"]["limit_val_batches"] != 0:
        callbacks.append(BestCheckpoint(checkpoints, task.monitor, task.mode))
        if (keep := saving.get("keep_best", 1)) > 1:
            callbacks.append(
                TopCheckpoints(checkpoints, task.monitor, task.mode, keep, config["trainer"].get("val_every_n_steps") is not None)
            )
    callbacks.append(last)  # after BestCheckpoint, because last.ckpt stores the best metric so far
    if (minutes := saving.get("report_every_minutes")) is not None:
        callbacks.append(RunReport(folder, minutes, metrics, progress))
    return callbacks


def _recipe_callbacks(config: Config, task: Task) -> list[Callback]:
    """Returns the callbacks of a recipe that a run has only if they are configured.

    Raises InputError for early stopping without validation, and for the statistics of batch norm without
    batch norm.
    """
    options = config["callbacks"]
    if options.get("reestimate_batch_norm") is not None:
        require_batch_norm(task)
    found: list[Callback] = []
    if (freeze := options.get("freeze")) is not None:
        found.append(Freeze(**freeze))
    if (ema := options.get("ema")) is not None:
        found.append(MovingAverage(**ema))
    if (early := options.get("early_stopping")) is not None:
        if config["trainer"]["limit_val_batches"] == 0:
            raise InputError(
                "callbacks.early_stopping needs validations, and trainer.limit_val_batches is 0. Set one of them to another value."
            )
        found.append(EarlyStopping(task.monitor, task.mode, **early))
    return found


def silence_libraries() -> None:
    """Hides messages of Lightning that do not help the user.

    These are advice on workers, tips, device lists and pending deprecations.
    """
    for pattern in HIDDEN_WARNINGS:
        warnings.filterwarnings("ignore", pattern)
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
