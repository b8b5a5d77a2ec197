"""Writes docs/weights.md: published layouts that load, with the differences in outputs.

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

KINDS = {"cls": "classifier", "seg": "segmentation", "pose": "pose", "mae": "pre-training", "beit": "pre-training"}
HEAD = """# Published weights

This page lists which published checkpoints spine loads. It is written by

    python tests/weights_table.py > docs/weights.md

Nothing in a file is executed when it is read. The names of the tensors determine the layout. A layout
describes how one publisher names the tensors of a network, and sets the conventions that its networks
follow (epsilons, padding, pooling, order of channels). The shapes of the tensors determine the variant.
The files of timm's `tf_mobilenetv3_large_*` and `tf_mobilenetv3_small_*` have the same tensor names as its
other MobileNetV3 files, so they need `layout=timm_tf` (the `minimal` variants do not).

No tensor tells whether the corners of maps are aligned in HRNet's segmentation networks. The authors'
files of Cityscapes, PASCAL-Context and LIP have no aligned corners and need no key; those of ADE20K and
COCO-Stuff need `layout=official_aligned`. HRNet with OCR is always aligned. The upsampling of the logits
to the image, which the authors align as well, is not a part of the network.

TensorFlow's checkpoints (format V2) of MobileNetV2, of MobileNetV3 and of the authors' DeepLab on
MobileNetV2 are read without TensorFlow: unpack the archive and give the path of the `.index` file; the
`.data` file must be beside it. Averaged weights are taken if the checkpoint has them, as transformers and
the authors' example do. The classifiers have 1001 classes, of which the first is the background. DeepLab
has output stride 16, at which it was trained; transformers' file of it has 8.

Whole segmentation networks open with `task=seg` and the head in the column "network". Auxiliary heads are
loaded, and left out if a file has none. transformers' configuration of BeitForSemanticSegmentation counts
from the patch embedding and reads its maps two blocks earlier than the authors' network, with which its
weights were trained; spine reads the authors' maps.

Files that do not open:

- Frozen graphs (`.pb`), `.tflite` and Keras' `.h5` of MobileNetV2 and MobileNetV3, and TensorFlow's
  checkpoints in the format V1 (one file without `.index`). The authors' archives contain a checkpoint of
  the format V2 beside them.
- OpenMMLab's PSPNet and DeepLabv3 heads: spine has no such heads. Their backbones load.
- UPerNet of OpenMMLab on MAE and ViT: MAE's dense network there has relative position biases.

## Layouts that load

Each row was measured as follows. The publisher's own network (last column) gets random weights that are
drawn from the names of its tensors. The same weights are saved under these names in a file, and
`spine.create_model(name, weights=FILE)` loads the file. The variant and the conventions are detected
from the file. Only the task, its head, the number of outputs, the image size, a dropout of 0 and, if it
is needed, `layout=timm_tf` are given.

- "tensors" is the number of tensors in the file.
- "outputs" is the largest difference between the outputs of the two networks, divided by the standard
  deviation of the outputs (the larger value of the tested image sizes, in float64).
- "training step" is the largest difference in gradients and running statistics after one training step,
  divided by the norm of each tensor (in float64). It is empty if no training step was recorded.
- "as in files" and "as in memory": transformers 5 renames some tensors when it saves a network. Files with
  either set of names load.
- "of our widths": the publisher's network, built with the widths of our `micro` variant.

Rows that look the same differ in image size or pooling; `tests/references/` contains the exact
settings. No file of a publisher was opened for this table.
"""
NAMES = """
## Weights that can be downloaded by name

The names, with licenses and published results, are on the page of each model: [models](models/index.md). Use
`backbone.weights=NAME` on the command line or `create_model(..., weights=NAME)` in Python. Files are stored in
the folder `SPINE_CACHE` (default: `~/.cache/spine`). If the publisher provides a hash, the file is checked
against it.
"""


def differences(case) -> tuple[int, str, str]:
    """Returns the number of tensors in the file and the differences in the outputs and in the training step."""
    expected = json.loads((RECORDS / f"{case.name}.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.pth")
        torch.save(draw({key: tuple(shape) for key, shape in expected["keys"].items()}), path)
        net = spine.create_model(
            case.backbone, **{"num_outputs": CLASSES, "weights": path, "layout": case.layout, **case.options}
        )
    found = measure(net, case, case.ours, dict, case.our_loss)
    outputs, step = [], []
    for size, values in expected["outputs"].items():
        reference = torch.tensor(values, dtype=torch.float64)
        difference = torch.tensor(found["outputs"][size], dtype=torch.float64) - reference
        outputs.append((difference.abs().max() / reference.std()).item())
    if "loss" in expected:
        largest = max(norm for norm, _ in expected["step"].values())
        for key, (norm, product) in expected["step"].items():
            found_norm, found_product = found["step"][key]
            difference = max(abs(found_norm - norm), abs(found_product - product))
            step.append(difference / max(norm, 1e-4 * largest))
    return len(expected["keys"]), f"{max(outputs):.0e}", f"{max(step):.0e}" if step else ""


def print_layouts() -> None:
    """Prints the table of layouts with the measured differences."""
    print("| backbone | layout | network | tensors | outputs | training step | compared with |")
    print("|---|---|---|---|---|---|---|")
    for case in cases():
        with contextlib.redirect_stdout(sys.stderr):
            tensors, outputs, step = differences(case)
        head = case.options.get("head")
        kind = KINDS[case.options.get("task", "cls")] + (f", {head}" if head else "")
        source = json.loads((RECORDS / f"{case.name}.json").read_text())["source"]
        print(f"| {case.backbone} | {case.publisher} | {kind} | {tensors} | {outputs} | {step} | {source} |", flush=True)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    print(HEAD)
    print_layouts()
    print(NAMES, end="")


if __name__ == "__main__":
    main()
