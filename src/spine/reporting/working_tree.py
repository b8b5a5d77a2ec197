"""The uncommitted changes of the code that a run uses."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

MAX_CHARACTERS = 1_000_000
CODE = (".py", ".yaml")
PACKAGE = Path(__file__).resolve().parents[1]


def git(folder: Path, *arguments: str, accepted: tuple[int, ...] = (0,)) -> str | None:
    """Returns the output of git in a folder, or None if it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode in accepted else None


def is_checkout() -> bool:
    """Returns whether spine runs from its git repository. An installed package may be inside another one."""
    return git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is not None


def uncommitted_changes(plugins: Iterable[Path] = ()) -> str:
    """Returns the difference to the last commit, as a patch; empty if there is none.

    It has the tracked files of spine's repository, its new Python and yaml files, and those of the
    folders `plugins`. It is cut after MAX_CHARACTERS.
    """
    parts = []
    if is_checkout():
        top = Path(str(git(PACKAGE, "rev-parse", "--show-toplevel")).strip())
        parts.append(git(top, "diff", "HEAD") or "")
        parts += map(_as_new, _new_files(top, "src", "conf"))
    for folder in plugins:
        if PACKAGE.parents[1] in folder.resolve().parents and is_checkout():
            parts += map(_as_new, _new_files(folder, "."))  # the tracked ones are in the patch already
            continue
        parts.append(git(folder, "diff", "HEAD", "--", ".") or "")
        parts += map(_as_new, _new_files(folder, "."))
    text = "".join(parts)
    if len(text) > MAX_CHARACTERS:
        return f"{text[:MAX_CHARACTERS]}\n(cut after {MAX_CHARACTERS} of {len(text)} characters)\n"
    return text


def _new_files(folder: Path, *within: str) -> Iterator[Path]:
    """Yields the Python and yaml files that git does not track; all of them if the folder is not in a repository."""
    listed = git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *within)
    if listed is not None:
        paths = [folder / name for name in listed.split("\0") if name]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    yield from (path for path in paths if path.suffix in CODE)


def _as_new(path: Path) -> str:
    return git(path.parent, "diff", "--no-index", "--", "/dev/null", str(path), accepted=(0, 1)) or ""
