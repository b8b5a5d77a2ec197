"""Exports every backbone with every task in every format, and makes the tables of docs/export.md.

    python benchmarks/export_formats.py export folder=logs/exports [backbones=convnext,vit] [tasks=cls,seg] [variant=micro] [size=64,96]
    python benchmarks/export_formats.py time folder=logs/exports [rounds=30]
    python benchmarks/export_formats.py table folder=logs/exports

`export` writes the files, compares each with PyTorch, and adds a line to results.jsonl; what is there already is left out. `time` opens
each file again and times it with one image, in turns with PyTorch in the same process. `table` prints Markdown. Networks have random
weights with running statistics of a few images, and images are rendered.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import nn

import spine
from spine.checkpoints.formats import layouts_of
from spine.components import task_spec
from spine.config.building import build_task
from spine.config.checks import prepare
from spine.config.conf_folder import conf_folder
from spine.config.resolving import to_plain
from spine.data.building import build_data
from spine.exporting.checking import measure_latency, megabytes, run_pytorch
from spine.exporting.graph_export import OPENERS, export_graph
from spine.exporting.options import GRAPHS, ExportOptions
from spine.exporting.samples import SampleSource
from spine.exporting.weight_files import example_inputs, export_weights
from spine.prediction.description import ModelDescription
from spine.prediction.predictor import Predictor
from spine.tokenizers.dvae import DiscreteVAE

TASKS = ("cls", "seg", "pose", "mae", "beit")
DEFAULTS = {
    "folder": "logs/exports",
    "backbones": "",
    "tasks": "",
    "formats": "",
    "variant": "micro",
    "size": "64,96",
    "rounds": "30",
}
Row = dict[str, Any]


def main() -> None:
    step, *arguments = sys.argv[1:] or ["--help"]
    if step not in STEPS:
        sys.exit(__doc__)
    options = {**DEFAULTS, **dict(argument.split("=", 1) for argument in arguments)}
    if unknown := options.keys() - DEFAULTS.keys():
        sys.exit(f"Unknown key '{min(unknown)}'. Choices: {', '.join(DEFAULTS)}.")
    STEPS[step](Path(options["folder"]), options)


def make_source(backbone: str, task: str, variant: str, size: tuple[int, int]) -> SampleSource:
    """A predictor of a network with random weights, on rendered images."""
    overrides = [f"backbone={backbone}", f"backbone.variant={variant}", f"task={task}", "dataset=shapes"]
    overrides += [f"image_size=[{size[0]},{size[1]}]", "trainer.precision=32-true", "trainer.accelerator=cpu"]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = prepare(to_plain(compose("train", overrides)), with_files=False)
    tokenizer = DiscreteVAE("small") if task == "beit" else None
    labels = build_data(config).split("val").labels
    config["num_outputs"] = tokenizer.num_codes if tokenizer is not None else task_spec(task).count_outputs(labels)
    torch.manual_seed(0)
    built, _ = build_task(config, labels, tokenizer)
    predictor = Predictor(
        ModelDescription.of_task(config, built), built.model, tokenizer=tokenizer, device="cpu", precision="32-true"
    )
    source = SampleSource(predictor, None, size)
    settle(built.model, source)
    return source


@torch.no_grad()
def settle(model: nn.Module, source: SampleSource) -> None:
    """Gives batch norms the statistics of a few images: with those of a new network, outputs vanish."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    batch = [torch.cat(each) for each in zip(*source.inputs("val", 8), strict=True)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    model(*batch)
    model.eval()


def cases(options: dict[str, str]) -> Iterator[tuple[str, str, list[str]]]:
    """Backbone, task and formats of each network."""
    for backbone in options["backbones"].split(",") if options["backbones"] else spine.list_backbones():
        publishers = {layout.publisher for layout in layouts_of(backbone) if layout.writable}
        formats = options["formats"].split(",") if options["formats"] else [*GRAPHS, "safetensors", *sorted(publishers)]
        for task in options["tasks"].split(",") if options["tasks"] else TASKS:
            yield backbone, task, formats


def export(folder: Path, options: dict[str, str]) -> None:
    height, width = map(int, options["size"].split(","))
    folder.mkdir(parents=True, exist_ok=True)
    done = {(row["backbone"], row["task"], row["format"]) for row in read(folder)}
    for backbone, task, formats in cases(options):
        missing = [each for each in formats if (backbone, task, each) not in done]
        if not missing:
            continue
        source = make_source(backbone, task, options["variant"], (height, width))
        for each in missing:
            row = {"backbone": backbone, "variant": options["variant"], "task": task, "format": each}
            row |= {"size": [height, width], **export_one(source, folder, f"{backbone}-{task}", each)}
            print(row, flush=True)
            with (folder / "results.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")


def export_one(source: SampleSource, folder: Path, name: str, kind: str) -> Row:
    suffix = GRAPHS[kind][0] if kind in GRAPHS else ".safetensors"
    options = ExportOptions(kind, folder / f"{name}-{kind}{suffix}", samples=4, latency_rounds=0)
    try:
        if kind in GRAPHS:
            done = export_graph(source, options)
            sizes = "one" if done.facts.image_size is not None else str(done.facts.size_multiple)
            return {"relative": done.difference.relative, "megabytes": done.megabytes, "sizes": sizes, "file": done.files[0].name}
        model: Any = source.predictor.task.model
        written = export_weights(model.config, model, {}, example_inputs(model, source.size), options)
        return {"relative": written.difference.relative, "megabytes": megabytes(written.files[:1])}
    except ValueError as error:  # spine.errors.InputError: says why not
        return {"refused": str(error)}


def read(folder: Path) -> list[Row]:
    path = folder / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def time_files(folder: Path, options: dict[str, str]) -> None:
    rows, latest = read(folder), {}
    for row in rows:
        if "file" not in row or row["format"] not in GRAPHS:
            continue
        key = (row["backbone"], row["task"], row["variant"], *row["size"])
        if latest.get("key") != key:
            source = make_source(row["backbone"], row["task"], row["variant"], tuple(row["size"]))
            latest = {"key": key, "source": source, "inputs": next(source.inputs("val", 1))}
        source, inputs = latest["source"], latest["inputs"]
        call = OPENERS[row["format"]](folder / row["file"])
        latency = measure_latency(run_pytorch(source.predictor.task.model), call, (inputs, inputs), int(options["rounds"]))
        row["latency"], row["pytorch"] = latency.file, latency.pytorch
        print(row["file"], latency, flush=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(folder: Path, options: dict[str, str]) -> None:
    """Prints one table for each task: the graphs with difference, size and latency; and one of the weights."""
    rows = {(row["backbone"], row["task"], row["format"]): row for row in read(folder)}
    backbones = sorted({key[0] for key in rows})
    first = next(iter(rows.values()))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    print(
        f"Variant {first['variant']}, {first['size'][0]}x{first['size'][1]} pixels, one image, CPU with {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}, onnxruntime {version('onnxruntime')}, commit {commit}.\n"
    )
    for task in [each for each in TASKS if any(key[1] == each for key in rows)]:
        print(f"### {task}\n\n| backbone | {' | '.join(GRAPHS)} |\n|---{'|---' * len(GRAPHS)}|")
        for backbone in backbones:
            print(f"| {backbone} | {' | '.join(graph_cell(rows.get((backbone, task, each))) for each in GRAPHS)} |")
        print()
    print("### Weights\n")
    publishers = sorted({key[2] for key, row in rows.items() if "refused" not in row} - GRAPHS.keys() - {"safetensors"})
    formats = ["safetensors", *publishers]
    print(f"| backbone | {' | '.join(formats)} |\n|---{'|---' * len(formats)}|")
    for backbone in backbones:
        cells = [
            ", ".join(filter(None, (weight_cell(rows.get((backbone, task, each)), task) for task in TASKS))) for each in formats
        ]
        print(f"| {backbone} | {' | '.join(cells)} |")


def graph_cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "refused" in row:
        return f"no: {row['refused']}"
    sizes = {"one": "one size", "1": "any size"}.get(row["sizes"], f"multiples of {row['sizes']}")
    timed = f", {row['latency']:.1f} ms ({row['pytorch']:.1f})" if "latency" in row else ""
    return f"{row['relative']:.0e}, {row['megabytes']:.1f} MB{timed}, {sizes}"


def weight_cell(row: Row | None, task: str) -> str:
    return "" if row is None or "refused" in row else f"{task} {row['relative']:.0e}"


STEPS = {"export": export, "time": time_files, "table": table}

if __name__ == "__main__":
    main()
