"""Overrides of the command line: which are swept, and quotes for values that Hydra would interpret."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNQUOTED = re.compile(r"""[^'"\[\](),]*""")  # one value without quotes, brackets or commas


def quote_for_hydra(arguments: list[str]) -> list[str]:
    """Adds quotes to values that contain `{split}` or begin with `~`.

    Users then need not quote them for Hydra. `dataset.images=images/{split}` becomes
    `dataset.images="images/{split}"`. In a sweep, `a/{split},b/{split}` becomes two quoted values.
    Values with quotes or brackets are not changed.
    """
    return [_quoted(_space_key(argument)) for argument in arguments]


def _space_key(argument: str) -> str:
    """Converts `sweep.space.<key>=<values>`, whose key may have dots, to an entry of the dictionary `sweep.space`."""
    key, equals, value = argument.partition("=")
    name = key.lstrip("+~").removeprefix("sweep.space.")
    return f"++sweep.space={{{name}: {value}}}" if equals and name != key.lstrip("+~") else argument


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-"):
        return argument
    values = value.split(",")
    if not all(UNQUOTED.fullmatch(one) for one in values):
        return argument
    return f"{key}={','.join(_quoted_value(one) for one in values)}"


def _quoted_value(value: str) -> str:
    return f'"{value}"' if "{split}" in value or value.startswith("~") else value


def space_entry(override: str) -> str | None:
    """Returns what the user wrote for an entry of `sweep.space`, or None for any other override."""
    match = re.fullmatch(r"\+\+sweep\.space=\{([^:]*): (.*)\}", override)
    return f"sweep.space.{match[1]}={match[2]}" if match else None


def swept_keys(overrides: Iterable[str]) -> list[str]:
    """Returns the keys with several values, in Hydra's grammar: values with commas between them, or range(1,4)."""
    pairs = [override.partition("=") for override in overrides]
    return [key.lstrip("+~") for key, _, value in pairs if _is_sweep(value)]


def _is_sweep(value: str) -> bool:
    outside, before = value, ""
    while outside != before:  # remove lists, dictionaries and quoted text from the inside out
        outside, before = re.sub(r"""\[[^][{}]*\]|\{[^][{}]*\}|"[^"]*"|'[^']*'""", "", outside), outside
    return "," in outside or outside.startswith(("choice(", "range(", "glob(", "interval(", "tag("))


def how_to_quote(override: str) -> str:
    """Returns advice on quoting an override that Hydra cannot parse.

    It needs quotes for Hydra inside quotes for the shell.
    """
    key, _, value = override.partition("=")
    if value[:1] in ("'", '"'):
        return f"The quotes of {value} do not match, or text follows them."
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"""Quote it for Hydra inside the shell's quotes: '{key}="{escaped}"'."""
