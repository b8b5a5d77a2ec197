"""Writes docs/weights.md: which published files open, how far the outputs are from the publisher's, and which can be fetched by name.

python tests/weights_table.py > docs/weights.md
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path

import torch
from recording import CLASSES, RECORDS, cases, draw, measure

import spine
from spine.components import backbone_module

KINDS = {"cls": "classifier", "seg": "segmenter", "pose": "pose network", "mae": "pre-training", "beit": "pre-training"}
HEAD = """# PublishedWeights weights

    python tests/weights_table.py > docs/weights.md

A file is read without running anything in it; its names tell the layout, the layout brings its conventions (epsilons, padding, pooling,
order of channels), its shapes tell the variant. `layout=timm_tf` says what a file cannot.

## What opens

Each row was measured: the publisher's own network (the last column) got random weights, drawn from the names of its tensors; the same
weights, in a file of its names, were opened by `spine.create_model(name, weights=FILE)`: variant and conventions are the file's own (only
the image size and the task are named, and `layout=timm_tf`). Deviations are in float64: of outputs relative to their standard deviation
(the larger of two image sizes), of the training step (gradients and running statistics) relative to each tensor's
norm. No file of a publisher was opened for this table.
"""
NAMES = """
## What can be fetched by name

`backbone.weights=NAME` or `create_model(..., weights=NAME)`. Files are kept in `SPINE_CACHE` (else `~/.cache/spine`) and checked by their
hash where one is published. Metrics are the publishers'; none was measured here.
"""


def deviations(case) -> tuple[int, str, str]:
    """Tensors of the file, deviation of the outputs and of the training step."""
    expected = json.loads((RECORDS / f"{case.name}.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.pth")
        torch.save(draw({key: tuple(shape) for key, shape in expected["keys"].items()}), path)
        net = spine.create_model(case.backbone, **{"num_outputs": CLASSES, "weights": path, "layout": case.told, **case.options})
    found = measure(net, case, case.ours, dict)
    outputs, step = [], []
    for size, values in expected["outputs"].items():
        theirs = torch.tensor(values, dtype=torch.float64)
        outputs.append(((torch.tensor(found["outputs"][size], dtype=torch.float64) - theirs).abs().max() / theirs.std()).item())
    if "loss" in expected:
        largest = max(norm for norm, _ in expected["step"].values())
        for key, (norm, product) in expected["step"].items():
            ours = found["step"][key]
            step.append(max(abs(ours[0] - norm), abs(ours[1] - product)) / max(norm, 1e-4 * largest))
    return len(expected["keys"]), f"{max(outputs):.0e}", f"{max(step):.0e}" if step else ""


def main() -> None:
    torch.set_default_dtype(torch.float64)
    print(HEAD)
    print("| system | layout | what | tensors | outputs | training step | measured against |")
    print("|---|---|---|---|---|---|---|")
    for case in cases():
        with contextlib.redirect_stdout(sys.stderr):
            tensors, outputs, step = deviations(case)
        what = KINDS[case.options.get("task", "cls")]
        source = json.loads((RECORDS / f"{case.name}.json").read_text())["source"]
        print(f"| {case.backbone} | {case.publisher} | {what} | {tensors} | {outputs} | {step} | {source} |", flush=True)
    print(NAMES)
    print("| backbone | variant | name | pixels | license | as published |")
    print("|---|---|---|---|---|---|")
    for backbone in spine.list_backbones():
        for variant, rows in backbone_module(backbone).WEIGHTS.items():
            for name, row in rows.items():
                link, size = f"[{name}]({row.address})", row.image_size or ""
                size = "x".join(map(str, size)) if isinstance(size, tuple) else size
                print(f"| {backbone} | {variant} | {link} | {size} | {row.license} | {row.metric} |")


if __name__ == "__main__":
    main()
