"""Runs each job of a sweep in a process of its own.

A job that crashes, runs out of memory or breaks its GPU then ends alone, and a job with several
devices starts its other processes with its own command line. This is the same for every launcher
of Hydra: `run_job` is called where the launcher runs a job, starts its process and waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig

from spine import plugins
from spine.command_lines import quote_path
from spine.config import messages
from spine.config.conf_folder import conf_folder
from spine.config.gpu_slots import own_gpus
from spine.console import show_messages
from spine.errors import STOP_SIGNALS, InputError, RunStopped
from spine.training.preemption import deferred, hand_over
from spine.training.run_folder import RunFolder

VARIABLE = "SPINE_SWEEP"  # environment variable with a Sweep as JSON; workers of joblib and tasks of submitit inherit it
PARENT = "SPINE_JOB_PARENT"  # environment variable of the process of a job: the id of the process that started it
MISTAKE = 2  # exit code of the process of a job after a mistake of the user, which is not tried again
INTERVAL = 0.2  # seconds between looks at the process of a job
NOT_FOR_JOBS = ("hydra.mode", "hydra.run", "hydra.sweep", "hydra.sweeper", "hydra/sweeper", "hydra.launcher", "hydra/launcher")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What every process of a sweep knows about it."""

    folder: str
    command: list[str]  # that started it, without overrides: [python, train.py]
    swept: list[str]  # the keys in which the jobs differ
    traced: bool = False  # whether HYDRA_FULL_ERROR=1 asks for tracebacks on the terminal

    @classmethod
    def current(cls) -> Sweep | None:
        """Returns the sweep to which this process belongs, or None."""
        return cls(**json.loads(os.environ[VARIABLE])) if VARIABLE in os.environ else None

    @property
    def stop_file(self) -> Path:
        """A file with the number of the signal that stops the sweep.

        All its processes see it, on other machines too. It stays until the sweep is started again,
        so that jobs that still wait in the queue of a cluster do not begin.
        """
        return Path(self.folder) / ".stop"

    def stop_signal(self) -> int | None:
        """Returns the number of the signal that stops the sweep, or None if it goes on."""
        try:
            return int(self.stop_file.read_text())
        except (OSError, ValueError):
            return None


class SweepProcess:
    """The process in which a sweep was started. When it gets a signal, it asks the jobs to stop."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep
        os.environ[VARIABLE] = json.dumps(asdict(sweep))
        Path(sweep.folder).mkdir(parents=True, exist_ok=True)
        sweep.stop_file.unlink(missing_ok=True)
        self.received: int | None = None
        self.objectives: dict[str, str] | None = None  # of a study: names of metrics and costs -> max or min
        self.previous = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Asks all jobs to stop after their step. A second signal ends the sweep at once."""
        if self.received is not None:
            raise RunStopped(number)
        self.received = number
        part = self.sweep.stop_file.with_name(".stop.part")
        part.write_text(str(number))
        part.replace(self.sweep.stop_file)

    def stopped(self) -> RunStopped | None:
        """Returns the stop of the sweep with a message, or None if no signal has arrived."""
        if self.received is None:
            return None
        stop = RunStopped(self.received)
        stop.message = f"The sweep was s{stop.message[1:]}. The same command continues it and does not repeat finished jobs."
        return stop

    def close(self) -> None:
        """Waits until stopped jobs have saved their states, and restores the signal handlers."""
        global started_here
        if self.received is not None:
            for job in Path(self.sweep.folder).glob("*/.lock"):
                RunFolder(job.parent).wait_until_free(timeout=60)
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        os.environ.pop(VARIABLE, None)
        started_here = None


started_here: SweepProcess | None = None  # if a sweep was started in this process
_parent = os.getppid()  # of a worker of joblib: the process in which the sweep was started


def _signal_for_jobs(sweep: Sweep) -> int | None:
    """Returns the signal that stops the sweep: the one that it got, or SIGTERM for a worker that was left alone."""
    orphaned = started_here is None and os.getppid() != _parent
    return sweep.stop_signal() or (signal.SIGTERM if orphaned else None)


def start_sweep(folder: str, swept: list[str], traced: bool = False) -> None:
    """Prepares this process and those that it starts for a sweep. See `Sweep`."""
    global started_here
    started_here = SweepProcess(Sweep(folder, _started_as(), swept, traced))


def _started_as() -> list[str]:
    """Returns the command that started this process, without its arguments."""
    spec = sys.modules["__main__"].__spec__
    script = [os.path.abspath(sys.argv[0])] if spec is None else ["-m", spec.name.removesuffix(".__main__")]
    command = os.environ.get("SPINE_COMMAND")  # `spine train` removes its first argument
    return [sys.executable, *script, *([command] if command else [])]


def launched_together() -> bool:
    """Returns whether torchrun or SLURM started this process as one of several. They run jobs together, in place."""
    return "LOCAL_RANK" in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def prepare_task() -> None:
    """Does in one of several tasks of submitit what a command does first: the task runs the job in place."""
    show_messages()
    plugins.from_command_line(map(str, HydraConfig.get().overrides.task))


def run_job(folder: RunFolder, retries: int, gpus: int | None) -> None:
    """Runs the current job of Hydra in a process of its own, and waits until it has finished or stopped.

    A failed job is tried again `retries` times, and resumes from its last checkpoint; mistakes of
    the user are not. `gpus`: the number of GPUs that no other job uses meanwhile; None for all of
    the machine. Raises InputError with the reason if the job failed, and RunStopped if a signal
    stops a sweep that runs its jobs one after the other.
    """
    sweep = Sweep.current()
    assert sweep is not None
    show_messages()  # a worker of joblib has no handler yet
    name = f"#{HydraConfig.get().job.num}" if _in_parallel() else ""
    arguments = job_arguments(folder.path)
    for attempt in range(retries + 1):
        code, preempted = 0, list[int]()
        with own_gpus(gpus, lambda: _signal_for_jobs(sweep) is not None) as environment:
            if _signal_for_jobs(sweep) is None:
                folder.error.unlink(missing_ok=True)
                with deferred() as preempted:
                    code = _supervise([*sweep.command, *arguments], environment, sweep, name, preempted)
        if preempted and code != 0:
            hand_over(preempted[0], requeue=False)  # ends the task of submitit
        if (number := sweep.stop_signal()) is not None and started_here is not None and not _in_parallel():
            raise RunStopped(number)
        if code in (0, *(128 + stop for stop in STOP_SIGNALS), *(-stop for stop in STOP_SIGNALS)):
            return
        reason = _reason(folder, code)
        if code == MISTAKE or attempt == retries:
            raise InputError(f"{folder.path.name}: {reason}")
        log.warning("%sThe run failed (%s). Trying again, %d of %d.", f"{name} " if name else "", reason, attempt + 1, retries)
        arguments = [argument for argument in arguments if not argument.startswith("restart=")]


def job_arguments(folder: Path) -> list[str]:
    """Returns the arguments of the process of the current job: its own overrides and its folder."""
    hydra = HydraConfig.get()
    sources = {source.provider: source.path for source in hydra.runtime.config_sources if source.schema == "file"}
    flags = [f"--config-name={hydra.job.config_name}"] if hydra.job.config_name != messages.command else []
    flags += [f"--config-path={sources['main']}"] if sources.get("main") != str(conf_folder()) else []
    flags += [f"--config-dir={sources['command-line']}"] if "command-line" in sources else []
    kept = [str(each) for each in hydra.overrides.hydra if not str(each).lstrip("+~").startswith(NOT_FOR_JOBS)]
    own = ["hydra.mode=RUN", f"hydra.run.dir={quote_path(folder)}", "hydra.output_subdir=null"]  # Hydra has written .hydra
    return [*flags, *map(str, hydra.overrides.task), *kept, *own]


def watch_parent() -> None:
    """Ends the process of a job with SIGTERM, so that it saves its state, when the process that started it is gone."""
    if os.environ.get(PARENT) != str(os.getppid()):
        return  # not such a process, or one of its own processes for further devices

    def watch() -> None:
        while str(os.getppid()) == os.environ[PARENT]:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _in_parallel() -> bool:
    return not HydraConfig.get().launcher._target_.endswith("BasicLauncher")


def _supervise(command: list[str], environment: dict[str, str], sweep: Sweep, name: str, preempted: list[int]) -> int:
    """Starts the process of a job, passes the signal on that stops the sweep, and returns the exit code.

    The process is in its own session: Ctrl-C reaches it through this process only, exactly once.
    With `name`, each line that it prints begins with the name. `preempted`: gets the number of a
    signal that preempts this process, which is passed on too.
    """
    environment = {**os.environ, **environment, PARENT: str(os.getpid()), "HYDRA_FULL_ERROR": str(int(sweep.traced))}
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"} if name else {}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **output)  # type: ignore[call-overload]
    reader = threading.Thread(target=_print_lines, args=(process.stdout, name), daemon=True)
    if name:
        if threading.current_thread() is threading.main_thread() and started_here is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process in which the sweep was started handles Ctrl-C
        reader.start()
    try:
        _wait(process, sweep, preempted)
    except BaseException as error:  # a second Ctrl-C
        process.send_signal(error.signal_number if isinstance(error, RunStopped) else signal.SIGTERM)
        process.wait()
        raise
    if name:
        reader.join(timeout=5)  # processes that it has left behind may keep its output open
    return process.returncode


def _wait(process: subprocess.Popen, sweep: Sweep, preempted: list[int]) -> None:
    """Waits for the end of a process, and passes a signal on to it once."""
    stopped = False
    while True:
        try:
            process.wait(INTERVAL)
            return
        except subprocess.TimeoutExpired:
            number = _signal_for_jobs(sweep) or next(iter(preempted), None)
            if number is not None and not stopped:
                process.send_signal(number)
                stopped = True


def _print_lines(lines: Iterable[str], name: str) -> None:
    for line in lines:
        print(f"{name} {line}" if line.strip() else "", end="", flush=True)


def _reason(folder: RunFolder, code: int) -> str:
    """Returns why a job failed: what it has written to error.txt, otherwise how its process ended, which is then written there."""
    if folder.error.is_file() and (lines := folder.error.read_text().splitlines()):
        return lines[0]
    reason = f"The process ended with exit code {code}."
    if code < 0:
        reason = f"The process was ended by {signal.Signals(-code).name}."
    if code == -signal.SIGKILL:
        reason += " The system does this when memory runs out, and Lightning when another process of the run has failed."
    folder.write_error(reason)
    return reason
