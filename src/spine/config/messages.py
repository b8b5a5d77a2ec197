"""Converts errors of Hydra, Lightning and data loading workers to messages for the user."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from spine.config.conf_folder import conf_folder
from spine.config.overrides import how_to_quote, space_entry
from spine.errors import InputError, nearest

SUBMITIT = "hydra-submitit-launcher"
LAUNCHERS = {"joblib": "hydra-joblib-launcher", "submitit_local": SUBMITIT, "submitit_slurm": SUBMITIT}  # optional packages
command = "train"  # the running command, which is the name of its yaml file in conf


def user_message(error: BaseException) -> str | None:
    """Returns the message for an error that the user can correct.

    Returns None for other errors, which need their traceback.
    """
    for cause in _with_causes(error):
        if isinstance(cause, InputError):
            return worker_message(str(cause))
    return _hydra_message(error) or _lightning_message(error) or _torch_message(error)


def _hydra_message(error: BaseException) -> str | None:
    """Returns the message for a command line or a yaml file that Hydra cannot compose."""
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        if group == "hydra/launcher" and choice in LAUNCHERS:
            return f"hydra/launcher={choice} needs the package {LAUNCHERS[choice]}: pip install -e .[sweep]"
        return f"Unknown {group or 'config'} '{choice}'.{nearest(choice, options)} Choices: {', '.join(options)}."
    if isinstance(error, OverrideParseException) and (entry := space_entry(str(error.override))) is not None:
        return f"'{entry}' cannot be read. Write a list, such as [vit, swin], or a range, such as {{low: 1e-5, high: 1e-2, log: true}}."
    if isinstance(error, OverrideParseException):
        return f"Hydra cannot read '{error.override}' as key=value. {how_to_quote(str(error.override))}"
    if isinstance(error, ConfigCompositionException):
        if match := re.search(r"Could not (?:override|append to config|delete from config)[. ]*'([^']*)'", str(error)):
            return _unknown_key(match[1].split("@")[0])
        return " ".join(str(error).split())
    if isinstance(error, HydraException) and not isinstance(error, MissingConfigException):
        return " ".join(str(error).split())
    if isinstance(error, OmegaConfBaseException):
        key = f"{error.full_key}: " if error.full_key else ""
        return f"{key}{str(error).splitlines()[0]}"
    if isinstance(error, ValueError) and str(error).startswith("Config group override must be a string or a list"):
        groups = [argument.partition("=")[0] for argument in sys.argv[1:] if argument.endswith("=null")]
        return f"{' and '.join(groups) or 'A group'} cannot be null; choose one of its names, which `--help` lists."
    return None


def _torch_message(error: BaseException) -> str | None:
    """Returns the message for a batch that is too small for batch norm."""
    if str(error).startswith("Expected more than 1 value per channel when training"):
        return (
            "The network has batch norm of maps that are averaged to one position, which needs two or more images of a process in "
            "training. Set dataset.batch_size=2 or more."
        )
    return None


def _lightning_message(error: BaseException) -> str | None:
    """Returns the message for options that Lightning rejects only during training.

    These are options of the trainer and of callbacks.
    """
    pattern = r"Early stopping conditioned on metric `(.*?)` which is not available.*?(`.*`)?$"
    if match := re.match(pattern, str(error), re.DOTALL):
        choices = match[2].replace("`", "") if match[2] else "none so far"
        return f"The monitor of EarlyStopping is '{match[1]}', which is not measured. Choices: {choices}."
    if type(error).__name__ == "MisconfigurationException":  # compared by name: Lightning may not be imported
        return " ".join(str(error).split())
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an error and the errors that caused it."""
    while error is not None:
        yield error
        error = error.__cause__


def worker_message(message: str) -> str:
    """Removes the traceback that a data loading worker adds to the message of an InputError or of its subclass."""
    match = re.search(r"Original Traceback.*(?:Input|UnreadableFile)Error: (.*)", message, re.DOTALL)
    return match[1].strip() if match else message


def _unknown_key(key: str) -> str:
    """Returns the message for an unknown key, with the nearest key of the configuration."""
    parent, _, name = key.rpartition(".")
    keys = [k for k in _keys_of(parent, key) if not k.startswith("_")]
    prefix = f"{parent}." if parent else ""
    if name in keys:  # a choice of a group, but the complete configuration comes from a checkpoint
        return (
            f"'{key}' cannot be chosen here: the checkpoint contains the complete configuration. Set its keys one by one, such as "
            f"{key}.<key>=<value>; `--cfg job` lists them."
        )
    if not keys:
        return f"Unknown key '{key}': the configuration has no keys under '{parent}'."
    return f"Unknown key '{key}'.{nearest(name, keys, prefix)} Allowed keys: {', '.join(keys)}."


def _keys_of(parent: str, unknown_key: str) -> list[str]:
    """Returns the keys under `parent` in the configuration of the command line.

    The unknown key is left out of the command line.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    overrides = [a for a in sys.argv[1:] if "=" in a and not a.startswith("-") and "," not in a]
    overrides = [a for a in overrides if not a.lstrip("+~").startswith(unknown_key)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose(command, overrides)
    except Exception:
        return []  # the command line has another mistake: report this one without a list of keys
    node = OmegaConf.select(config, parent) if parent else config
    return sorted(map(str, node)) if node is not None else []
