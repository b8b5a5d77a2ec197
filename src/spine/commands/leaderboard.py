"""Compares the runs of sweeps or of any folders: a table, a CSV file and an HTML page.

    python -m spine.leaderboard logs/train/multiruns/backbone_lr_1a2b3c4d
    python -m spine.leaderboard logs/train logs/eval out=reports metric=val/loss open=true

Finds run folders at any depth. Writes leaderboard.csv and leaderboard.html into the given folder,
or into the folder `out`.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from spine import console
from spine.command_lines import parse_folders
from spine.errors import InputError

KEYS = {
    "out": "folder of leaderboard.csv and leaderboard.html; by default, the given folder, or the one that holds all given folders",
    "metric": "metric that sorts the runs, such as val/loss; by default, the one that selects the best checkpoint of a run",
    "mode": "max or min: whether more of `metric` is better; by default, it follows from its name",
    "open": "true: opens the page in a browser",
}
CHOICES = {"mode": ("max", "min"), "open": ("true", "false")}


def main() -> None:
    """Runs the command with the arguments of the command line."""
    console.show_messages()
    try:
        leaderboard(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))


def leaderboard(arguments: list[str]) -> None:
    """Prints the leaderboard of the folders that the arguments name, and writes its files.

    Raises InputError for an unknown key, a folder that does not exist, folders without runs, or a
    metric that no run has.
    """
    if {"--help", "-h"} & set(arguments):
        print(f"{__doc__}\nKeys:\n" + "\n".join(f"  {key:8}{description}" for key, description in KEYS.items()))
        return
    folders, options = parse_folders(arguments, KEYS, CHOICES, "python -m spine.leaderboard logs/train")
    from spine.reporting.leaderboard.page import write_leaderboard
    from spine.reporting.leaderboard.ranking import make_groups
    from spine.reporting.leaderboard.tables import print_leaderboard, write_csv
    from spine.reporting.provenance import Provenance, provenance
    from spine.reporting.run_record import find_runs, read_run

    records = [read_run(path) for path in find_runs(folders)]
    if not records:
        raise InputError(
            f"There is no run in {', '.join(map(str, folders))}. A run folder has config.json and, once it is finished, "
            f"metrics.json; train.py writes it to logs/train."
        )
    mode = options.get("mode")
    groups = make_groups(records, options.get("metric"), None if mode is None else mode == "max")
    out = _output_folder(folders, options.get("out"))
    made_by: Provenance = {**provenance(), "command": shlex.join(["python", "-m", "spine.leaderboard", *arguments])}
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_csv(out / "leaderboard.csv", groups)
        write_leaderboard(out / "leaderboard.html", groups, folders, made_by)
    except OSError as error:
        raise InputError(
            f"The leaderboard cannot be written to '{out}' ({error.strerror}). Give another folder: out=<folder>."
        ) from error
    print_leaderboard(groups)
    print(f"{out / 'leaderboard.csv'}\n{out / 'leaderboard.html'}")
    if options.get("open") == "true":
        import webbrowser

        webbrowser.open((out / "leaderboard.html").resolve().as_uri())


def _output_folder(folders: list[Path], out: str | None) -> Path:
    if out is not None:
        return Path(out).expanduser()
    return folders[0] if len(folders) == 1 else Path(os.path.commonpath([folder.resolve() for folder in folders]))
