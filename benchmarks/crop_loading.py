"""Compares the speed of segmentation and keypoint crops with mmsegmentation's and mmpose's pipelines.

    python benchmarks/crop_loading.py --peer <python of their environment> [--mmpose <checkout>] --camvid <folder> --coco-person <folder>

Each pipeline runs in a process of its own, on one thread. They take turns: in every round each makes the same number of
training samples from files, to normalized batches, and reports its CPU time. Prints samples per second of CPU time (medians of
the rounds) and the median of the ratios; above 1 spine is faster.

- segmentation: RandomResize (ratio 0.5 to 2.0), RandomCrop (256x256, at most 75 % of one class), flip, PhotometricDistortion, padding;
- keypoints: flip, half body, box transform and affine crop of mmpose 1 (augment=pose_mmpose), 256x192.

The targets of keypoints are left out: spine makes them in the training step, mmpose in its pipeline. The peer's environment has
mmsegmentation 1.2.2 and mmcv-lite 2.1.0; mmpose is read from a checkout, without what it imports and does not use here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

BATCH = 16
CROP = 256, 256  # height, width of segmentation crops
SCALE = 480, 360  # width, height of CamVid's images
PERSON = 256, 192  # height, width of keypoint crops
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SRC = Path(__file__).parents[1] / "src"


# ---- the processes: each is started with the name of its pipeline and its folder, reads numbers of samples, and prints seconds ----


def spine_batches(kind: str, root: str) -> Iterator[object]:
    """Yields normalized training batches of spine."""
    from functools import partial

    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations

    from spine.data.data_module import DataModule
    from spine.data.formats.coco_keypoints import COCOKeypoints
    from spine.data.formats.mask_folder import MaskFolder
    from spine.data.transforms import Pad, PhotometricDistortion, RandomCrop, RandomResize, TopDownAffine

    if kind == "segmentation":
        height, width = CROP
        steps = [
            RandomResize(SCALE[::-1], (0.5, 2.0)),
            RandomCrop((height, width), 0.75),
            albumentations.HorizontalFlip(p=0.5),
            PhotometricDistortion(),
            Pad((height, width)),
        ]
        open_split = partial(MaskFolder, root=root, pairs="{split}.txt", ignore_index=11)
        needs = {"image", "mask"}
    else:
        steps = [
            TopDownAffine(
                PERSON,
                distribution="truncated_normal",
                scale=0.5,
                rotate=80,
                rotate_probability=0.6,
                shift=0.2,
                shift_probability=0.3,
                half_body=0.3,
                flip=0.5,
            )
        ]
        open_split = partial(COCOKeypoints, root=root, images="{split}", annotations="annotations/person_keypoints_{split}.json")
        needs = {"image", "keypoints"}
    data = DataModule(open_split, steps, needs=needs, batch_size=BATCH, num_workers=0)
    while True:
        for batch in data.loader("train", training=True):
            yield data.on_after_batch_transfer(batch, 0)


def mmseg_batches(root: str) -> Iterator[object]:
    """Yields normalized training batches of mmsegmentation."""
    from unittest import mock

    sys.modules["mmcv._ext"] = mock.MagicMock()  # mmcv-lite has no compiled operations; mmseg imports them, and none is used here
    from mmcv.transforms import LoadImageFromFile, RandomFlip, RandomResize, Resize
    from mmseg.datasets.transforms import LoadAnnotations, PackSegInputs, PhotoMetricDistortion, RandomCrop
    from mmseg.models.data_preprocessor import SegDataPreProcessor
    from mmseg.registry import TRANSFORMS

    TRANSFORMS.register_module(name="Resize", module=Resize, force=True)  # RandomResize looks for it in mmseg's registry
    steps = [
        LoadImageFromFile(),
        LoadAnnotations(),
        RandomResize(scale=SCALE, ratio_range=(0.5, 2.0), keep_ratio=True),
        RandomCrop(crop_size=CROP, cat_max_ratio=0.75),
        RandomFlip(prob=0.5),
        PhotoMetricDistortion(),
        PackSegInputs(),
    ]
    normalize = SegDataPreProcessor(
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        bgr_to_rgb=True,
        size=CROP,
        pad_val=0,
        seg_pad_val=255,
    )
    pairs = [line.split() for line in (Path(root) / "train.txt").read_text().splitlines()]
    base = {"reduce_zero_label": False, "seg_fields": []}
    samples = cycle([{"img_path": f"{root}/{image}", "seg_map_path": f"{root}/{mask}", **base} for image, mask in pairs])
    while True:
        packed = [applied(steps, {**sample, "seg_fields": []}) for sample in islice(samples, BATCH)]
        yield normalize(
            {"inputs": [each["inputs"] for each in packed], "data_samples": [each["data_samples"] for each in packed]},
            training=True,
        )


def mmpose_batches(root: str) -> Iterator[object]:
    """Yields normalized training batches of mmpose."""
    import json
    from unittest import mock

    import numpy as np

    for name in (
        "mmcv._ext",
        "xtcocotools",
        "xtcocotools.coco",
        "xtcocotools.mask",
        "xtcocotools.cocoeval",
        "json_tricks",
        "munkres",
    ):
        sys.modules[name] = mock.MagicMock()  # imported, and not used here
    from mmengine.model import ImgDataPreprocessor
    from mmpose.datasets.transforms import (
        GetBBoxCenterScale,
        LoadImage,
        PackPoseInputs,
        RandomBBoxTransform,
        RandomFlip,
        RandomHalfBody,
        TopdownAffine,
    )

    height, width = PERSON
    steps = [
        LoadImage(),
        GetBBoxCenterScale(),
        RandomFlip(direction="horizontal"),
        RandomHalfBody(),
        RandomBBoxTransform(),
        TopdownAffine(input_size=(width, height)),
        PackPoseInputs(),
    ]
    normalize = ImgDataPreprocessor(mean=[255 * value for value in MEAN], std=[255 * value for value in STD], bgr_to_rgb=True)
    content = json.loads((Path(root) / "annotations" / "person_keypoints_train.json").read_text())
    files = {image["id"]: f"{root}/train/{image['file_name']}" for image in content["images"]}
    persons = []
    for person in content["annotations"]:
        if person.get("iscrowd") or not person["num_keypoints"]:
            continue
        x, y, w, h = person["bbox"]
        points = np.array(person["keypoints"], np.float32).reshape(1, -1, 3)
        persons.append(
            {
                "img_path": files[person["image_id"]],
                "bbox": np.array([[x, y, x + w, y + h]], np.float32),
                "bbox_score": np.ones(1, np.float32),
                "keypoints": points[..., :2],
                "keypoints_visible": np.minimum(1, points[..., 2]),
                "flip_indices": [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
                "upper_body_ids": list(range(11)),
                "lower_body_ids": list(range(11, 17)),
            }
        )
    samples = cycle(persons)
    while True:
        packed = [
            applied(steps, {key: getattr(v, "copy", lambda v=v: v)() for key, v in each.items()})
            for each in islice(samples, BATCH)
        ]
        yield normalize({"inputs": [each["inputs"] for each in packed]}, training=True)


def applied(steps: list, sample: dict) -> dict:
    """Returns a sample after the steps of an OpenMMLab pipeline."""
    for step in steps:
        sample = step(sample)
    return sample


def work(pipeline: str, root: str) -> None:
    """Prints the CPU seconds of each number of samples on the standard input."""
    import time

    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if pipeline.startswith("spine"):
        batches = spine_batches(pipeline.removeprefix("spine-"), root)
    else:
        batches = mmseg_batches(root) if pipeline == "segmentation" else mmpose_batches(root)
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(int(line) // BATCH):
            next(batches)
        print(f"seconds {time.process_time() - start}", flush=True)


# ---- the comparison ----


def started(python: str, pipeline: str, root: Path, checkout: str | None) -> subprocess.Popen[str]:
    """Starts a process that makes samples with a pipeline."""
    path = str(SRC) if pipeline.startswith("spine") else checkout or ""
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [python, __file__, "--work", pipeline, str(root)]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def seconds(process: subprocess.Popen[str], count: int) -> float:
    """Returns the CPU time in which a process makes `count` samples. Other lines that it prints are left out."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{count}\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("seconds "):
            return float(line.split()[1])
    sys.exit("A pipeline has ended with the error above.")


def compare(name: str, own: subprocess.Popen[str], other: subprocess.Popen[str], rounds: int, samples: int) -> str:
    """Returns a row of the table: samples per second of both, and the ratio."""
    for process in (own, other):
        seconds(process, 2 * BATCH)
    rates = []
    for number in range(rounds):
        order = (own, other) if number % 2 else (other, own)
        times = {process.pid: seconds(process, samples) for process in order}
        rates.append([samples / times[process.pid] for process in (own, other)])
        print(f"{name}, round {number + 1}: spine {rates[-1][0]:.0f}, the other {rates[-1][1]:.0f} samples/s", file=sys.stderr)
    ratios = [ours / theirs for ours, theirs in rates]
    ours, theirs = (statistics.median(column) for column in zip(*rates, strict=True))
    for process in (own, other):
        process.kill()
        process.wait()
    return f"| {name} | {ours:.0f} | {theirs:.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"


def main() -> None:
    """Measures the pipelines whose data and peers are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python of the environment with mmsegmentation and mmcv-lite")
    parser.add_argument("--mmpose", help="a checkout of mmpose; without it keypoints are left out")
    parser.add_argument("--camvid", type=Path)
    parser.add_argument("--coco-person", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=320, help="of each pipeline in a round, rounded down to batches of 16")
    parser.add_argument("--work", nargs=2, metavar=("PIPELINE", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not (given.work or given.camvid or given.coco_person):
        parser.error("nothing to measure: give --camvid <folder>, --coco-person <folder>, or both.")
    if given.work:
        work(*given.work)
        return
    if not given.peer:
        sys.exit("Give the Python of an environment with mmsegmentation: --peer <python>.")
    rows = ["| crops | spine, samples/s | OpenMMLab, samples/s | ratio (smallest to largest) |", "|---|---|---|---|"]
    samples = given.samples // BATCH * BATCH
    for kind, root in (("segmentation", given.camvid), ("keypoints", given.coco_person)):
        if root is None or (kind == "keypoints" and not given.mmpose):
            continue
        own = started(sys.executable, f"spine-{kind}", root, None)
        rows.append(compare(kind, own, started(given.peer, kind, root, given.mmpose), given.rounds, samples))
    print("\n".join(rows))


if __name__ == "__main__":
    main()
