"""Where a run comes from, in its report: machine, versions, data, pretrained weights, and the commands to go on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spine.command_lines import quote_path, short_path, sibling_command

MAX_HASH = 12  # characters of a hash
STATUSES = {
    "matched": "loaded from the file",
    "resized": "of them resized to this network",
    "new": "new, randomly initialized",
    "unused": "in the file, and not in this network",
}  # of the tensors in weights.txt


@dataclass(frozen=True)
class WeightsReport:
    """What was loaded from a file of pretrained weights: names of tensors by status."""

    file: str
    tensors: Mapping[str, Sequence[str]]  # keys of STATUSES

    @property
    def counts(self) -> list[tuple[int, str]]:
        """Numbers of tensors, and what they are."""
        return [(len(names), STATUSES[status]) for status, names in self.tensors.items()]


def read_weights(folder: Path, starts: Sequence[Mapping[str, object]]) -> WeightsReport | None:
    """Returns the content of weights.txt, or None for a run without pretrained weights."""
    path = folder / "weights.txt"
    if not path.is_file():
        return None
    tensors: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        status, _, name = line.partition(" ")
        if status in STATUSES:
            tensors.setdefault(status, []).append(name)
    return WeightsReport(str(starts[-1].get("weights") or "") if starts else "", tensors)


def origin_facts(starts: Sequence[Mapping[str, object]]) -> dict[str, str]:
    """Returns machine, versions, code and data of a run, as it was started last."""
    if not starts:
        return {}
    last = starts[-1]
    changed = ", with uncommitted changes" if last.get("uncommitted_changes") else ""
    facts = {
        "device": last.get("device"),
        "processes": last.get("processes"),
        "host": last.get("host"),
        "started": ", ".join(str(start.get("time", "")).replace("T", " ")[:19] for start in starts),
        "code": f"commit {str(last['commit'])[:MAX_HASH]}{changed}" if last.get("commit") else None,
        "versions": _listed(last.get("versions")),
        "seeds": _listed(last.get("seeds")),
        "data": _listed(last.get("data")),
        "weights": last.get("weights"),
    }
    return {name: str(value) for name, value in facts.items() if value}


def _listed(values: object) -> str:
    """Returns the items of a dictionary as text, hashes shortened."""
    if not isinstance(values, Mapping):
        return ""
    texts = {key: str(value) for key, value in values.items()}
    return ", ".join(f"{key} {value[:MAX_HASH] if len(value) == 64 else value}" for key, value in texts.items())


def next_commands(checkpoint: Path, started: str) -> dict[str, str]:
    """Returns the commands that evaluate a checkpoint, predict with it, and export it.

    `started`: the command of the run; the others are started in the same way.
    """
    path = _override("ckpt_path", checkpoint)
    return {
        "evaluate": sibling_command(started, "eval", path),
        "predict": sibling_command(started, "predict", f"{path} source=<image or folder>"),
        "export": sibling_command(started, "export", f"{path} format=onnx out=model.onnx"),
    }


def repeat_commands(folder: Path, started: str) -> dict[str, str]:
    """Returns the command that started a run, and the one that repeats it from its stored configuration."""
    if not started:
        return {}
    return {"started with": started, "repeat": sibling_command(started, "train", _override("rerun", folder))}


def _override(key: str, path: Path) -> str:
    """Returns an override with a path, quoted for Hydra and the shell if needed."""
    override = f"{key}={quote_path(Path(short_path(path)))}"
    return shlex.quote(override) if '"' in override else override
