"""Trains a run, or resumes it."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spine import console
from spine.checkpoints.run_checkpoint import TOKENIZER_COPY, tokenizer_of_run
from spine.command_lines import shell_command
from spine.config import messages, sweep_jobs
from spine.config.command_line import run_command
from spine.config.rerun import find_original, register_run, report, take_original, warn_of_omissions
from spine.config.resolving import to_plain
from spine.config.source import keep_interpolations
from spine.errors import InputError, RunStopped, find_stop
from spine.reporting.report.origin import next_commands
from spine.reporting.tables import print_results
from spine.training.preemption import hand_over
from spine.training.run_folder import PruneReport, RunFolder, StopReport, TrainingResults, without_nan

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from spine.config.building import Run
    from spine.option_types import Config

log = logging.getLogger(__name__)


def main() -> None:
    """Runs the command with the arguments of the command line."""
    if find_original(sys.argv[1:]) is None:
        run_command("train", train)
    else:
        run_command("rerun", train, register_run)


def train(cfg: DictConfig) -> float | None:
    """Trains one run and returns the value of optimized_metric, for sweepers.

    Writes metrics, curves, figures and checkpoints.

    For a finished run, prints its results. An unfinished run is resumed from its last checkpoint.
    `restart=true` starts over. A job of a sweep runs in a process of its own. `rerun=<run folder>`
    repeats a finished run and compares the two.
    """
    original = take_original(cfg)
    folder = RunFolder(Path(HydraConfig.get().runtime.output_dir))
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        if not sweep_jobs.launched_together():
            return _run_job(to_plain(cfg), folder)
        sweep_jobs.prepare_task()
    source: Config = OmegaConf.to_container(cfg, resolve=False)  # type: ignore[assignment]
    with folder.locked():
        if cfg.restart and console.process_rank() == 0 and (backup := folder.back_up()) is not None:
            log.info("Starting over; the earlier run was moved to %s", backup)
        with console.log_to_file(folder.path / "train.log"):
            folder.error.unlink(missing_ok=True)
            try:
                value = train_run(to_plain(cfg), folder, source, original)
            except RunStopped as stop:
                requeued = hand_over(stop.signal_number, cfg.callbacks.get("on_preemption") == "requeue")
                stop.message = f"{stop.message}\n{requeued}" if requeued else stop.message
                raise
            except Exception as error:
                if console.process_rank() == 0:
                    folder.write_error(messages.user_message(error) or f"{type(error).__name__}: {error}")
                    _write_report(folder)
                raise
            if original is not None and console.process_rank() == 0:
                report(original, folder, [*map(str, HydraConfig.get().overrides.task)])
            return value


def _run_job(config: Config, folder: RunFolder) -> float | None:
    """Runs a job of a sweep in a process of its own, unless it is finished."""
    from spine.config.resume import finished_results

    console.show_messages()  # in a worker of joblib
    if folder.pruned.is_file() and not config["restart"]:
        log.info("This run was pruned; nothing was done. %s", folder.path)
        return None
    if config["restart"] or finished_results(config, folder) is None:
        sweep_jobs.run_job(folder, config["sweep"]["retries"], config["sweep"]["gpus_per_job"])
    results = folder.read_results()
    return _optimized_value(config, results["metrics"]) if results is not None else None


def train_run(config: Config, folder: RunFolder, source: Config | None = None, original: RunFolder | None = None) -> float | None:
    """Trains or resumes one run of a plain configuration in `folder`.

    Returns the value of optimized_metric, if it is set.

    `source`: the configuration with its interpolations, for the checkpoints. `original`: the run
    that this one repeats. Raises InputError for a mistake of the user, and RunStopped after a
    signal.
    """
    from spine.config.checks import prepare  # imports pydantic
    from spine.config.resume import checkpoint_to_resume, finished_results, metrics_rows

    start = time.perf_counter()
    if (metrics := finished_results(config, folder)) is not None:
        if (results := folder.read_results()) is not None and console.process_rank() == 0:
            _print_next_steps(folder, Path(results["checkpoint"]))
        return _optimized_value(config, metrics)
    checkpoint = checkpoint_to_resume(config, folder)
    config = {**config, "tokenizer": tokenizer_of_run(config, folder.path)}
    complete = {**prepare({**config, "ckpt_path": checkpoint}), "ckpt_path": config["ckpt_path"]}
    rows = metrics_rows(complete, checkpoint) if checkpoint is not None else 0
    import pytorch_lightning as pl

    from spine.config.building import build_run, build_trainer  # imports Lightning, which takes seconds
    from spine.config.start import record_start
    from spine.training.loggers.run_logger import finished_at_end
    from spine.training.pruning import pruned_epoch
    from spine.training.trainer import silence_libraries

    silence_libraries()
    pl.seed_everything(config["seed"], verbose=False)
    run = build_run(complete)
    run.task.config_source = keep_interpolations(source or config, config, run.config)
    in_place = checkpoint is not None and Path(checkpoint).resolve().parent == folder.last.parent.resolve()
    trainer = build_trainer(run.config, folder.path, run.task, kept_rows=rows if in_place else 0)
    with finished_at_end(trainer.loggers):
        if trainer.is_global_zero:
            if original is not None:
                warn_of_omissions(original, run.config)
            _write_start(run, trainer, folder)
            _write_changes(config, folder)
            record_start(run, trainer, folder, original)
        values = _fit_and_evaluate(run, trainer, folder, checkpoint)
        if (epoch := pruned_epoch(trainer)) is not None:
            if trainer.is_global_zero:
                _write_pruned(run, folder, epoch, values)
            return None
        if trainer.is_global_zero:
            _write_results(run, trainer, folder, values, time.perf_counter() - start)
    return _optimized_value(config, values)


def _fit_and_evaluate(run: Run, trainer: pl.Trainer, folder: RunFolder, checkpoint: str | None) -> dict[str, float]:
    """Trains, and returns the metrics of the best checkpoint, or of the last epoch if the run was pruned.

    Raises RunStopped after a signal.
    """
    from spine.data.checks.quick import warn_of_faults
    from spine.evaluation.evaluate import evaluate_split
    from spine.training.pruning import pruned_epoch

    if run.config["trainer"]["limit_val_batches"] != 0:
        run.data.transformed("val")  # reports mistakes in the validation data before the first epoch
    if checkpoint is None:
        warn_of_faults(run.data.opened)
    try:
        if not run.task.trains:
            return evaluate_split(trainer, run.task, run.data, "val")
        trainer.fit(run.task, run.data, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        _raise_if_signaled(trainer)
        if pruned_epoch(trainer) is not None:
            return _logged_metrics(trainer)
        return _evaluate_best(run, trainer, folder)
    except BaseException as error:
        if (stop := find_stop(error)) is None:
            raise
        raise RunStopped(stop.signal_number, _report_stop(stop, trainer, folder)) from None


def _write_start(run: Run, trainer: pl.Trainer, folder: RunFolder) -> None:
    """Writes config.json, weights.txt and the copy of the tokenizer, and logs a summary of the run."""
    from spine.checkpoints.tokenizer_files import save_tokenizer  # imports torch
    from spine.config.building import find_protocol
    from spine.models.assembly import network_of

    folder.write_json(folder.path / "config.json", run.config)
    folder.pruned.unlink(missing_ok=True)
    if run.task.tokenizer is not None and not (copy := folder.path / TOKENIZER_COPY).is_file():
        save_tokenizer(run.task.tokenizer.network, copy)
    if run.load_report is not None:
        log.info("%s", run.load_report)
        (folder.path / "weights.txt").write_text(run.load_report.details())
    if find_protocol(run.config) is not None and run.load_report is None:
        log.warning("The backbone is random: protocol=%s needs backbone.weights=<file>.", run.config["protocol"]["name"])
    config, parameters = run.config, sum(parameter.numel() for parameter in run.task.model.parameters())
    log.info(
        "%s, %.2f M parameters, task %s, %dx%d pixels, %d training samples, precision %s\n%s",
        network_of(config, config["num_outputs"]).summary, parameters / 1e6, run.task.name, *config["image_size"],
        len(run.data.split("train")), config["trainer"]["precision"], folder.path,
    )  # fmt: skip
    if evaluation := run.task.describe_evaluation():
        log.info("Evaluation: %s", evaluation)
    if (size := config["optimizer"].get("lr_batch_size")) is not None:
        lr, samples = _learning_rate(run, trainer)
        log.info("Learning rate %g for steps of %d samples (%g for %d)", lr, samples, config["optimizer"]["lr"], size)


def _write_changes(config: Config, folder: RunFolder) -> None:
    """Writes changes.json: in what the configuration of a command line of train.py differs from the defaults."""
    if not HydraConfig.initialized() or HydraConfig.get().job.config_name != "train":
        return
    from spine.config.changes import find_changes

    try:
        changes = find_changes(config, HydraConfig.get().runtime.choices)
    except Exception as error:  # of Hydra: the report is not worth the run
        log.warning("The report will not show what differs from the defaults: %s", error)
        return
    folder.write_json(folder.path / "changes.json", changes)


def _learning_rate(run: Run, trainer: pl.Trainer) -> tuple[float, int]:
    """Returns the learning rate of parameters whose `lr_scale` is 1, and the samples of an optimizer step."""
    from spine.training.global_batch import count_step_samples
    from spine.training.optimizers import scale_lr

    samples, options = count_step_samples(run.config, trainer.world_size), run.config["optimizer"]
    return scale_lr(options["lr"], options.get("lr_batch_size"), samples), samples


# End of the run


def _raise_if_signaled(trainer: pl.Trainer) -> None:
    """Raises RunStopped if a signal ended training at the end of an epoch.

    Lightning treats this as a normal end.
    """
    from spine.training.stopping import StopOnSignal

    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StopOnSignal) and callback.received is not None:
            raise RunStopped(callback.received)


def _evaluate_best(run: Run, trainer: pl.Trainer, folder: RunFolder) -> dict[str, float]:
    """Returns the metrics of the checkpoint in `_evaluated_path` on the validation split.

    With callbacks.reestimate_batch_norm, first estimates its statistics of batch norm again. Without a
    validation split or with fast_dev_run, returns the logged metrics.
    """
    from spine.evaluation.evaluate import evaluate_checkpoint
    from spine.training.batch_norm import reestimate_batch_norm

    config = run.config
    if config["trainer"]["fast_dev_run"] or config["trainer"]["limit_val_batches"] == 0:
        return _logged_metrics(trainer)
    if (batches := config["callbacks"].get("reestimate_batch_norm")) is not None:
        run.data.trainer = trainer  # the loader needs the number of processes
        reestimate_batch_norm(trainer, run.task, run.data, Path(_best_path(trainer) or folder.last), batches)
    loggers, trainer.loggers = trainer.loggers, []  # the curves end with training; the results are logged separately
    values = evaluate_checkpoint(trainer, run.task, run.data, "val", _evaluated_path(run, trainer, folder))
    trainer.loggers = loggers
    return values


def _evaluated_path(run: Run, trainer: pl.Trainer, folder: RunFolder) -> str:
    """Returns the path of the best checkpoint, or of the last one if no validation finished, or an empty string.

    With callbacks.reestimate_batch_norm, that of the checkpoint with the new statistics.
    """
    from spine.training.batch_norm import REESTIMATED

    path = _best_path(trainer) or (str(folder.last) if folder.last.is_file() else "")
    reestimated = folder.last.with_name(REESTIMATED)
    return str(reestimated) if run.config["callbacks"].get("reestimate_batch_norm") and reestimated.is_file() else path


def _logged_metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}


def _best_path(trainer: pl.Trainer) -> str:
    """Returns the path of the best checkpoint, or an empty string if no validation finished."""
    from spine.training.checkpoints import BestCheckpoint

    found = [callback for callback in trainer.callbacks if isinstance(callback, BestCheckpoint)]  # type: ignore[attr-defined]
    return found[0].best_model_path if found else ""


def _write_results(run: Run, trainer: pl.Trainer, folder: RunFolder, values: dict[str, float], seconds: float) -> None:
    """Writes curves.png, prints the results, and writes metrics.json, which marks a finished run, and its report."""
    from spine.data.skipping import report_unreadable  # imports torch
    from spine.reporting.curves import draw_curves  # imports matplotlib, which takes a second
    from spine.training.costs import latency_ms, run_costs
    from spine.training.early_stopping import stopped_early
    from spine.training.loggers.run_logger import log_results, logged_results

    draw_curves(folder.path)
    report_unreadable(folder.path)
    monitor, (lr, step_samples) = run.task.monitor, _learning_rate(run, trainer)
    early = stopped_early(trainer)
    reached_end = early or trainer.current_epoch >= (trainer.max_epochs or 0) > 0 or trainer.global_step >= trainer.max_steps > 0
    results: TrainingResults = {
        "metrics": without_nan(values),
        "monitor": monitor,
        "mode": run.task.mode,
        "seconds": seconds,
        "checkpoint": _evaluated_path(run, trainer, folder),
        "weights": "average" if run.config["callbacks"].get("ema") else "trained",
        "evaluation": run.task.describe_evaluation(),
        "lr": lr,
        "step_samples": step_samples,
        "stopped_early": early,
        "epochs": trainer.current_epoch,
        "max_epochs": trainer.max_epochs if run.task.trains else 0,  # 0: more epochs would change nothing
        "steps": trainer.global_step,
        "max_steps": trainer.max_steps,
        "stopped_by_max_time": None if reached_end else run.config["trainer"]["max_time"],
        "costs": run_costs(run.task, folder.path / "metrics.csv", trainer.strategy.root_device),
    }
    if "latency_ms" in ((run.config.get("sweep") or {}).get("objectives") or ()):
        results["costs"]["latency_ms"] = latency_ms(trainer, run.task, run.config["image_size"])
    folder.stopped.unlink(missing_ok=True)
    print_results(folder.path, monitor, values, seconds, results["evaluation"])
    log_results(trainer.loggers, run.config, logged_results(results))
    folder.write_json(folder.results, results)
    _write_report(folder)
    _print_next_steps(folder, Path(results["checkpoint"]))


def _write_pruned(run: Run, folder: RunFolder, epoch: int, values: dict[str, float]) -> None:
    """Writes curves.png and pruned.json."""
    from spine.reporting.curves import draw_curves

    draw_curves(folder.path)
    report: PruneReport = {"epoch": epoch, "metrics": without_nan(values), "monitor": run.task.monitor, "mode": run.task.mode}
    folder.write_json(folder.pruned, report)
    folder.stopped.unlink(missing_ok=True)
    _write_report(folder)
    log.info("Pruned after epoch %d: other trials were better at this epoch. Run folder: %s", epoch, folder.path)


def _write_report(folder: RunFolder) -> None:
    """Writes report.html, from the other files of the folder, if the run has begun."""
    if (folder.path / "starts.json").is_file():
        from spine.training.run_report import write_quietly

        write_quietly(folder.path)


def _print_next_steps(folder: RunFolder, checkpoint: Path) -> None:
    """Prints the path of the report, and the commands that evaluate, predict with, and export the best checkpoint."""
    steps = {"report": str(folder.path / "report.html")}
    if checkpoint.is_file():
        steps |= next_commands(checkpoint, shell_command(()))
    log.info("%s", "\n".join(f"{name.capitalize():9}{text}" for name, text in steps.items()))


def _optimized_value(config: Config, values: Mapping[str, float | None]) -> float | None:
    metric = config["optimized_metric"]
    if metric is not None and metric not in values:
        raise InputError(f"optimized_metric '{metric}' was not measured. Choices: {', '.join(sorted(values))}.")
    return values[metric] if metric else None


def _report_stop(stop: RunStopped, trainer: pl.Trainer, folder: RunFolder) -> str:
    """Writes stopped.json and curves.png, and returns the message for the user.

    The message has the state of the run and the command that resumes it.
    """
    step, epoch, command = trainer.global_step, trainer.current_epoch + 1, resume_command(folder.path)
    if trainer.is_global_zero:
        from spine.reporting.curves import draw_curves

        draw_curves(folder.path)
        report: StopReport = {
            "signal": signal.Signals(stop.signal_number).name,
            "epoch": epoch,
            "steps": step,
            "metrics": without_nan(_logged_metrics(trainer)),
            "command": command,
        }
        folder.write_json(folder.stopped, report)
        _write_report(folder)
    saved = f"The state is in {folder.last}." if folder.last.is_file() else "No checkpoint was written yet."
    epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
    trained = (epochs is not None and epochs < epoch) or 0 < trainer.max_steps <= step
    where = "during the final evaluation" if trained else f"in epoch {epoch}" + (f" of {epochs}" if epochs else "")
    return f"{stop.message} {where}, after step {step}. {saved} Resume with:\n    {command}"


def resume_command(folder: Path) -> str:
    """Returns the command that resumes a run.

    It leaves out `restart=true`, and names the folder of a job of a sweep.
    """
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        arguments = [*map(str, HydraConfig.get().overrides.task), f"hydra.run.dir={folder}"]
    else:
        arguments = sys.argv[1:]
    return shell_command(argument for argument in arguments if not argument.startswith(("restart=", "hydra.output_subdir=")))
