"""Repeats a finished run from its stored configuration, in a new folder, and compares the two."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from spine.checkpoints.run_checkpoint import read_checkpoint
from spine.command_lines import refuse_sweeps
from spine.errors import InputError
from spine.reporting.comparison import compare_runs, describe
from spine.reporting.provenance import differences
from spine.training.run_folder import RunFolder

if TYPE_CHECKING:
    from spine.option_types import Config

log = logging.getLogger(__name__)
KEY = "rerun"


def find_original(arguments: list[str]) -> str | None:
    """Returns the folder of rerun=<folder> among the arguments of a command line, or None."""
    values = [argument.partition("=")[2].strip("'\"") for argument in arguments if argument.startswith(f"{KEY}=")]
    return os.path.expanduser(values[-1]) if values else None


def register_run(arguments: list[str]) -> None:
    """Registers the configuration of rerun=<folder> with Hydra, as the base of rerun.yaml.

    Raises InputError if there is no finished run in the folder.
    """
    from hydra.core.config_store import ConfigStore

    folder = find_original(arguments)
    if not folder:
        raise InputError("Which run? Give rerun=<run folder>, such as rerun=logs/train/runs/<name>.")
    refuse_sweeps("rerun repeats one run", arguments)
    ConfigStore.instance().store("original", stored_config(RunFolder(Path(folder))))


def stored_config(folder: RunFolder) -> Config:
    """Returns the configuration of a finished run, with its interpolations, without untrusted parts.

    Raises InputError if the folder does not hold a finished run.
    """
    from spine.config.tokenizer import with_stored_tokenizer
    from spine.config.untrusted import strip_untrusted  # imports pydantic, which would slow down every start

    if not folder.path.is_dir():
        raise InputError(f"There is no folder '{folder.path}'. Give rerun=<run folder>, such as rerun=logs/train/runs/<name>.")
    if not (folder.path / "config.json").is_file() or not folder.starts():
        raise InputError(
            f"'{folder.path}' is not the folder of a run: it has no config.json and starts.json, which train.py writes."
        )
    if folder.read_results() is None:
        raise InputError(f"The run in '{folder.path}' has no results yet: finish it with its own command, then repeat it.")
    if folder.last.is_file():
        state = read_checkpoint(folder.last)
        config = state.get("config_source") or state["config"]
    else:
        config = json.loads((folder.path / "config.json").read_text())
    kept = strip_untrusted(config)
    if isinstance(kept.get("backbone"), dict):
        # a file of tensors, or a name of spine's own table: nothing in it is executed
        kept["backbone"]["weights"] = config["backbone"].get("weights")
    kept["restart"] = False
    return with_stored_tokenizer(kept, folder.path.absolute())


def rerun_folder(original: str, *, _root_: DictConfig) -> str:
    """Returns the folder in which a run is repeated: <original>_rerun_<n>.

    A repetition that was begun with the same overrides and is not finished is continued.
    """
    base, number = os.path.abspath(os.path.expanduser(original)), 1
    own = sorted(map(str, _root_.hydra.overrides.task))
    while (path := Path(f"{base}_rerun_{number}")).exists():
        if RunFolder(path).read_results() is None and _overrides(path) == own:
            break
        number += 1
    return str(path)


def _overrides(folder: Path) -> list[str]:
    try:
        return sorted(map(str, yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) or []))
    except OSError:
        return []


def take_original(cfg: DictConfig) -> RunFolder | None:
    """Removes the key `rerun` from a configuration. Returns the run that it names, or None."""
    if KEY not in cfg:
        return None
    with open_dict(cfg):
        return RunFolder(Path(os.path.expanduser(cfg.pop(KEY))).absolute())


def warn_of_omissions(original: RunFolder, config: Config) -> None:
    """Logs a warning about callbacks and plug-ins of the original run, which a stored configuration cannot add."""
    stored = json.loads((original.path / "config.json").read_text())
    more = (stored.get("callbacks") or {}).get("more") or {}
    missing = [f"callbacks.more.{name}" for name in more if name not in (config["callbacks"].get("more") or {})]
    if stored.get("plugins") and not config.get("plugins"):
        missing.append(f"plugins={stored['plugins']}")
    if missing:
        log.warning(
            "The original run also had %s; a stored configuration cannot add it. Add it to the command.", ", ".join(missing)
        )


def report(original: RunFolder, folder: RunFolder, overrides: list[str]) -> None:
    """Compares a repeated run with the original one, logs the outcome, and writes rerun.json."""
    results = folder.read_results()
    if results is None:
        return
    comparison = compare_runs(original.path, folder.path)
    changed = differences(original.starts()[-1], folder.starts()[-1])
    own = [override for override in overrides if not override.startswith(f"{KEY}=")]
    content = {"original": str(original.path), "overrides": own, "differences": changed, **comparison}
    folder.write_json(folder.path / "rerun.json", content)
    log.info("Compared with %s: %s", original.path, describe(comparison, results["monitor"]))


OmegaConf.register_new_resolver("rerun_folder", rerun_folder, replace=True)
