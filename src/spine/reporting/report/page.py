"""Writes report.html into a run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from spine.reporting.pages.page import write_page
from spine.reporting.report.classes import read_classes, read_confusion
from spine.reporting.report.configuration import configuration_of, read_changes
from spine.reporting.report.curves import curve_panels
from spine.reporting.report.headline import cost_numbers, metric_numbers
from spine.reporting.report.origin import next_commands, origin_facts, read_weights, repeat_commands
from spine.reporting.report.pictures import find_pictures
from spine.reporting.run_record import Changes, read_run

FILE = "report.html"
RELOAD_SECONDS = 30  # of the page of a run that is training

Json = Mapping[str, object]


def write_report(folder: Path, running: bool | None = None, progress: str = "", changes: Changes | None = None) -> Path:
    """Writes the report of a run folder, and returns its path. An existing one is replaced only when the new one is complete.

    `running`: see `read_run`. `progress`: where a running training is. `changes`: in what the configuration differs from
    the defaults, for a run that has no changes.json.
    """
    record, results, starts = read_run(folder, running), _read_json(folder / "metrics.json"), _starts(folder)
    monitor, split = record.monitor or "val/loss", record.split or "val"
    panels = [] if record.split else curve_panels(record.history, monitor)
    content = {
        "record": record,
        "monitor": monitor,
        "split": split,
        "progress": progress,
        "written": datetime.now().astimezone(),
        "reload": RELOAD_SECONDS if record.status == "running" else None,
        "evaluated": results.get("checkpoint"),
        "evaluation": results.get("evaluation"),
        "averaged": results.get("weights") == "average",
        "metrics": metric_numbers(record),
        "costs": cost_numbers(record, _int(results.get("steps"))),
        "panels": panels,
        "configuration": configuration_of(record, read_changes(folder) or changes),
        "origin": origin_facts(starts) | ({"measured on": str(record.costs["device"])} if "device" in record.costs else {}),
        "weights": read_weights(folder, starts),
        "commands": _commands(folder, results, starts),
        "data": {"panels": panels},
        **_evaluated(folder, split),
    }
    path = folder / FILE
    write_page(path, "spine.reporting.report", "report.html", content)
    return path


def _evaluated(folder: Path, split: str) -> dict[str, object]:
    """Returns the tables and the pictures of the last evaluation. What is shown as a table is not shown as a picture."""
    matrix, classes = read_confusion(folder, split), read_classes(folder, split)
    tables = {"confusion": matrix is not None and matrix.rows, "classes": classes}
    pictures = find_pictures(folder, split, [name for name, table in tables.items() if table])
    return {"matrix": matrix, "classes": classes, "pictures": pictures}


def _commands(folder: Path, results: Json, starts: Sequence[Json]) -> dict[str, str]:
    """Returns the commands that repeat the run, and those that use its checkpoint, if there is one."""
    started = str(starts[0].get("command", "")) if starts else ""
    checkpoint = _checkpoint(folder, results)
    return repeat_commands(folder, started) | (next_commands(checkpoint, started) if checkpoint is not None else {})


def _read_json(path: Path) -> Json:
    """Returns the content of a JSON file, or nothing if it does not exist or cannot be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _starts(folder: Path) -> list[Json]:
    starts = _read_json(folder / "starts.json").get("starts")
    return starts if isinstance(starts, list) else []


def _int(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _checkpoint(folder: Path, results: Json) -> Path | None:
    """Returns the checkpoint that was evaluated, in the run folder even if that was moved, or the last one, or None."""
    evaluated = Path(str(results.get("checkpoint") or "best.ckpt"))
    own = folder / "checkpoints"
    candidates = (own / evaluated.name, own / "best.ckpt", own / "last.ckpt", evaluated)
    return next((path for path in candidates if path.is_file()), None)
