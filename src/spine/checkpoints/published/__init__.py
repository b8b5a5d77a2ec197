"""Tables of published weight files: one module for each backbone, with a dictionary `WEIGHTS` (variant -> name -> file)."""

from __future__ import annotations

import importlib
import importlib.util

from spine.checkpoints.weight_table import WeightTable
from spine.components import module_name


def weight_table_of(backbone: str) -> WeightTable:
    """Returns the published weight files of a backbone. Empty if the backbone has no module here."""
    package = module_name("backbone", backbone).removesuffix(f".backbones.{backbone}")
    module = f"{package}.checkpoints.published.{backbone}"
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # a plug-in without a folder `checkpoints`
        found = None
    return importlib.import_module(module).WEIGHTS if found else {}
