"""Kills a sweep over all backbones half-way, repeats its command, and compares the results with an uninterrupted sweep.

    python benchmarks/sweep_resume.py [--keep logs/fourteen] [key=value ...]

The sweep is killed with SIGKILL inside the run that follows the first half of the runs. The repeated command must leave the finished
runs alone, resume the killed one, and train the others. Weights and metrics of every run must be bit-identical to those of
the uninterrupted sweep. Prints a Markdown table and exits with 1 if anything differs. `--keep` keeps the folder of the resumed
sweep, for example for `python -m spine.leaderboard`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_resume import difference, results

import spine

ROOT = Path(__file__).resolve().parents[1]
SWEEP = (
    f"backbone={','.join(spine.list_backbones())}", "task=cls", "dataset.length={train: 64, val: 32, test: 4}", "dataset.batch_size=8",
    "dataset.num_workers=0", "trainer.max_epochs=3", "trainer.accelerator=cpu", "trainer.log_every_n_steps=2",
)  # fmt: skip


def start(folder: Path, keys: list[str]) -> subprocess.Popen[bytes]:
    """Starts the sweep. Its output goes to a file."""
    folder.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "output.txt").open("ab") as output:
        command = [sys.executable, str(ROOT / "train.py"), "-m", *SWEEP, *keys]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def runs(folder: Path) -> dict[str, Path]:
    """Returns the run folders of the sweep by name."""
    return {path.parent.name: path.parent for path in folder.glob("logs/train/multiruns/*/*/.hydra")}


def finished(folder: Path) -> set[str]:
    """Returns the names of the finished runs."""
    return {name for name, run in runs(folder).items() if (run / "metrics.json").is_file()}


def kill_half_way(folder: Path, sweep: subprocess.Popen[bytes], count: int) -> str:
    """Waits until half of the runs are finished and the next one has saved an epoch, kills it, and returns its name."""
    while sweep.poll() is None:
        done = finished(folder)
        begun = [name for name, run in runs(folder).items() if name not in done and (run / "checkpoints" / "last.ckpt").is_file()]
        if len(done) >= count // 2 and begun:
            sweep.send_signal(signal.SIGKILL)
            sweep.wait()
            return begun[0]
        time.sleep(0.02)
    raise RuntimeError((folder / "output.txt").read_text())


def finish(folder: Path, sweep: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a sweep. Raises RuntimeError if it failed."""
    if sweep.wait() != 0:
        raise RuntimeError((folder / "output.txt").read_text())


def main() -> int:
    """Prints the table and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="a folder to which the resumed sweep is copied")
    options, keys = parser.parse_known_args()
    count, failed = len(spine.list_backbones()), 0
    with tempfile.TemporaryDirectory() as name:
        whole, killed = Path(name) / "whole", Path(name) / "killed"
        finish(whole, start(whole, keys))
        victim = kill_half_way(killed, start(killed, keys), count)
        before = {name: (runs(killed)[name] / "metrics.json").stat().st_mtime_ns for name in finished(killed)}
        finish(killed, start(killed, keys))
        print("| run | when the sweep was killed | trained again | identical |\n|---|---|---|---|")
        for name, run in sorted(runs(whole).items()):
            again = runs(killed)[name]
            where = difference(results(run), results(again))
            state = "killed" if name == victim else "finished" if name in before else "not begun"
            trained = before.get(name) != (again / "metrics.json").stat().st_mtime_ns
            failed += where is not None or trained == (name in before)
            starts = len(json.loads((again / "starts.json").read_text())["starts"])
            effort = f"resumed ({starts} starts)" if name == victim else "yes" if trained else "no"
            print(f"| {name} | {state} | {effort} | {'yes' if where is None else where} |")
        if options.keep is not None:
            (sweep,) = (killed / "logs/train/multiruns").iterdir()
            shutil.copytree(sweep, options.keep)
    print(f"\n{count - failed} of {count} runs are as they must be.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
