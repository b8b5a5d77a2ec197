"""Quotes values of the command line with braces or a tilde, which Hydra would interpret."""

from __future__ import annotations

import re

UNQUOTED = re.compile(r"""[^'"\[\](),]*""")  # one value without quotes, brackets or commas


def quote_for_hydra(arguments: list[str]) -> list[str]:
    """Adds quotes to values that contain `{split}` or begin with `~`.

    Users then need not quote them for Hydra. `dataset.images=images/{split}` becomes
    `dataset.images="images/{split}"`. In a sweep, `a/{split},b/{split}` becomes two quoted values.
    Values with quotes or brackets are not changed.
    """
    return [_quoted(argument) for argument in arguments]


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


def how_to_quote(override: str) -> str:
    """Returns advice on quoting an override that Hydra cannot parse.

    It needs quotes for Hydra inside quotes for the shell.
    """
    key, _, value = override.partition("=")
    if value[:1] in ("'", '"'):
        return f"The quotes of {value} do not match, or text follows them."
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f"""Quote it for Hydra inside the shell's quotes: '{key}="{escaped}"'."""
