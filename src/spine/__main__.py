"""The `spine` command: `spine train backbone=convnext task=seg` is the same as `python train.py backbone=convnext task=seg`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

COMMAND = "SPINE_COMMAND"  # environment variable: which command the processes of ddp run


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command: the first argument is its name, the others are its own."""
    from spine import commands
    from spine.errors import nearest

    given = list(sys.argv[1:] if arguments is None else arguments)
    names = [info.name for info in pkgutil.iter_modules(commands.__path__)]
    if "LOCAL_RANK" in os.environ and os.environ.get(COMMAND) in names:
        given = [os.environ[COMMAND], *given]  # Lightning starts its processes without the name of the command
    name = given[0] if given else "--help"
    if name in ("--help", "-h"):
        print("Usage: spine <command> [<key>=<value> ...]\n\nCommands:")
        for each in names:
            doc = importlib.import_module(f"spine.commands.{each}").__doc__ or ""
            print(f"  {each:10}{doc.splitlines()[0]}")
        print("\n`spine <command> --help` shows the keys of a command.")
        return
    if name not in names:
        sys.exit(f"Unknown command '{name}'.{nearest(name, names)} Choices: {', '.join(names)}.")
    os.environ[COMMAND] = name
    sys.argv[1:] = given[1:]
    importlib.import_module(f"spine.commands.{name}").main()


if __name__ == "__main__":
    main()
