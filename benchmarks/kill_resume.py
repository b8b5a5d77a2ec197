"""Kills and resumes runs, and compares the results with uninterrupted runs.

    python benchmarks/kill_resume.py --runs 50 --kills-per-run 3 --jobs 2 --seed 0 --log kill_resume.jsonl

Every run is killed several times and started again with the same command until it is finished. It is
killed in training, in validation, while a checkpoint is written, or while it starts, at random moments.
Weights, states of optimizer and schedule, random states and the level of the loss in last.ckpt, all values of metrics.csv
except for the timings, and the metrics in metrics.json must be bit-identical to those of the same run
without an interruption, without workers, and without checkpoints within epochs.

Prints one row of a Markdown table for each run as soon as it is known, and appends it to the log. The
same command continues after the rows of its log. Exits with 1 if any run differs.
"""

from __future__ import annotations

import argparse
import collections
import csv
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
TOKENIZER = Path(tempfile.gettempdir()) / "kill_resume_tokenizer.safetensors"  # random weights; written before the first run
TASKS = {  # options for all random operations of the task
    "cls": ("backbone=vit", "backbone.drop_path_rate=0.1", "backbone.dropout=0.1"),
    "seg": ("backbone=convnext", "backbone.drop_path_rate=0.1", "head=hamburger"),
    "mae": ("backbone=mae",),
    "pose": ("backbone=mobilenet_v2",),
    "beit": ("backbone=beit", "backbone.drop_path_rate=0.1", f"tokenizer={TOKENIZER}"),
}
BATCHES, EPOCHS = 25, 4  # an odd number of batches: with accumulation, the last step of an epoch has one
COMMON = (
    f"dataset.length={{train: {4 * BATCHES}, val: 24, test: 4}}", "dataset.batch_size=4", f"trainer.max_epochs={EPOCHS}",
    "trainer.accelerator=cpu", "trainer.log_every_n_steps=5", f"plugins={ROOT / 'benchmarks' / 'kill_phases'}",
    "+callbacks.more.phase._target_=kill_phases.callbacks.phase_file.PhaseFile",
)  # fmt: skip
TIMINGS = ("train/images_per_s", "train/data_wait")
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step", "random_states")
PLACES = {"training": 5, "validation": 2, "saving": 2, "starting": 1}  # where a run is killed, with weights
TIMEOUT = 600  # seconds


@dataclass(frozen=True)
class Cell:
    """The options of a run. `workers` and `every_steps` must not change its results."""

    task: str
    precision: str
    accumulate: int
    workers: int = 0
    every_steps: int | None = None  # checkpoints within epochs

    def command(self, folder: Path) -> list[str]:
        """Returns the command of the run in a folder."""
        return [
            sys.executable, str(ROOT / "train.py"), f"task={self.task}", *TASKS[self.task], *COMMON,
            f"trainer.precision={self.precision}", f"trainer.accumulate_grad_batches={self.accumulate}",
            f"dataset.num_workers={self.workers}", f"callbacks.checkpoint_every_steps={self.every_steps or 'null'}",
            f"+callbacks.more.phase.path={folder}.phase", f"hydra.run.dir={folder}",
        ]  # fmt: skip

    def reference(self) -> Cell:
        """Returns the cell of the uninterrupted run to compare with."""
        return Cell(self.task, self.precision, self.accumulate)


@dataclass(frozen=True)
class Kill:
    """When a run is killed: in the first phase `place` after a fraction of all training batches, plus a delay."""

    number: signal.Signals
    place: str
    fraction: float
    delay: float  # seconds, up to about the time of a step; for "starting", since the start of the process

    @classmethod
    def draw(cls, rng: random.Random, signals: list[signal.Signals], fraction: float) -> Kill:
        """Draws a kill at a fraction of the run."""
        place = rng.choices(list(PLACES), list(PLACES.values()))[0]
        delay = {"training": rng.uniform(0, 0.08), "validation": rng.uniform(0, 0.05), "starting": rng.uniform(1, 8)}
        return cls(rng.choice(signals), place, fraction, delay.get(place, 0.0))


class Run:
    """One process of a run."""

    def __init__(self, cell: Cell, folder: Path):
        self.cell, self.folder, self.phase_file = cell, folder, Path(f"{folder}.phase")
        self.phase_file.write_text("")
        self.output = Path(f"{folder}.log")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        with self.output.open("w") as file:  # not a pipe, which orphaned workers would keep open
            self.process = subprocess.Popen(
                cell.command(folder), cwd=folder.parent, env=environment, stdout=file, stderr=subprocess.STDOUT
            )

    def phase(self) -> tuple[str, int, int]:
        """Returns phase, epoch and batch; the phase is "starting" before the first batch of this process."""
        words = self.phase_file.read_text().split()
        return (words[0], int(words[1]), int(words[2])) if len(words) == 3 else ("starting", 0, 0)

    def saving(self) -> list[str]:
        """Returns the names of the checkpoints that are being written."""
        return sorted(path.name[1 : -len(".part")] for path in (self.folder / "checkpoints").glob(".*.part"))

    def wait_for(self, kill: Kill) -> None:
        """Returns at the moment of the kill, or when the process has ended."""
        if kill.place == "starting":
            time.sleep(kill.delay)
            return
        while self.process.poll() is None:
            phase, epoch, batch = self.phase()
            done = epoch + (1 if phase == "validation" else batch / BATCHES)
            late_enough = phase != "starting" and done >= kill.fraction * EPOCHS
            if late_enough and (self.saving() if kill.place == "saving" else phase == kill.place):
                time.sleep(kill.delay)
                return
            time.sleep(0.0005 if kill.place == "saving" else 0.003)

    def describe(self) -> str:
        """Returns where the process was killed."""
        phase, epoch, batch = self.phase()
        if files := self.saving():
            return f"writing {files[0]}"
        if phase == "starting":
            return "starting"
        part = f", {batch % self.cell.accumulate + 1} of {self.cell.accumulate} accumulated" if self.cell.accumulate > 1 else ""
        return f"{phase} {epoch + 1}.{batch + 1}{part if phase == 'training' else ''}"

    def finish(self) -> str:
        """Waits for the end of the process. Returns its output. Raises RuntimeError if it failed."""
        code = self.process.wait(TIMEOUT)
        text = self.output.read_text()
        if code != 0:
            raise RuntimeError(f"exit code {code}: {' '.join(text.split())[-300:]}")
        return text


def results(folder: Path) -> dict[str, object]:
    """Returns everything that must be identical."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    watched = {name: value for name, value in state["callbacks"].items() if name.startswith(("LossCheck", "SkipBadSteps"))}
    return {**{key: state[key] for key in COMPARED}, "callbacks": watched, "metrics": rows, "results": metrics}


def difference(one: object, two: object, path: str = "") -> str | None:
    """Describes the first difference between two results.

    Returns None if they are bit-identical.
    """
    if isinstance(one, dict) and isinstance(two, dict):
        if one.keys() != two.keys():
            return f"{path}: other keys"
        return next((d for key in one if (d := difference(one[key], two[key], f"{path}.{key}"))), None)
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(one) != len(two):
            return f"{path}: {len(one)} and {len(two)} entries"
        return next((d for i, pair in enumerate(zip(one, two, strict=True)) if (d := difference(*pair, f"{path}[{i}]"))), None)
    equal = torch.equal(one, two) if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) else one == two
    return None if equal else f"{path}: {one} and {two}"[:200]


class References:
    """The results of uninterrupted runs. Each is trained once, when it is first needed."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.found: dict[Cell, dict[str, object]] = {}
        self.locks: dict[Cell, threading.Lock] = collections.defaultdict(threading.Lock)

    def of(self, cell: Cell) -> dict[str, object]:
        """Returns the results to which those of a cell must be equal."""
        cell = cell.reference()
        with self.locks[cell]:
            if cell not in self.found:
                folder = self.folder / f"{cell.task}_{cell.precision}_{cell.accumulate}"
                Run(cell, folder).finish()
                self.found[cell] = results(folder)
            return self.found[cell]


def killed_run(cell: Cell, folder: Path, kills: list[Kill]) -> list[str]:
    """Trains a run to the end and kills it on the way. Returns where it was killed."""
    events = []
    for kill in kills:
        run = Run(cell, folder)
        run.wait_for(kill)
        if run.process.poll() is not None:
            run.finish()
            return events
        run.process.send_signal(kill.number)
        code = run.process.wait(TIMEOUT)
        if code == 0:  # the process had finished and was exiting
            return events
        if code not in (-kill.number, 128 + kill.number):
            raise RuntimeError(
                f"{kill.number.name} ended with exit code {code}: {' '.join(run.output.read_text().split())[-300:]}"
            )
        events.append(run.describe() if kill.number == signal.SIGKILL else f"{kill.number.name} in {run.describe()}")
    Run(cell, folder).finish()
    return events


def do_run(number: int, cell: Cell, kills: list[Kill], folder: Path, references: References) -> dict[str, object]:
    """Kills a run and compares it. Returns its row for the log."""
    path = folder / f"run_{number}"
    begin = time.monotonic()
    try:
        reference = references.of(cell)
        events = killed_run(cell, path, kills)
        where = difference(reference, results(path))
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        events, where = [], f"failed: {error}"
    if where is None:
        shutil.rmtree(path)
    return {"run": number, **asdict(cell), "kills": events, "difference": where, "seconds": round(time.monotonic() - begin)}


def write_tokenizer() -> None:
    """Writes the tokenizer of task=beit, the same for every call."""
    sys.path.insert(0, str(ROOT / "src"))
    from spine.checkpoints.tokenizer_files import save_tokenizer
    from spine.tokenizers.dvae import DiscreteVAE

    torch.manual_seed(0)
    save_tokenizer(DiscreteVAE("small"), TOKENIZER)


def plan(options: argparse.Namespace) -> list[tuple[int, Cell, list[Kill]]]:
    """Returns number, cell and kills of each run, which depend on the seed only."""
    # half of the cells of each task accumulate gradients; workers vary faster than precision
    cells = [
        Cell(task, precision, 1 + (i + j) % 2, workers)
        for j, precision in enumerate(options.precisions)
        for workers in options.workers
        for i, task in enumerate(options.tasks)
    ]
    signals = [signal.Signals[name] for name in options.signals]
    runs = []
    for number, cell in zip(range(options.runs), itertools.cycle(cells), strict=False):
        rng = random.Random(f"{options.seed} {number}")
        every_steps = rng.choice((None, rng.randint(2, 9)))
        fractions = sorted(rng.uniform(0, 0.95) for _ in range(options.kills_per_run))
        kills = [Kill.draw(rng, signals, fraction) for fraction in fractions]
        runs.append((number, Cell(cell.task, cell.precision, cell.accumulate, cell.workers, every_steps), kills))
    return runs


HEADER = "| run | task | precision | workers | accumulated | saved every | kills | identical |\n|---|---|---|---|---|---|---|---|"


def row(content: dict) -> str:
    """Returns the row of the table for a line of the log."""
    every = f"{content['every_steps']} steps" if content["every_steps"] else "epoch"
    kills = "; ".join(content["kills"]) or "none before the end"
    cells = [content[key] for key in ("task", "precision", "workers", "accumulate")]
    return f"| {' | '.join(map(str, [content['run'] + 1, *cells, every, kills, content['difference'] or 'yes']))} |"


def summary(rows: list[dict]) -> str:
    """Returns one sentence on all runs."""
    kills = [re.sub(r" (\d+\.\d+.*|in )", " ", kill).strip() for content in rows for kill in content["kills"]]
    counts = ", ".join(f"{count} {place}" for place, count in collections.Counter(kills).most_common())
    accumulating = sum(", 1 of 2 accumulated" in kill for content in rows for kill in content["kills"])
    identical = sum(content["difference"] is None for content in rows)
    return (
        f"{identical} of {len(rows)} runs identical, {len(kills)} kills ({counts}; {accumulating} of them between the batches of "
        f"an accumulated step)."
    )


def arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--kills-per-run", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--precisions", nargs="+", default=["32-true", "bf16-mixed"])
    parser.add_argument("--signals", nargs="+", default=["SIGKILL"], choices=["SIGKILL", "SIGTERM", "SIGINT"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=Path("kill_resume.jsonl"), help="one JSON line for each run")
    parser.add_argument("--folder", type=Path, help="for the runs; those that differ are kept there")
    return parser.parse_args()


def main() -> int:
    """Prints the table and returns the exit code."""
    options = arguments()
    rows = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.is_file() else []
    done = {content["run"] for content in rows}
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill_resume_"))
    folder.mkdir(parents=True, exist_ok=True)
    if "beit" in options.tasks:
        write_tokenizer()
    references = References(folder)
    print(HEADER, *map(row, rows), sep="\n", flush=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(do_run, *one, folder, references) for one in plan(options) if one[0] not in done]
        for future in as_completed(runs):
            rows.append(future.result())
            with options.log.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(row(rows[-1]), flush=True)
    print(f"\n{summary(rows)}")
    return 1 if any(content["difference"] for content in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
