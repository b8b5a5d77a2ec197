"""Turns errors of Hydra and of data loading workers into one sentence for the user."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from spine.config.conf_folder import conf_folder
from spine.config.overrides import how_to_quote
from spine.errors import InputError, nearest

command = "train"  # the command that is running: the yaml file that its configuration is composed from


def user_message(error: BaseException) -> str | None:
    """What to tell a user of an error that is theirs; None where it is not theirs, and the trace is due."""
    for link in _chain(error):
        if isinstance(link, InputError):
            return worker_message(str(link))
    return _of_hydra(error) or _of_lightning(error)


def _of_hydra(error: BaseException) -> str | None:
    """The sentence for a command line or a yaml file that Hydra cannot compose."""
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"Unknown {group or 'config'} '{choice}'.{nearest(choice, options)} Choices: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"Hydra cannot read '{error.override}' as key=value. {how_to_quote(str(error.override))}"
    if isinstance(error, ConfigCompositionException):
        if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*'([^']*)'", str(error)):
            return _unknown_key(found[1].split("@")[0])
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


def _of_lightning(error: BaseException) -> str | None:
    """The sentence for settings of the trainer and of callbacks that Lightning finds wrong only once training runs."""
    if found := re.match(
        r"Early stopping conditioned on metric `(.*?)` which is not available.*?(`.*`)?$", str(error), re.DOTALL
    ):
        choices = found[2].replace("`", "") if found[2] else "none so far"
        return f"The monitor of EarlyStopping is '{found[1]}', which is not measured. Choices: {choices}."
    if type(error).__name__ == "MisconfigurationException":  # compared by name: Lightning may not be imported
        return " ".join(str(error).split())
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def worker_message(message: str) -> str:
    """The sentence alone, where a data worker wrapped it in its own trace."""
    found = re.search(r"Original Traceback.*InputError: (.*)", message, re.DOTALL)
    return found[1].strip() if found else message


def _unknown_key(key: str) -> str:
    """Names the nearest key of the configuration that the rest of the command line composes."""
    parent, _, name = key.rpartition(".")
    keys = [k for k in _keys_beside(parent, key) if not k.startswith("_")]
    prefix = f"{parent}." if parent else ""
    if name in keys:  # a group chosen where the configuration comes whole, from a checkpoint
        return (
            f"'{key}' cannot be chosen here: the checkpoint brings the whole configuration. Set its keys one by one, such as "
            f"{key}.<key>=<value>; `--cfg job` lists them."
        )
    if not keys:
        return f"Unknown key '{key}': the configuration has nothing under '{parent}'."
    return f"Unknown key '{key}'.{nearest(name, keys, prefix)} Keys there: {', '.join(keys)}."


def _keys_beside(parent: str, bad: str) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    overrides = [a for a in sys.argv[1:] if "=" in a and not a.startswith("-") and "," not in a]
    overrides = [a for a in overrides if not a.lstrip("+~").startswith(bad)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            config = compose(command, overrides)
    except Exception:
        return []  # the command line has a second mistake; the first is reported without the list of keys
    node = OmegaConf.select(config, parent) if parent else config
    return sorted(map(str, node)) if node is not None else []
