"""Runs the commands of spine as their users do, in processes that start quickly.

A new interpreter spends most of a short run on importing torch and Lightning. These processes are forked from one that
has imported them. Tests of signals, of laziness of imports and of the launchers start real processes instead. Figures
are left blank unless a test asks for them: drawing takes a third of a short run.
"""

import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.figure

ROOT = Path(__file__).parents[1]
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "quick_compose",
        "torch",
        "torch._dynamo",
        "pytorch_lightning",
        "albumentations",
        "matplotlib.pyplot",
        "matplotlib.backends.backend_agg",
        "pycocotools.cocoeval",
        "spine.commands.train",
        "spine.config.building",
        "spine.evaluation.evaluate",
        "spine.reporting.curves",
        "spine.training.costs",
        "spine.training.trainer",
    ]
)


def run_command(script, *arguments, folder, processes=1, timeout=500, figures=False, **environment):
    """Runs `python <script> <arguments>` in `folder`, or `python -m <module>` if `script` is no file name.

    `figures`: whether figures are drawn, or left blank. With several `processes`, all of them belong to one run, as if torchrun had
    started them. Returns a subprocess.CompletedProcess with what the first process printed, the errors of all of them, and the first
    code that is not 0.
    """
    folder = Path(folder)
    port = _free_port()
    ranks = [_rank(rank, processes, port) for rank in range(processes)] if processes > 1 else [{}]
    arguments = [str(argument) for argument in arguments]
    texts = [folder / f".printed_{os.getpid()}_{rank}" for rank in range(processes)]
    started = []
    for rank, text in zip(ranks, texts, strict=True):
        process = CONTEXT.Process(
            target=_run, args=(str(script), arguments, str(folder), {**os.environ, **environment, **rank}, text, figures)
        )
        process.start()
        started.append(process)
    _wait(started, timeout)
    outputs = [(_take(text.with_suffix(".out")), _take(text.with_suffix(".err"))) for text in texts]
    code = next((process.exitcode for process in started if process.exitcode), 0)
    return subprocess.CompletedProcess([script, *arguments], code, outputs[0][0], "".join(errors for _, errors in outputs))


def _wait(started, timeout):
    """Waits until all processes ended. Ends the others if one failed, and all of them at the timeout."""
    end = time.monotonic() + timeout
    while any(process.is_alive() for process in started) and time.monotonic() < end:
        if any(process.exitcode for process in started):
            end = min(end, time.monotonic() + 30)  # the others may still report an error of their own
        next(process for process in started if process.is_alive()).join(0.05)
    for process in started:
        process.kill()
        process.join()


def _take(path):
    text = path.read_text() if path.is_file() else ""
    path.unlink(missing_ok=True)
    return text


def _rank(rank, processes, port):
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip


def _free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def _run(script, arguments, folder, environment, text, figures):
    """Becomes the process of a command: its own output, folder, environment and arguments."""
    for number, suffix in ((1, ".out"), (2, ".err")):
        file = os.open(text.with_suffix(suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    if not figures:
        matplotlib.figure.Figure.draw = lambda figure, renderer: None
    sys.argv = [script, *arguments]
    if script.endswith(".py"):
        path = ROOT / script
        sys.argv[0] = str(path)
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")
    else:
        sys.path.insert(0, folder)
        runpy.run_module(script, run_name="__main__", alter_sys=True)
