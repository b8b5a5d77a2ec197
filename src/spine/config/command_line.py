"""Runs a command with Hydra.

Mistakes end in one message, signals in a report of where the run stopped, sweeps in one table.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from spine import console, plugins
from spine.command_lines import quote_path
from spine.config import messages, optuna_sweeper, overrides, resolving, sweep_jobs  # noqa: F401  (registers the resolvers)
from spine.config.conf_folder import conf_folder
from spine.errors import STOP_SIGNALS, RunStopped
from spine.reporting.sweeps import report_sweep


class PluginConfigs(SearchPathPlugin):
    """Adds the `conf` folders of plug-ins to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra before it composes a configuration."""
        for folder in plugins.conf_folders():
            search_path.append("spine-plugin", f"file://{folder}")


def run_command(name: str, function: Callable[[DictConfig], object], before: Callable[[list[str]], None] | None = None) -> None:
    """Composes conf/<name>.yaml with the command line and calls `function` with it.

    `before` is called with the arguments first. Exits with 0, with 1 after an error, or with 128 and
    the number of a signal: 130 after Ctrl-C, 143 after SIGTERM.
    """
    # the other processes of a run inherit the variable from the first one, which sets it
    traced = os.environ.get("HYDRA_FULL_ERROR") == "1" and console.process_rank() == 0
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes its errors on, and they are printed here
    SweepTable.traced = traced
    messages.command = name
    console.show_messages()
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    sweep_jobs.watch_parent()
    sys.argv[1:] = overrides.quote_for_hydra(sys.argv[1:])  # in place: the processes of ddp are started with it
    try:
        plugins.from_command_line(sys.argv[1:])
        if PluginConfigs not in Plugins.instance().discover(SearchPathPlugin):
            Plugins.instance().register(PluginConfigs)
        optuna_sweeper.register()
        if before is not None:
            before(sys.argv[1:])
        hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=name)(function)()
        SweepTable.raise_if_failed()
        SweepTable.raise_if_stopped()
    except RunStopped as stop:
        _exit(stop)
    except Exception as error:
        if (stopped := SweepTable.stopped()) is not None:
            _exit(stopped)
        if traced or (code := _report(error)) is None:
            raise
        sys.exit(code)
    finally:
        SweepTable.show()


def _is_training_together() -> bool:
    """Returns whether this process has begun to communicate with the others of its run. Does not import torch."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and distributed.is_initialized()


def _report(error: Exception) -> int | None:
    """Prints the message for an error and returns the exit code. Returns None for an error that needs its traceback."""
    message, of_job = messages.user_message(error), sweep_jobs.PARENT in os.environ
    if message is None and not of_job:
        return None
    shown = message or f"{type(error).__name__}: {error}\nThe traceback is in train.log of the run folder."
    if console.process_rank() == 0:
        print(f"\n{shown}\n(HYDRA_FULL_ERROR=1 shows the full trace.)", file=sys.stderr)
    elif _is_training_together():  # the error may be on this process only, for example a broken image
        print(f"\nProcess {console.process_rank()}: {shown}", file=sys.stderr)
    return sweep_jobs.MISTAKE if message is not None and of_job else 1


def _exit(stop: RunStopped) -> NoReturn:
    """Ends the process after a signal, with a message and the exit code of the signal."""
    stop = SweepTable.stopped() or stop
    if console.process_rank() == 0:
        print(f"\n{stop.message}", file=sys.stderr)
    sys.exit(stop.code)


def _stop(number: int, frame: FrameType | None) -> None:
    """Ends the process while no training is running; a training handles the signals itself."""
    raise RunStopped(number)


class SweepTable(Callback):
    """Prepares the processes of a sweep, and prints one table of its runs at the end."""

    folder: Path | None = None
    traced = False  # keep the traces of failed jobs, for HYDRA_FULL_ERROR=1
    error: BaseException | None = None  # of the run, outside of sweeps

    def on_multirun_start(self, config: DictConfig, **kwargs: object) -> None:
        """Called by Hydra before the first job."""
        SweepTable.folder = Path(config.hydra.sweep.dir)
        if sweep_jobs.launched_together():
            return
        folder = SweepTable.folder.resolve()
        searched = map(str, OmegaConf.select(config, "sweep.space") or ())
        swept = [*overrides.swept_keys(config.hydra.overrides.task), *searched]
        sweep_jobs.start_sweep(str(folder), swept, self.traced)
        # jobs are composed again, in other processes too, where sys.argv is not that of this command
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote_path(folder)}")

    @staticmethod
    def stopped() -> RunStopped | None:
        """Returns the stop if a signal has stopped the sweep, otherwise None."""
        return sweep_jobs.started_here.stopped() if sweep_jobs.started_here is not None else None

    @classmethod
    def raise_if_stopped(cls) -> None:
        """Raises RunStopped if a signal has stopped the sweep."""
        if (stop := cls.stopped()) is not None:
            raise stop

    @classmethod
    def raise_if_failed(cls) -> None:
        """Raises the error of the run, outside of sweeps, and forgets it."""
        error, cls.error = cls.error, None
        if error is not None:
            raise error

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: object) -> None:
        """Frees the memory of a failed job, and keeps the error of a single run.

        Hydra keeps the error of a job to the end, and with it every tensor of its frames. It would print all overrides before the
        error of a single run.
        """
        if reader := sys.modules.get("spine.checkpoints.reader"):
            reader.forget_last_file()  # a file that was read and not loaded
        if job_return.status == JobStatus.FAILED and not self.traced:
            error = job_return._return_value
            while isinstance(error, BaseException):
                error.__traceback__ = None
                error = error.__cause__ or error.__context__
        if job_return.status == JobStatus.FAILED and config.hydra.mode == RunMode.RUN:
            SweepTable.error, job_return.status = job_return._return_value, JobStatus.COMPLETED

    @classmethod
    def show(cls) -> None:
        """Prints the table if there was a sweep, after its jobs have ended."""
        objectives = None
        if (process := sweep_jobs.started_here) is not None:
            objectives = process.objectives
            process.close()
        if cls.folder is None or console.process_rank() > 0:
            return
        report_sweep(cls.folder, objectives)
        cls.folder = None
