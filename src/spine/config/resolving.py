"""From a composed Hydra configuration to plain data, and the run id that follows from it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, OmegaConf

from spine.config.targets import named

OUTSIDE_RUN_ID = ("ckpt_path", "restart", "task_name", "tags", "logger")  # what a run writes where does not change what it is


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as dictionaries, lists, words and numbers: what is checked, saved and read from here on."""
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def run_id(*, _root_: DictConfig) -> str:
    """A readable name that the configuration alone decides, so that a run that is started again finds its folder."""
    choices = _root_.hydra.runtime.choices
    keys = [key for key in _root_ if key != "hydra" and key not in OUTSIDE_RUN_ID]
    own = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    content = {key: value for key, value in OmegaConf.to_container(own, resolve=True).items() if key in keys}  # type: ignore[union-attr]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    names = [choices.get(group) or named(content[group]) for group in ("backbone", "task", "dataset")]
    if variant := content["backbone"].get("variant"):
        names[0] += f"-{variant}"
    return "_".join([*names, digest])


OmegaConf.register_new_resolver("run_id", run_id, replace=True)
