"""Trains one run, or goes on with it."""

from __future__ import annotations

import copy
import logging
import math
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spine import console, report
from spine.commands.evaluate import measure
from spine.config import messages
from spine.config.building import build, build_trainer
from spine.config.checks import check
from spine.config.resolving import plain
from spine.config.resume import changed_on_resume, read_checkpoint
from spine.config.source import keep_interpolations
from spine.config.targets import named
from spine.errors import InputError, RunStopped, stop_behind
from spine.training.run_folder import RunFolder, command, without_nan

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from spine.tasks.base import Task

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float | None:
    """Trains one run; returns the value of optimized_metric, for sweepers. In its folder: metrics, curves, pictures, checkpoints.

    A finished run prints its results; an unfinished one goes on from its last checkpoint; `restart=true` starts over.
    """
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    source: dict[str, Any] = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    with folder.locked():
        if cfg.restart and console.process_rank() == 0 and (beside := folder.set_aside()) is not None:
            log.info("Starting over; the earlier run was moved to %s", beside)
        with console.kept_in(folder.path / "train.log"):
            folder.error.unlink(missing_ok=True)
            try:
                return run(plain(cfg), folder, source)
            except Exception as error:
                reason = messages.sentence(error) or f"{type(error).__name__}: {error}"
                if console.process_rank() == 0:
                    _write_error(folder, reason)
                raise


def _write_error(folder: RunFolder, reason: str) -> None:
    try:
        folder.error.write_text(reason + "\n")
    except OSError:  # a full disk must not hide the error itself
        log.warning("'%s' could not be written.", folder.error)


def run(config: dict[str, Any], folder: RunFolder, source: dict[str, Any] | None = None) -> float | None:
    """Trains or resumes one run of a plain configuration in `folder`; returns the value of optimized_metric, if one is named.

    `source` is the configuration with its interpolations, kept in checkpoints. Raises InputError for a user's mistake and
    RunStopped after a signal.
    """
    start = time.perf_counter()
    if (done := _finished(config, folder)) is not None:
        return _optimized(config, done)
    resume = _checkpoint_to_resume(config, folder)
    before = copy.deepcopy(config)  # checks and building add what they find out
    given, config["ckpt_path"] = config["ckpt_path"], resume
    check(config)  # before Lightning, which takes seconds to import
    config["ckpt_path"] = given
    rows = rows_of(config, resume) if resume is not None else 0
    import pytorch_lightning as pl

    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    task, data = build(config)
    task.config_source = keep_interpolations(source or before, before, config)
    in_place = resume is not None and Path(resume).resolve().parent == folder.last.parent.resolve()
    trainer = build_trainer(config, folder.path, task, kept_rows=rows if in_place else 0)
    if trainer.is_global_zero:
        folder.write_json(folder.path / "config.json", config)
        folder.write_provenance()
        if task.weights is not None:
            log.info("%s", task.weights)
            (folder.path / "weights.txt").write_text(task.weights.full())
        _announce(config, task, data, folder.path)
    if config["trainer"]["limit_val_batches"] != 0:
        data.transformed("val")  # what is wrong with the validation data is found before an epoch was trained
    try:
        trainer.fit(task, data, ckpt_path=resume, weights_only=True if resume else None)
        _raise_if_signalled(trainer)
        values = _evaluate_best(config, trainer, task, data, folder)
    except BaseException as error:
        if (stop := stop_behind(error)) is None:
            raise
        raise RunStopped(stop.signal_number, _report_stop(stop, trainer, folder)) from None
    if trainer.is_global_zero:
        _write_results(config, trainer, task, folder, values, time.perf_counter() - start)
    return _optimized(config, values)


# ---- what an earlier start left --------------------------------------------------------------------------------------


def _finished(config: dict[str, Any], folder: RunFolder) -> dict[str, float] | None:
    """Prints and returns the results of a run that is finished; None where there is something to train."""
    content = folder.read_results()
    if content is None or config["trainer"]["fast_dev_run"]:
        return None
    if content.get("stopped_by_max_time") not in (None, config["trainer"]["max_time"]):
        return None  # it was stopped by another max_time: there is time again
    values = {key: math.nan if value is None else value for key, value in content["metrics"].items()}
    if console.process_rank() == 0:
        report.print_results(folder.path, content["monitor"], values, content["seconds"])
        log.info("This run is finished; nothing was done. restart=true trains it again and keeps this folder beside.")
    return values


def _checkpoint_to_resume(config: dict[str, Any], folder: RunFolder) -> str | None:
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


def rows_of(config: dict[str, Any], path: str) -> int:
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


def _evaluate_best(config: dict[str, Any], trainer: pl.Trainer, task: Task, data: Any, folder: RunFolder) -> dict[str, float]:
    """Metrics of the best checkpoint on the validation split. Where no epoch was validated, those of the last."""
    logged = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
    if config["trainer"]["fast_dev_run"] or config["trainer"]["limit_val_batches"] == 0:
        return logged
    loggers, trainer.loggers = trainer.loggers, []  # the curves end with training; what follows is the result
    values = measure(trainer, task, data, "val", _best_path(trainer) or str(folder.last))
    trainer.loggers = loggers
    if trainer.is_global_zero:
        report.log_summary(loggers, values)
    return values


def _best_path(trainer: pl.Trainer) -> str:
    """The best checkpoint, the empty string where no validation came to one."""
    from spine.training.checkpoints import BestCheckpoint

    found = [callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]  # type: ignore[attr-defined]
    return found[0].best_model_path if found else ""


def _write_results(
    config: dict[str, Any], trainer: pl.Trainer, task: Task, folder: RunFolder, values: dict[str, float], seconds: float
) -> None:
    report.draw_curves(folder.path)
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
    report.print_results(folder.path, task.monitor, values, seconds)


def _optimized(config: dict[str, Any], values: dict[str, float]) -> float | None:
    metric = config["optimized_metric"]
    if metric is not None and metric not in values:
        raise InputError(f"optimized_metric '{metric}' was not measured. Choices: {', '.join(sorted(values))}.")
    return values[metric] if metric else None


def _report_stop(stop: RunStopped, trainer: pl.Trainer, folder: RunFolder) -> str:
    """Writes stopped.json and the curves so far; returns where the run stands and how it goes on."""
    number = stop.signal_number
    step, epoch = trainer.global_step, trainer.current_epoch + 1
    if trainer.is_global_zero:
        report.draw_curves(folder.path)
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


def _announce(config: dict[str, Any], task: Task, data: Any, folder: Path) -> None:
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    backbone, size = config["backbone"], config["image_size"]
    log.info(
        "%s %s + %s, %.2f M parameters, task %s, %dx%d pixels, %d training samples, precision %s\n%s",
        named(backbone), backbone.get("variant"), named(config["head"]), parameters / 1e6, task.name, *size,
        len(data.split("train")), config["trainer"]["precision"], folder,
    )  # fmt: skip
