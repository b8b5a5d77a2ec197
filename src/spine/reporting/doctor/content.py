"""The content of doctor.json, and the table in the terminal."""

from __future__ import annotations

from typing import TypedDict

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine.reporting.provenance import Provenance

SHOWN_CLASSES = 12  # of a split, in the terminal


class FindingRow(TypedDict):
    """A finding as doctor.json stores it."""

    severity: str  # error or note
    kind: str
    title: str
    split: str
    count: int
    seen: str
    why: str
    todo: str
    files: list[str]


class Diagnosis(TypedDict):
    """The content of doctor.json."""

    dataset: str
    root: str | None
    made_by: Provenance
    seconds: float
    errors: int
    notes: int
    findings: list[FindingRow]
    splits: dict[str, dict[str, object]]  # figures of each split
    messages: list[str]  # of opening the splits


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Prints the splits and the findings."""
    console = Console(highlight=False)
    for message in diagnosis["messages"]:
        console.print(message, markup=False, style="dim")
    console.print(split_table(diagnosis["splits"]))
    if "mean" in diagnosis["splits"].get("train", {}):
        mean, std = (diagnosis["splits"]["train"][key] for key in ("mean", "std"))
        console.print(f"Measured on train: dataset.mean={mean} dataset.std={std}".replace(", ", ","), markup=False, style="dim")
    for severity, style in (("error", "bold red"), ("note", "bold yellow")):
        rows = [row for row in diagnosis["findings"] if row["severity"] == severity]
        if rows:
            console.print(finding_table(rows, severity, style, diagnosis["root"]))
    errors, notes = diagnosis["errors"], diagnosis["notes"]
    if not errors + notes:
        console.print("Nothing was found.", style="bold green")
    else:
        console.print(f"{errors} error{'s' * (errors != 1)}, {notes} note{'s' * (notes != 1)}")


def split_table(splits: dict[str, dict[str, object]]) -> Table:
    """Returns the figures of the splits."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("split", "samples", "images", "width x height", "classes"):
        table.add_column(name, justify="right" if name in ("samples", "images") else "left", overflow="fold")
    for name, facts in splits.items():
        table.add_row(
            name, str(facts["samples"]), str(facts["images"]), size_text(facts.get("sizes")), class_text(facts["classes"])
        )
    return table


def finding_table(rows: list[FindingRow], severity: str, style: str, root: str | None) -> Table:
    """Returns the findings of one severity. Paths are relative to `root`."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True, expand=True)
    table.add_column(Text(f"{severity}s", style), ratio=2, overflow="fold")
    table.add_column("what was seen, why it matters, and what to do", ratio=5, overflow="fold")
    for row in rows:
        name = Text.assemble((row["title"], "bold"), "\n", (f"{row['split']}: {row['count']}", "dim"))
        seen = Text.assemble(row["seen"].replace(f"{root}/", ""), "\n", (row["why"], "dim"), "\n", (f"→ {row['todo']}", "italic"))
        table.add_row(name, seen)
    return table


def size_text(sizes: object) -> str:
    """Returns `200x180 ... 300x280 ... 700x480`: the smallest, the median and the largest."""
    if not isinstance(sizes, dict):
        return "-"
    texts = [f"{width}x{height}" for width, height in sizes.values()]
    return texts[0] if len(set(texts)) == 1 else " … ".join(texts)


def numbers(values: object) -> str:
    """Returns numbers with three digits."""
    return " ".join(f"{value:.3f}" for value in values) if isinstance(values, list) else "-"


def class_text(classes: object) -> str:
    """Returns `bonsai 93, butterfly 56, ...`."""
    if not isinstance(classes, dict) or not classes:
        return "-"
    words = [f"{name} {count}" for name, count in classes.items()]
    more = f" and {len(words) - SHOWN_CLASSES} more" if len(words) > SHOWN_CLASSES else ""
    return ", ".join(words[:SHOWN_CLASSES]) + more
