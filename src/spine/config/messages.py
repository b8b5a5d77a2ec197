"""Turns errors of Hydra and of data loading workers into one sentence for the user."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from spine.errors import InputError, nearest


def sentence(error: BaseException) -> str | None:
    """What to tell a person of an error that is theirs; None where it is not theirs, and the trace is due."""
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException

    for link in _chain(error):
        if isinstance(link, InputError):
            return worker_sentence(str(link))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        options = [option for option in error.options if not option.startswith("_")]
        return f"Unknown {group or 'config'} '{choice}'.{nearest(choice, options)} Choices: {', '.join(options)}."
    if isinstance(error, OverrideParseException):
        return f"'{error.override}' cannot be read as key=value. {str(error).splitlines()[0]}"
    if isinstance(error, ConfigCompositionException):
        if found := re.search(r"Could not (?:override|append to config|delete from config)[. ]*'([^']*)'", str(error)):
            return _unknown_key(found[1].split("@")[0])
        return " ".join(str(error).split())
    if isinstance(error, HydraException) and not isinstance(error, MissingConfigException):
        return " ".join(str(error).split())
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def worker_sentence(message: str) -> str:
    """The sentence alone, where a data worker wrapped it in its own trace."""
    found = re.search(r"Original Traceback.*InputError: (.*)", message, re.DOTALL)
    return found[1].strip() if found else message


def _unknown_key(key: str) -> str:
    """Names the nearest key of the configuration that the rest of the command line composes."""
    parent, _, name = key.rpartition(".")
    keys = [k for k in _keys_beside(parent, key) if not k.startswith("_")]
    prefix = f"{parent}." if parent else ""
    if not keys:
        return f"Unknown key '{key}': the configuration has nothing under '{parent}'."
    return f"Unknown key '{key}'.{nearest(name, keys, prefix)} Keys there: {', '.join(keys)}."


def _keys_beside(parent: str, bad: str) -> list[str]:
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    script = Path(sys.argv[0]).resolve()
    overrides = [a for a in sys.argv[1:] if "=" in a and not a.startswith("-") and "," not in a]
    overrides = [a for a in overrides if not a.lstrip("+~").startswith(bad)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(script.parent / "conf"), version_base="1.3"):
            config = compose(script.stem, overrides)
    except Exception:
        return []  # a second mistake on the same line: the first is still told
    node = OmegaConf.select(config, parent) if parent else config
    return sorted(map(str, node)) if node is not None else []
