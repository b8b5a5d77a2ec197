"""Trains one run, or goes on with it."""

from __future__ import annotations

import logging
import math
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spine import console
from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.components import component_name
from spine.config import messages
from spine.config.checks import prepare
from spine.config.command_line import run_command
from spine.config.resolving import plain
from spine.config.resume import changed_on_resume
from spine.config.schemas import Config
from spine.config.source import keep_interpolations
from spine.errors import InputError, RunStopped, stop_behind
from spine.reporting.tables import print_results
from spine.training.run_folder import RunFolder, command, without_nan

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from spine.config.building import Run
    from spine.tasks.base import Task

log = logging.getLogger(__name__)


def main() -> None:
    """Runs the command with the arguments of the command line."""
    run_command("train", train)


def train(cfg: DictConfig) -> float | None:
    """Trains one run; returns the value of optimized_metric, for sweepers. In its folder: metrics, curves, pictures, checkpoints.

    A finished run prints its results; an unfinished one goes on from its last checkpoint; `restart=true` starts over.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    source: Config = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    with folder.locked():
        if cfg.restart and console.process_rank() == 0 and (beside := folder.set_aside()) is not None:
            log.info("Starting over; the earlier run was moved to %s", beside)
        with console.kept_in(folder.path / "train.log"):
            folder.error.unlink(missing_ok=True)
            try:
                return train_run(plain(cfg), folder, source)
            except Exception as error:
                reason = messages.user_message(error) or f"{type(error).__name__}: {error}"
                if console.process_rank() == 0:
                    _write_error(folder, reason)
                raise


def _write_error(folder: RunFolder, reason: str) -> None:
    try:
        folder.error.write_text(reason + "\n")
    except OSError:  # a full disk must not hide the error itself
        log.warning("'%s' could not be written.", folder.error)


def train_run(config: Config, folder: RunFolder, source: Config | None = None) -> float | None:
    """Trains or resumes one run of a plain configuration in `folder`; returns the value of optimized_metric, if one is named.

    `source` is the configuration with its interpolations, kept in checkpoints. Raises InputError for a user's mistake and
    RunStopped after a signal.
    """
    start = time.perf_counter()
    if (done := _finished(config, folder)) is not None:
        return _optimized(config, done)
    checkpoint = _checkpoint_to_resume(config, folder)
    complete = {**prepare({**config, "ckpt_path": checkpoint}), "ckpt_path": config["ckpt_path"]}
    rows = rows_of(complete, checkpoint) if checkpoint is not None else 0
    import pytorch_lightning as pl

    from spine.config.building import build_run, build_trainer  # imports Lightning, which takes seconds
    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    run = build_run(complete)
    run.task.config_source = keep_interpolations(source or config, config, run.config)
    in_place = checkpoint is not None and Path(checkpoint).resolve().parent == folder.last.parent.resolve()
    trainer = build_trainer(run.config, folder.path, run.task, kept_rows=rows if in_place else 0)
    if trainer.is_global_zero:
        _write_start(run, folder)
    values = _fit_and_evaluate(run, trainer, folder, checkpoint)
    if trainer.is_global_zero:
        _write_results(run.config, trainer, run.task, folder, values, time.perf_counter() - start)
    return _optimized(config, values)


def _fit_and_evaluate(run: Run, trainer: pl.Trainer, folder: RunFolder, checkpoint: str | None) -> dict[str, float]:
    """Trains, and returns the metrics of the best checkpoint. Raises RunStopped after a signal."""
    if run.config["trainer"]["limit_val_batches"] != 0:
        run.data.transformed("val")  # mistakes in the validation data are found before an epoch is trained
    try:
        trainer.fit(run.task, run.data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        _raise_if_signalled(trainer)
        return _evaluate_best(run, trainer, folder)
    except BaseException as error:
        if (stop := stop_behind(error)) is None:
            raise
        raise RunStopped(stop.signal_number, _report_stop(stop, trainer, folder)) from None


def _write_start(run: Run, folder: RunFolder) -> None:
    folder.write_json(folder.path / "config.json", run.config)
    folder.write_provenance()
    if run.load_report is not None:
        log.info("%s", run.load_report)
        (folder.path / "weights.txt").write_text(run.load_report.details())
    _announce(run, folder.path)


# ---- what an earlier start left --------------------------------------------------------------------------------------


def _finished(config: Config, folder: RunFolder) -> dict[str, float] | None:
    """Prints and returns the results of a run that is finished; None where there is something to train."""
    content = folder.read_results()
    if content is None or config["trainer"]["fast_dev_run"]:
        return None
    if content.get("stopped_by_max_time") not in (None, config["trainer"]["max_time"]):
        return None  # it was stopped by another max_time: there is time again
    values = {key: math.nan if value is None else value for key, value in content["metrics"].items()}
    if console.process_rank() == 0:
        print_results(folder.path, content["monitor"], values, content["seconds"])
        log.info("This run is finished; nothing was done. restart=true trains it again and keeps this folder beside.")
    return values


def _checkpoint_to_resume(config: Config, folder: RunFolder) -> str | None:
    """last.ckpt of the folder, else the ckpt_path of the configuration, else None."""
    given = config["ckpt_path"]
    if config["trainer"]["fast_dev_run"]:
        return given
    if folder.last.is_file():
        if given not in (None, "last") and Path(given).resolve() != folder.last.resolve():
            log.warning("ckpt_path is not used: this run has begun already. restart=true starts it over from ckpt_path.")
        log.info("Resuming from %s", folder.last)
        return str(folder.last)
    if given == "last":
        return None
    if given is not None:
        log.info("Resuming from %s; best.ckpt will be the best of what this run trains.", given)
    return given


def rows_of(config: Config, path: str) -> int:
    """How many rows of metrics.csv belong to a checkpoint that training goes on from.

    InputError where it cannot be resumed: it holds weights only, or it was made with other settings of optimizer or schedule,
    whose states come with it.
    """
    state = read_checkpoint(path)
    if "loops" not in state or "optimizer_states" not in state:
        raise InputError(f"'{path}' holds weights only and cannot be resumed. Start a run from it with backbone.weights={path}.")
    if changed := changed_on_resume(state["config"], config):
        raise InputError(
            f"Optimizer and schedule of a resumed run come from its checkpoint, and this command changes them: {'; '.join(changed)}. "
            f"Resume with the values of the checkpoint, or start another run from its weights with backbone.weights={path}."
        )
    return state.get("metrics_rows", 0)


# ---- the end of a run ------------------------------------------------------------------------------------------------


def _raise_if_signalled(trainer: pl.Trainer) -> None:
    """A signal that came at the end of an epoch ends training as if it were finished."""
    from spine.training.stopping import StopOnSignal

    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StopOnSignal) and callback.received is not None:
            raise RunStopped(callback.received)


def _evaluate_best(run: Run, trainer: pl.Trainer, folder: RunFolder) -> dict[str, float]:
    """Metrics of the best checkpoint on the validation split. If no epoch was validated, those of the last epoch."""
    from spine.evaluation.evaluate import evaluate_checkpoint

    config = run.config
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
    if config["trainer"]["fast_dev_run"] or config["trainer"]["limit_val_batches"] == 0:
        return logged
    loggers, trainer.loggers = trainer.loggers, []  # the curves end with training; what follows is the result
    values = evaluate_checkpoint(trainer, run.task, run.data, "val", _best_path(trainer) or str(folder.last))
    trainer.loggers = loggers
    if trainer.is_global_zero:
        from spine.training.loggers.media import log_summary

        log_summary(loggers, values)
    return values


def _best_path(trainer: pl.Trainer) -> str:
    """The best checkpoint, the empty string where no validation came to one."""
    from spine.training.checkpoints import BestCheckpoint

    found = [callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]  # type: ignore[attr-defined]
    return found[0].best_model_path if found else ""


def _write_results(
    config: Config, trainer: pl.Trainer, task: Task, folder: RunFolder, values: dict[str, float], seconds: float
) -> None:
    from spine.reporting.curves import draw_curves  # matplotlib takes a second

    draw_curves(folder.path)
    best = _best_path(trainer)
    limits = (trainer.max_epochs, trainer.max_steps)
    reached = trainer.current_epoch >= (limits[0] or 0) > 0 or trainer.global_step >= limits[1] > 0
    content = {
        "metrics": without_nan(values),
        "monitor": task.monitor,
        "seconds": seconds,
        "checkpoint": best or (str(folder.last) if folder.last.is_file() else ""),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "stopped_by_max_time": config["trainer"]["max_time"] if not reached else None,
    }
    folder.write_json(folder.results, content)
    folder.stopped.unlink(missing_ok=True)
    print_results(folder.path, task.monitor, values, seconds)


def _optimized(config: Config, values: dict[str, float]) -> float | None:
    metric = config["optimized_metric"]
    if metric is not None and metric not in values:
        raise InputError(f"optimized_metric '{metric}' was not measured. Choices: {', '.join(sorted(values))}.")
    return values[metric] if metric else None


def _report_stop(stop: RunStopped, trainer: pl.Trainer, folder: RunFolder) -> str:
    """Writes stopped.json and the curves so far; returns where the run stands and how it goes on."""
    number = stop.signal_number
    step, epoch = trainer.global_step, trainer.current_epoch + 1
    if trainer.is_global_zero:
        from spine.reporting.curves import draw_curves

        draw_curves(folder.path)
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
        content = {
            "signal": signal.Signals(number).name,
            "epoch": epoch,
            "steps": step,
            "metrics": without_nan(values),
            "command": resume_command(folder.path),
        }
        folder.write_json(folder.stopped, content)
    kept = f"The state is in {folder.last}." if folder.last.is_file() else "No checkpoint was written yet."
    trained = trainer.max_epochs is not None and 0 < trainer.max_epochs < epoch
    where = "while the result was evaluated" if trained else f"in epoch {epoch} of {trainer.max_epochs}"
    return f"{stop.message} {where}, after step {step}. {kept} Go on with:\n    {resume_command(folder.path)}"


def resume_command(folder: Path) -> str:
    """The command that goes on with a run, without `restart=true`, which would start it over. A job of a sweep is named by its folder."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        arguments = [*map(str, HydraConfig.get().overrides.task), f"hydra.run.dir={folder}"]
    else:
        arguments = sys.argv[1:]
    return command(argument for argument in arguments if not argument.startswith("restart="))


def _announce(run: Run, folder: Path) -> None:
    config, parameters = run.config, sum(parameter.numel() for parameter in run.task.model.parameters())
    log.info(
        "%s %s + %s, %.2f M parameters, task %s, %dx%d pixels, %d training samples, precision %s\n%s",
        component_name("backbone", config["backbone"]["_target_"]), config["backbone"].get("variant"),
        component_name("head", config["head"]["_target_"]), parameters / 1e6, run.task.name, *config["image_size"],
        len(run.data.split("train")), config["trainer"]["precision"], folder,
    )  # fmt: skip
