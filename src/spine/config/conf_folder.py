"""Finds the folder of the yaml files."""

from __future__ import annotations

from pathlib import Path


def conf_folder() -> Path:
    """`conf`: in the installed package, or at the top of the checkout."""
    package = Path(__file__).parents[1]
    return package / "conf" if (package / "conf").is_dir() else package.parents[1] / "conf"
