"""Prepares docstrings for the site: comments of fields become their descriptions, and lines `name: text` become lists.

An extension of griffe, which mkdocstrings runs when it reads the source (mkdocs.yml).
"""

from __future__ import annotations

import re
from pathlib import Path

import griffe

COMMENT = re.compile(r"\s#\s+(?!type:|noqa|fmt:)(.+)$")  # at the end of a line of code
NAMES = re.compile(r"(`?\w+`?(?:, `?\w+`?)*): (.*)")


class Docstrings(griffe.Extension):
    """Changes the objects of one module after the other."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: object) -> None:
        """Gives a field without a docstring the comment on its line."""
        if attr.docstring is None and attr.lineno is not None and isinstance(attr.filepath, Path):
            line = attr.lines_collection[attr.filepath][attr.lineno - 1]
            if match := COMMENT.search(line):
                attr.docstring = griffe.Docstring(match[1], parent=attr)

    def on_function_instance(self, *, func: griffe.Function, **kwargs: object) -> None:
        """Makes a list of the descriptions of arguments."""
        _list_names(func, {parameter.name.lstrip("*") for parameter in func.parameters})

    def on_class_members(self, *, cls: griffe.Class, **kwargs: object) -> None:
        """Makes a list of the descriptions of fields."""
        _list_names(cls, set(cls.members))


def _list_names(described: griffe.Function | griffe.Class, names: set[str]) -> None:
    """Turns the lines of a docstring that begin with `name:` into a Markdown list. The lines up to a new sentence belong to them."""
    if described.docstring is None:
        return
    written: list[str] = []
    in_list = False
    for line in described.docstring.value.splitlines():
        match = NAMES.fullmatch(line)
        if match and set(re.findall(r"\w+", match[1])) <= names:
            if not in_list and written and written[-1]:
                written.append("")
            in_list = True
            shown = ", ".join(f"`{name}`" for name in re.findall(r"\w+", match[1]))
            written.append(f"- {shown}: {match[2]}")
        elif in_list and line and not (written[-1].endswith(".") and line[0].isupper()):
            written.append(f"  {line.strip()}")
        else:
            written += ["", line] if in_list and line else [line]
            in_list = False
    described.docstring.value = "\n".join(written)
