"""Prepares a command line for Hydra, whose grammar gives a meaning to braces and to the tilde."""

from __future__ import annotations

import re

BARE = re.compile(r"""[^'"\[\](),]*""")  # neither quoted nor a list; a comma separates the values of a sweep


def quote_for_hydra(arguments: list[str]) -> list[str]:
    """The arguments with quotes around values that hold `{split}` or begin with `~`, so that they can be typed as they are.

    `dataset.images=images/{split}` becomes `dataset.images="images/{split}"`. In a sweep, `a/{split},b/{split}` becomes two quoted values.
    Values that hold quotes or brackets are left as they are.
    """
    return [_quoted(argument) for argument in arguments]


def _quoted(argument: str) -> str:
    key, equals, value = argument.partition("=")
    if not equals or key.startswith("-"):
        return argument
    values = value.split(",")
    if not all(BARE.fullmatch(one) for one in values):
        return argument
    return f"{key}={','.join(_one(one) for one in values)}"


def _one(value: str) -> str:
    return f'"{value}"' if "{split}" in value or value.startswith("~") else value


def how_to_quote(override: str) -> str:
    """How to type an override that Hydra's grammar cannot read: quoted for Hydra, inside quotes for the shell."""
    key, _, value = override.partition("=")
    if value[:1] in ("'", '"'):
        return f"The quotes of {value} do not match, or something follows them."
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"""Quote it for Hydra inside the shell's quotes: '{key}="{escaped}"'."""
