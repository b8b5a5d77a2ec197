"""Packages outside spine whose parts are used like spine's own.

A plug-in is a package with the folders of spine: `backbones/`, `heads/`, `tasks/<name>/`, `data/formats/`, `data/transforms/`,
`losses/`, `callbacks/` and `conf/`, as far as it needs them. It is found if it is installed and declares the entry point
`spine.plugins`, or if its folder is given: `plugins=./mine` on the command line, `spine.plugins.add("./mine")` in Python.
A checkpoint cannot add a plug-in.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from spine.errors import InputError

GROUP = "spine.plugins"  # of entry points
SPINE = Path(__file__).parent
_added: dict[str, Path] = {}  # packages that were given by their folder


def packages() -> dict[str, Path]:
    """Package names and folders that are searched for parts: spine, installed plug-ins, added ones."""
    return {"spine": SPINE, **_installed(), **_added}


def add(folder: str | Path) -> str:
    """Makes the parts in a folder available, and returns the name of its package, which is the name of the folder.

    Nothing is imported before one of its parts is used. Raises InputError if the folder is missing, if its name is not a valid
    package name or belongs to another package, or if it has a part whose name is taken.
    """
    path = Path(folder).expanduser().resolve()
    name = path.name
    if not path.is_dir():
        raise InputError(
            f"There is no folder '{folder}'. Give plugins=<folder>, a folder with backbones/, heads/, tasks/ or data/."
        )
    if not name.isidentifier():
        raise InputError(f"'{folder}' cannot be imported: rename the folder to a Python name (letters, digits, underscores).")
    if packages().get(name) == path:
        return name
    if name in packages() or _imported_from_elsewhere(name, path):
        raise InputError(f"There is another package named '{name}'. Rename the folder '{folder}'.")
    _check_names(name, path, packages())
    sys.path.insert(0, str(path.parent))
    importlib.invalidate_caches()
    _added[name] = path
    return name


def conf_folders() -> list[Path]:
    """The `conf` folders of all plug-ins, for Hydra's search path."""
    return [path / "conf" for name, path in packages().items() if name != "spine" and (path / "conf").is_dir()]


def from_command_line(arguments: Iterable[str]) -> None:
    """Adds the plug-ins of `plugins=<folder>` or `plugins=[<folder>,...]` among the arguments of a command line."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key.lstrip("+") == "plugins" and value not in ("", "null"):
            for folder in value.strip("[]").split(","):
                add(folder.strip(" '\""))


def part_names(package: Path, folder: str) -> Iterator[str]:
    """Names of the parts in a folder of a package: its modules, and for `tasks` its sub-packages. Nothing is imported."""
    base = package.joinpath(*folder.split("."))
    for path in sorted(base.iterdir()) if base.is_dir() else ():
        if folder == "tasks" and (path / "spec.py").is_file():
            yield path.name
        elif folder != "tasks" and path.suffix == ".py" and not path.name.startswith("_"):
            yield path.stem


@functools.cache
def _installed() -> dict[str, Path]:
    found: dict[str, Path] = {}
    if not _any_declared():
        return found
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        spec = importlib.util.find_spec(point.value)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"The plug-in '{point.name}' names the package '{point.value}', which is not installed.")
        path = Path(next(iter(spec.submodule_search_locations)))
        _check_names(point.value, path, {"spine": SPINE, **found})
        found[point.value] = path
    return found


def _any_declared() -> bool:
    """Whether an installed package declares a plug-in. Parsing the metadata of all packages takes ten times as long."""
    files = (path for folder in sys.path for path in Path(folder or ".").glob("*.dist-info/entry_points.txt"))
    return any(GROUP.encode() in path.read_bytes() for path in files)


def _imported_from_elsewhere(name: str, path: Path) -> bool:
    module = sys.modules.get(name)
    spec = module.__spec__ if module is not None else importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec is not None else []
    return spec is not None and str(path) not in map(str, locations or [])


def _check_names(name: str, path: Path, others: dict[str, Path]) -> None:
    """Raises InputError if a package has a part whose name one of the others has already."""
    for kind in ("backbones", "heads", "tasks", "data.formats"):
        for other, folder in others.items():
            if taken := sorted(set(part_names(path, kind)) & set(part_names(folder, kind))):
                raise InputError(f"Plug-in '{name}' has {kind}/{taken[0]}, a name that {other} has already. Rename it.")
