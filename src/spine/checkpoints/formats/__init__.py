"""Tensor names of publishers: one module for each backbone, with a tuple `LAYOUTS`."""

from __future__ import annotations

import importlib
import importlib.util

from spine.checkpoints.mapping import Layout
from spine.components import module_name


def layouts_of(backbone: str) -> tuple[Layout, ...]:
    """Returns the layouts of a backbone's weight files, the authors' first. Empty if the backbone has no module here."""
    package = module_name("backbone", backbone).removesuffix(f".backbones.{backbone}")
    module = f"{package}.checkpoints.formats.{backbone}"
    return importlib.import_module(module).LAYOUTS if _exists(module) else ()


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a plug-in without a folder `checkpoints`
        return False
