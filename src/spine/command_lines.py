"""Command lines of spine: arguments that are folders, and commands that a person can type again."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from spine.errors import InputError, nearest


def refuse_sweeps(command: str, arguments: Sequence[str]) -> None:
    """Raises InputError if the arguments start a sweep, before it has a folder. `command`: what it does: "spine.plan shows one run"."""
    if {"-m", "--multirun"} & set(arguments):
        raise InputError(f"{command}, and not a sweep: leave out -m.")


def parse_folders(
    arguments: Iterable[str], keys: Mapping[str, str], choices: Mapping[str, Sequence[str]], example: str
) -> tuple[list[Path], dict[str, str]]:
    """Returns the folders and the options of a command line. A folder may have `=` in its name.

    `keys`: the options, with their descriptions. `choices`: the values of some of them. `example`: a valid command line.
    Raises InputError for an unknown key or value, and for folders that do not exist.
    """
    folders, options = [], {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key in keys and equals:
            options[key] = value
        elif equals and not Path(argument).exists() and os.sep not in key:
            raise InputError(f"Unknown key '{key}'.{nearest(key, list(keys))} Choices: {', '.join(keys)}.")
        else:
            folders.append(Path(argument).expanduser())
    if not folders:
        raise InputError(f"Which runs? Give one or more folders: {example}.")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"There is no folder '{folder}'. Give folders that contain runs: {example}.")
    for key, value in options.items():
        if key in choices and value not in choices[key]:
            raise InputError(f"{key} is '{value}'; it must be {' or '.join(choices[key])}.")
        if value == "":
            raise InputError(f"{key} is empty; it is the {keys[key].partition(';')[0]}.")
    return folders, options


def shell_command(arguments: Iterable[str]) -> str:
    """Returns the command line of this process with `arguments`, quoted for a shell."""
    if command := os.environ.get("SPINE_COMMAND"):  # `spine train` removes its first argument
        return shlex.join(["spine", command, *arguments])
    return shlex.join(["python", sys.argv[0], *arguments])


def sibling_command(command: str, name: str, arguments: str) -> str:
    """Returns the command line of another command of spine, started as `command` was.

    "python train.py ..." makes "python eval.py <arguments>", and "spine train ..." makes "spine eval <arguments>".
    """
    words = shlex.split(command)
    script = Path(words[1]) if len(words) > 1 and words[0] == "python" else None
    if script is None and words[:1] == ["spine"]:
        return f"spine {name} {arguments}"
    path = str(script.with_name(f"{name}.py")) if script is not None and script.suffix == ".py" else f"{name}.py"
    return f"python {shlex.quote(path)} {arguments}"


def short_path(path: Path) -> str:
    """Returns a path from the current folder if it is below it, otherwise the absolute path."""
    absolute = Path(os.path.abspath(path))
    return str(absolute.relative_to(Path.cwd())) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def quote_path(path: Path) -> str:
    """Returns a path as a value of an override, in quotes if it has characters that Hydra would interpret."""
    text = str(path)
    if re.fullmatch(r"[\w/.+@%-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
