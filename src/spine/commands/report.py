"""Writes report.html of runs that exist already.

    python -m spine.report logs/train/runs/convnext-tiny_cls_shapes_1a2b3c4d
    python -m spine.report logs/train/multiruns/backbone_1a2b3c4d open=true

Finds run folders at any depth, and writes report.html into each. train.py and eval.py do this at the end of a run.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spine import console
from spine.command_lines import parse_folders
from spine.errors import InputError

if TYPE_CHECKING:
    from spine.reporting.run_record import Changes

log = logging.getLogger(__name__)
KEYS = {"open": "true: opens the pages in a browser"}
CHOICES = {"open": ("true", "false")}


def main() -> None:
    """Runs the command with the arguments of the command line."""
    console.show_messages()
    try:
        report(sys.argv[1:])
    except InputError as error:
        sys.exit(str(error))


def report(arguments: list[str]) -> None:
    """Writes the reports of the runs in the folders that the arguments name, and prints their paths.

    Raises InputError for an unknown key, a folder that does not exist, or folders without runs.
    """
    if {"--help", "-h"} & set(arguments):
        print(f"{__doc__}\nKeys:\n" + "\n".join(f"  {key:8}{description}" for key, description in KEYS.items()))
        return
    folders, options = parse_folders(arguments, KEYS, CHOICES, "python -m spine.report logs/train/runs/<name>")
    from spine.reporting.report.page import write_report
    from spine.reporting.run_record import find_runs

    runs = find_runs(folders)
    if not runs:
        raise InputError(
            f"There is no run in {', '.join(map(str, folders))}. A run folder has config.json and, once it is finished, "
            f"metrics.json; train.py writes it to logs/train."
        )
    for run in runs:
        try:
            path = write_report(run, changes=_changes(run))
        except OSError as error:
            raise InputError(f"The report cannot be written to '{run}' ({error.strerror}).") from error
        print(path)
        if options.get("open") == "true":
            import webbrowser

            webbrowser.open(path.resolve().as_uri())


def _changes(folder: Path) -> Changes | None:
    """Returns in what a run without changes.json differs from the defaults, or None if its command does not fit this version."""
    from spine.reporting.report.configuration import read_changes

    try:
        return read_changes(folder) or _changes_of_command(folder)
    except Exception as error:  # of Hydra, for a command of an earlier version; the report is written without it
        log.warning(
            "%s: the defaults are not known: %s", folder, str(error).splitlines()[0] if str(error) else type(error).__name__
        )
        return None


def _changes_of_command(folder: Path) -> Changes | None:
    from spine.config import resolving  # noqa: F401  (registers the resolvers)
    from spine.config.changes import changes_of_command
    from spine.training.run_folder import RunFolder

    starts = RunFolder(folder).starts()
    words = shlex.split(starts[0]["command"]) if starts else []
    if len(words) < 2 or Path(words[1]).name not in ("train", "train.py"):
        return None
    return changes_of_command([word for word in words[2:] if not word.startswith("-")])
