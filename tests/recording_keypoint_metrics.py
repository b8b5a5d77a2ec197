"""Records evaluations of keypoints by pycocotools and by HRNet's code: inputs and outputs.

    SPINE_CHECKOUTS=<folder> python tests/recording_keypoint_metrics.py        (in an environment with pycocotools)

The folder holds a checkout of leoxiaobin/deep-high-resolution-net.pytorch. The result is tests/records/keypoint_metrics.json, with
which tests/test_keypoint_evaluation.py compares.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from recording import RECORDS, to_json

FILE = RECORDS / "keypoint_metrics.json"
HRNET = "deep-high-resolution-net.pytorch"
SIGMAS = {17: None, 5: [0.05, 0.05, 0.04, 0.03, 0.03]}  # None: COCO's own


def annotations(rng: np.random.Generator, count: int) -> dict[str, Any]:
    """Returns an annotation file: labeled objects of all sizes, crowds, objects without labels, and images without objects."""
    images = [{"id": number, "file_name": f"{number}.png", "width": 640, "height": 480} for number in range(1, 15)]
    objects: list[dict[str, Any]] = []
    for image in images[:-2]:
        for _ in range(rng.integers(0, 5)):
            side = rng.uniform(20, 300, 2)
            corner = rng.uniform(0, (640, 480) - side * 0.8)
            visible = rng.choice([0, 1, 2], count, p=[0.3, 0.2, 0.5]) * (rng.random() > 0.2)
            points = np.concatenate([corner + rng.random((count, 2)) * side, visible[:, None]], 1) * (visible[:, None] > 0)
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": image["id"],
                    "category_id": 1,
                    "keypoints": points.round(1).flatten().tolist(),
                    "num_keypoints": int((visible > 0).sum()),
                    "bbox": [*corner.round(1).tolist(), *side.round(1).tolist()],
                    "area": float((side.prod() * rng.uniform(0.4, 0.9)).round(1)),
                    "iscrowd": int(rng.random() < 0.12),
                }
            )
    names = [f"point{i}" for i in range(count)]
    return {
        "images": images,
        "annotations": objects,
        "categories": [{"id": 1, "name": "one", "keypoints": names, "skeleton": []}],
    }


def results(rng: np.random.Generator, content: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Returns predictions: near most objects, twice near some, and at random places, also in images without objects."""
    found: list[dict[str, Any]] = []

    def add(image: int, points: np.ndarray) -> None:
        scores = rng.uniform(0.05, 1, (count, 1))
        rounded = np.concatenate([points.round(1), scores.round(3)], 1).flatten().tolist()
        found.append({"image_id": image, "category_id": 1, "keypoints": rounded, "score": float(rng.random().__round__(4))})

    for each in content["annotations"]:
        true, (x, y, width, height) = np.array(each["keypoints"]).reshape(count, 3), each["bbox"]
        random = np.array([x, y]) + rng.random((count, 2)) * (width, height)
        for _ in range(rng.integers(0, 3)):
            noise = rng.normal(0, rng.uniform(0.005, 0.1) * np.sqrt(each["area"]), (count, 2))
            add(each["image_id"], np.where(true[:, 2:] > 0, true[:, :2], random) + noise)
    for image in rng.choice([image["id"] for image in content["images"]], 8):
        add(int(image), rng.uniform(0, 480, (count, 2)))
    return found


def of_pycocotools(content: dict[str, Any], found: list[dict[str, Any]], sigmas: list[float] | None) -> list[float]:
    """Returns the ten statistics of pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        for name, part in (("gt", content), ("dt", found)):
            Path(folder, name).write_text(json.dumps(part))
        truth = COCO(f"{folder}/gt")
        evaluation = COCOeval(truth, truth.loadRes(f"{folder}/dt"), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def hrnet(name: str) -> ModuleType:
    """Imports a module of HRNet's code. Modules that it does not need here are mocked."""
    tricks = SimpleNamespace(load=json.load, dump=lambda content, file, **_: json.dump(content, file, default=float))
    mocked = {"nms.cpu_nms": mock.MagicMock(), "nms.gpu_nms": mock.MagicMock(), "json_tricks": tricks}
    sys.modules.update(mocked)  # type: ignore[arg-type]
    np.float = float  # type: ignore[attr-defined]  # removed from numpy
    if (library := str(Path(os.environ["SPINE_CHECKOUTS"], HRNET, "lib"))) not in sys.path:
        sys.path.insert(0, library)
    return importlib.import_module(name)


def crowded_image(rng: np.random.Generator, people: int, count: int = 17) -> dict[str, Any]:
    """Returns predictions of which several are nearly equal."""
    center, side = rng.uniform(100, 300, (people, 1, 2)), rng.uniform(60, 200, (people, 1, 1))
    points = center + rng.uniform(-0.5, 0.5, (people, count, 2)) * side
    for i in range(0, people - 1, 2):  # the next one is a copy, moved a little
        points[i + 1] = points[i] + rng.normal(0, 0.02 * side[i, 0, 0] * rng.choice([0.5, 1, 3]), (count, 2))
        side[i + 1] = side[i]
    return {
        "keypoints": np.concatenate([points, rng.uniform(0, 1, (people, count, 1)).clip(0.02, 0.9)], -1).round(3).tolist(),
        "areas": (side[:, 0, 0] ** 2 * 1.25**2).round(1).tolist(),
        "box_scores": rng.uniform(0.1, 1, people).round(3).tolist(),
    }


def of_hrnet(images: list[dict[str, Any]], threshold: float, soft: bool) -> list[dict[str, Any]]:
    """Returns what `COCODataset.evaluate` of HRNet writes to its file of results: keypoints and scores."""
    module = hrnet("dataset.coco")
    data = object.__new__(module.COCODataset)
    data.__dict__.update(
        num_joints=17, in_vis_thre=0.2, oks_thre=threshold, soft_nms=soft, image_set="test", classes=["__background__", "person"],
        _class_to_coco_ind={"person": 1},
    )  # fmt: skip
    predictions = np.array([person for image in images for person in image["keypoints"]], np.float32)
    boxes = np.zeros((len(predictions), 6))
    boxes[:, 4] = [area for image in images for area in image["areas"]]
    boxes[:, 5] = [score for image in images for score in image["box_scores"]]
    paths = [f"{number:012d}.jpg" for number, image in enumerate(images, start=1) for _ in image["areas"]]
    with tempfile.TemporaryDirectory() as folder:
        data.evaluate(SimpleNamespace(RANK=0), predictions, folder, boxes, paths)
        (written,) = Path(folder, "results").glob("*.json")
        return [{key: each[key] for key in ("image_id", "keypoints", "score")} for each in json.loads(written.read_text())]


def of_hrnet_on_mpii(rng: np.random.Generator, people: int = 30) -> dict[str, Any]:
    """Returns predictions, ground truth and sizes of heads at random, and the PCKh that HRNet's code computes from them."""
    from scipy.io import savemat

    module = hrnet("dataset.mpii")
    truth = rng.uniform(50, 400, (people, 16, 2)).round(1)
    missing = (rng.random((people, 16)) < 0.2).astype(float)
    head = rng.uniform(30, 80, (people, 2)).round(1)
    predictions = (truth + rng.normal(0, 12, truth.shape)).round(2)
    names = [
        "rank",
        "rkne",
        "rhip",
        "lhip",
        "lkne",
        "lank",
        "pelv",
        "thor",
        "neck",
        "head",
        "rwri",
        "relb",
        "rsho",
        "lsho",
        "lelb",
        "lwri",
    ]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "annot").mkdir()
        content = {
            "dataset_joints": np.array([names], dtype=object),
            "jnt_missing": missing.T,
            "pos_gt_src": truth.transpose(1, 2, 0) + 1,  # counted from 1
            "headboxes_src": np.stack([np.zeros((2, people)), head.T]),
        }
        savemat(f"{folder}/annot/gt_valid.mat", content)
        data = object.__new__(module.MPIIDataset)
        values, _ = data.evaluate(SimpleNamespace(DATASET=SimpleNamespace(TEST_SET="valid", ROOT=folder)), predictions, "")
    given = {"truth": truth, "missing": missing, "head_boxes": head, "predictions": predictions}
    return {**{key: value.tolist() for key, value in given.items()}, "PCKh": {key: float(value) for key, value in values.items()}}


def main() -> None:
    """Writes the record."""
    files = []
    for number, count in enumerate((17, 17, 5)):
        rng = np.random.default_rng(number)
        content = annotations(rng, count)
        found = results(rng, content, count)
        stats = of_pycocotools(content, found, SIGMAS[count])
        files.append({"annotations": content, "results": found, "sigmas": SIGMAS[count], "stats": stats})
    images = [crowded_image(np.random.default_rng(10 + number), people) for number, people in enumerate((1, 6, 26))]
    suppressed = [
        {"threshold": threshold, "soft": soft, "results": of_hrnet(images, threshold, soft)}
        for threshold, soft in ((0.9, False), (0.6, False), (0.9, True))
    ]
    record = {
        "pycocotools": files,
        "hrnet": {"images": images, "suppressed": suppressed},
        "mpii": of_hrnet_on_mpii(np.random.default_rng(20)),
    }
    FILE.write_text(to_json(record) + "\n")


if __name__ == "__main__":
    main()
