"""Records the evaluation of keypoints by the authors' HRNet code and by mmpose, for tests/test_pose_records.py.

    python tests/recording_pose.py        (in any environment with torch and OpenCV)

Both are read from checkouts in the folder SPINE_CHECKOUTS, as in recording.py: `deep-high-resolution-net.pytorch` of leoxiaobin,
`mmpose` and `SimCC` of leeyegy. Only single modules of them run. What they import beside NumPy, OpenCV and torch is replaced by
stand-ins without behavior. Images, boxes and weights are made by rules, so the record contains results only.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import torch
from recording import RECORDS, State, draw, shapes_of
from references.hrnet import SMALL, Config, authors_pose
from torch import nn

SIZE = (96, 128)  # width, height of the crops
KEYPOINTS = 17
PAIRS = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]]
COCO_SIGMAS = (.026, .025, .025, .035, .035, .079, .079, .072, .072, .062, .062, .107, .107, .087, .087, .089, .089)  # fmt: skip
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BOXES = {  # x, y, width, height and score by image
    1: [
        (32.5, 20.25, 70.0, 128.5, 0.9),
        (28.0, 24.0, 75.5, 120.0, 0.7),
        (90.0, 10.0, 90.75, 60.5, 0.8),
        (32.53125, 20.25, 70.0, 128.5, 0.6),  # the first one again
    ],
    2: [(-6.25, 36.5, 66.0, 112.0, 0.95), (120.5, 60.0, 70.0, 70.0, 0.35)],
}
FLIPS = {"plain": (False, False), "flip": (True, False), "flip_shift": (True, True)}  # flip test, with the shift
POINTS = np.array(  # x, y in pixels of the crop, for the targets
    [
        [40.2, 61.7],
        [41.9, 62.1],
        [0.4, 0.3],
        [95.4, 127.2],
        [-3.1, 50.0],
        [50.0, 131.0],
        [-30.0, 20.0],
        [98.0, -18.0],
        [-40.0, 20.0],
        [12.5, 30.5],
    ]
)


def places(margin: float = 0.0) -> np.ndarray:
    """Returns 1,000 points (1000, 2) in a crop of 256x192, the same for each call. `margin`: their distance from the border."""
    return np.random.default_rng(0).uniform(margin, (192 - margin, 256 - margin), (1000, 2)) - 0.5


def image_of(number: int) -> np.ndarray:
    """Returns a picture (160, 200, 3) uint8 of soft blobs, the same for each call."""
    rng = np.random.default_rng(number)
    rows, columns = np.mgrid[:160, :200]
    image = np.zeros((160, 200, 3))
    for _ in range(40):
        x, y, radius = rng.uniform(0, 200), rng.uniform(0, 160), rng.uniform(3, 25)
        spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2))
        image += spot[..., None] * rng.uniform(-120, 160, 3)
    return np.clip(image + 90, 0, 255).round().astype(np.uint8)


def heatmaps_of(size: tuple[int, int] = (32, 24)) -> np.ndarray:
    """Returns heatmaps (2, 17, h, w) like those of a trained network, the same for each call: unequal Gaussians and noise."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = rng.uniform(-0.5, size[1] - 0.5, (2, KEYPOINTS, 1, 1)), rng.uniform(-0.5, size[0] - 0.5, (2, KEYPOINTS, 1, 1))
    wide, high = rng.uniform(1.6, 2.4, (2, 2, KEYPOINTS, 1, 1))
    gaussian = np.exp(-(((columns - x) / wide) ** 2 + ((rows - y) / high) ** 2) / 2)
    return (rng.uniform(0.3, 1, x.shape) * gaussian + rng.normal(0, 0.01, gaussian.shape)).astype(np.float32)


def network() -> tuple[nn.Module, dict[str, tuple[int, ...]]]:
    """Returns the authors' network with drawn weights in float64, and the shapes of its tensors."""
    net = authors_pose()
    net.final_layer = nn.Conv2d(SMALL["width"], KEYPOINTS, 1)
    shapes = shapes_of(net)
    net.double().load_state_dict(weights_of(shapes), strict=False)
    return net.eval(), shapes


def weights_of(shapes: dict[str, tuple[int, ...]]) -> State:
    """Returns the drawn weights. The heatmaps are positive, as those of trained networks are at their maximum."""
    weights = draw(shapes)
    weights["final_layer.bias"] += 2
    return weights


def stand_in(name: str, **attributes: object) -> None:
    """Adds a module without behavior, so that another one can import its names."""
    module = types.ModuleType(name)
    module.__dict__.update(attributes)
    sys.modules[name] = module


class Registry:
    """Registers nothing."""

    @staticmethod
    def register_module(*args: object, **kwargs: object):
        return lambda part: part


class Metric:
    """A stand-in for mmengine's BaseMetric."""

    def __init__(self, **options: object):
        self.results: list[object] = []


class Instances(types.SimpleNamespace):
    """A stand-in for mmengine's InstanceData."""

    def __contains__(self, key: str) -> bool:
        return hasattr(self, key)


def checkout_path(*parts: str) -> Path:
    return Path(os.environ.get("SPINE_CHECKOUTS", "checkouts"), *parts)


# ---- the authors' code ------------------------------------------------------------------------------------------------


def authors_dataset(folder: Path, post_process: bool = True) -> tuple[object, Config]:
    """Returns COCODataset of lib/dataset/coco.py for the images and boxes of this file, as its constructor would, and its options."""
    sys.path.insert(0, str(checkout_path("deep-high-resolution-net.pytorch", "lib")))
    np.float = float  # NumPy's old name, which the authors use
    stand_in("pycocotools")
    stand_in("pycocotools.coco", COCO=None)
    stand_in("pycocotools.cocoeval", COCOeval=None)
    stand_in("json_tricks", load=json.load, dump=json.dump)
    stand_in("nms.cpu_nms", cpu_nms=None)
    stand_in("nms.gpu_nms", gpu_nms=None)
    stand_in("utils.vis", save_debug_images=lambda *_: None)
    stand_in("dataset", __path__=[str(checkout_path("deep-high-resolution-net.pytorch", "lib", "dataset"))])
    coco, joints = importlib.import_module("dataset.coco"), importlib.import_module("dataset.JointsDataset")
    heatmap = [SIZE[0] // 4, SIZE[1] // 4]
    config = Config(
        OUTPUT_DIR=str(folder), RANK=0, PRINT_FREQ=1000, DEBUG=Config(DEBUG=False), LOSS=Config(USE_DIFFERENT_JOINTS_WEIGHT=False),
        DATASET=Config(DATA_FORMAT="jpg", SCALE_FACTOR=0.35, ROT_FACTOR=45, FLIP=False, NUM_JOINTS_HALF_BODY=8, PROB_HALF_BODY=0.3,
                       COLOR_RGB=True),
        MODEL=Config(NAME="pose_hrnet", TARGET_TYPE="gaussian", IMAGE_SIZE=list(SIZE), HEATMAP_SIZE=heatmap, SIGMA=2,
                     NUM_JOINTS=KEYPOINTS),
        TEST=Config(FLIP_TEST=True, SHIFT_HEATMAP=True, POST_PROCESS=post_process),
    )  # fmt: skip
    dataset = object.__new__(coco.COCODataset)
    joints.JointsDataset.__init__(dataset, config, str(folder), "test2017", False, normalized)
    dataset.__dict__.update(
        num_joints=KEYPOINTS, flip_pairs=PAIRS, aspect_ratio=SIZE[0] / SIZE[1], bbox_file=str(folder / "boxes.json"), image_thre=0.0,
        soft_nms=False, oks_thre=0.9, in_vis_thre=0.2, classes=["__background__", "person"], _class_to_coco_ind={"person": 1},
    )  # fmt: skip
    (folder / "images" / "test2017").mkdir(parents=True)
    for number in BOXES:
        _, pixels = cv2.imencode(".png", image_of(number)[..., ::-1])  # their names end with jpg; OpenCV reads the content
        (folder / "images" / "test2017" / f"{number:012d}.jpg").write_bytes(pixels.tobytes())
    boxes = [
        {"image_id": number, "category_id": 1, "bbox": list(box), "score": score}
        for number, listed in BOXES.items()
        for *box, score in listed
    ]
    (folder / "boxes.json").write_text(json.dumps(boxes))
    dataset.db = dataset._load_coco_person_detection_results()
    return dataset, config


def compact_results(results: list[dict[str, object]]) -> list[dict[str, object]]:
    """Returns what a file of results in COCO's format says of each object."""
    return [{key: one[key] for key in ("image_id", "score", "keypoints")} for one in results]


def normalized(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(((image / 255 - MEAN) / STD).transpose(2, 0, 1))


def record_authors(net: nn.Module) -> dict[str, object]:
    """Returns the predictions of `validate` in lib/core/function.py with each flip test, and with its shift the final results."""
    record = {}
    for name, (flip, shift) in FLIPS.items():
        with tempfile.TemporaryDirectory() as folder:
            dataset, config = authors_dataset(Path(folder))
            config.TEST.update(FLIP_TEST=flip, SHIFT_HEATMAP=shift)
            function, losses = importlib.import_module("core.function"), importlib.import_module("core.loss")
            torch.Tensor.cuda = lambda self, **options: self
            kept, write = {}, dataset.evaluate
            dataset.evaluate = lambda cfg, preds, *more, kept=kept, write=write: (
                kept.update(predictions=preds.tolist()),
                write(cfg, preds, *more),
            )[1]
            loader = torch.utils.data.DataLoader(dataset, batch_size=5)
            function.validate(config, loader, dataset, net, losses.JointsMSELoss(True), folder, folder)
            results = json.loads(Path(folder, "results", "keypoints_test2017_results_0.json").read_text())
            record[name] = {**kept, "results": compact_results(results)}
    return record


def record_authors_losses() -> dict[str, object]:
    """Returns the losses of lib/core/loss.py of both repositories."""
    losses = importlib.import_module("core.loss")
    output, target, weight = loss_inputs((8, 6))
    record = {"mse": losses.JointsMSELoss(True)(output, target, weight[..., None]).item()}
    record["ohkm"] = losses.JointsOHKMMSELoss(True, topk=3)(output, target, weight[..., None]).item()
    spec = importlib.util.spec_from_file_location("simcc_loss", checkout_path("SimCC", "lib", "core", "loss.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y, target_x, target_y, weight = bin_inputs()
    record["simcc"] = module.KLDiscretLoss()(x, y, target_x, target_y, weight[..., None]).item()
    return record


def loss_inputs(size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns an output, a target (3, 5, h, w) and weights (3, 5), the same for each call."""
    generator = torch.Generator().manual_seed(1)
    output, target = torch.rand(2, 3, 5, *size, generator=generator, dtype=torch.float64)
    return output, target, (torch.rand(3, 5, generator=generator) > 0.3).double()


def bin_inputs() -> tuple[torch.Tensor, ...]:
    """Returns logits of columns (3, 5, 24) and rows (3, 5, 32), their target distributions, and weights (3, 5)."""
    x, target_x, weight = loss_inputs((1, 24))
    y, target_y, _ = loss_inputs((1, 32))
    x, y, target_x, target_y = (one[:, :, 0] for one in (x, y, target_x, target_y))
    return 4 * x, 4 * y, target_x / target_x.sum(-1, keepdim=True), target_y / target_y.sum(-1, keepdim=True), weight


def record_authors_targets() -> list[object]:
    """Returns targets and weights of `generate_target` for POINTS: the rows of each heatmap that are not zero."""
    with tempfile.TemporaryDirectory() as folder:
        dataset, _ = authors_dataset(Path(folder))
        dataset.num_joints = len(POINTS)
        joints = np.concatenate([POINTS, np.zeros((len(POINTS), 1))], axis=1)
        return [part.tolist() for part in compact(*dataset.generate_target(joints, np.ones((len(POINTS), 3))))]


def compact(heatmaps: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sums of weighted heatmaps (K, h, w) along both axes, (K, h + w), and their weights (K,)."""
    weight = weight.reshape(-1).astype(np.float64)
    heatmaps = heatmaps * weight[:, None, None]
    return np.concatenate([heatmaps.sum(2), heatmaps.sum(1)], axis=1).round(6), weight


# ---- mmpose -----------------------------------------------------------------------------------------------------------


def mmpose_modules() -> types.SimpleNamespace:
    """Returns the modules of mmpose that evaluate keypoints."""
    root = checkout_path("mmpose", "mmpose")
    for name in ("KEYPOINT_CODECS", "TRANSFORMS", "MODELS", "METRICS"):
        setattr(Registry, name, Registry)
    stand_in("mmpose", __path__=[str(root)])
    stand_in("mmpose.registry", KEYPOINT_CODECS=Registry, TRANSFORMS=Registry, MODELS=Registry, METRICS=Registry)
    stand_in("mmengine", is_seq_of=lambda *_: True)
    stand_in("mmengine.utils", is_method_overridden=lambda *_: False)
    stand_in("mmcv")
    stand_in("mmcv.transforms", BaseTransform=object)
    stand_in("mmpose.utils", __path__=[])
    stand_in("mmengine.evaluator", BaseMetric=Metric)
    stand_in(
        "mmengine.fileio",
        dump=lambda content, path, **_: Path(path).write_text(json.dumps(content)),
        get_local_path=None,
        load=None,
    )
    stand_in("mmengine.logging", MessageHub=None, MMLogger=mock.MagicMock(), print_log=None)
    stand_in("xtcocotools")
    stand_in("xtcocotools.coco", COCO=None)
    stand_in("xtcocotools.cocoeval", COCOeval=None)
    names = ("ConfigType", "InstanceList", "OptConfigType", "OptMultiConfig", "PixelDataList", "SampleList")
    stand_in("mmpose.utils.typing", **dict.fromkeys(names))
    for package in (
        "codecs",
        "structures",
        "datasets",
        "datasets.transforms",
        "models",
        "models.utils",
        "models.pose_estimators",
        "evaluation",
        "evaluation.functional",
        "evaluation.metrics",
    ):
        stand_in(f"mmpose.{package}", __path__=[str(root.joinpath(*package.split(".")))])
    stand_in("mmpose.models.pose_estimators.base", BasePoseEstimator=object)
    load = importlib.import_module
    nms = load("mmpose.evaluation.functional.nms")
    sys.modules["mmpose.evaluation.functional"].__dict__.update(oks_nms=nms.oks_nms, soft_oks_nms=nms.soft_oks_nms)
    sys.modules["mmpose.evaluation.functional"].__dict__.update(
        dict.fromkeys(("transform_ann", "transform_pred", "transform_sigmas"))
    )
    return types.SimpleNamespace(
        msra=load("mmpose.codecs.msra_heatmap").MSRAHeatmap,
        udp=load("mmpose.codecs.udp_heatmap").UDPHeatmap,
        box=load("mmpose.structures.bbox"),
        affine=load("mmpose.datasets.transforms.topdown_transforms").TopdownAffine,
        flip=load("mmpose.models.utils.tta").flip_heatmaps,
        estimator=load("mmpose.models.pose_estimators.topdown").TopdownPoseEstimator,
        metric=load("mmpose.evaluation.metrics.coco_metric").CocoMetric,
    )


def mmpose_codecs(modules: types.SimpleNamespace, size: tuple[int, int]) -> dict[str, tuple[object, bool]]:
    """Returns the codecs by our names, and whether the flip test shifts, as in mmpose's configurations for HRNet-W32 on COCO."""
    sizes = {"input_size": size, "heatmap_size": (size[0] // 4, size[1] // 4), "sigma": 2}
    return {
        "msra": (modules.msra(**sizes), True),
        "dark": (modules.msra(**sizes, unbiased=True), True),
        "udp": (modules.udp(**sizes), False),
    }


def record_mmpose(net: nn.Module) -> dict[str, object]:
    """Returns targets, decoded heatmaps and the predictions of the whole evaluation for each codec."""
    modules = mmpose_modules()
    record = {}
    boxes = [(number, np.array(box), score) for number, listed in BOXES.items() for *box, score in listed]
    for name, (codec, shift) in mmpose_codecs(modules, SIZE).items():
        encoded = codec.encode(POINTS[None].astype(np.float32), np.ones((1, len(POINTS)), np.float32))
        decoded = [np.concatenate([a[0], b[0][:, None]], axis=1).tolist() for a, b in map(codec.decode, heatmaps_of())]
        found = [predict_mmpose(modules, net, codec, image_of(number), box, name == "udp", shift) for number, box, _ in boxes]
        record[name] = {
            "targets": [part.tolist() for part in compact(encoded["heatmaps"], encoded["keypoint_weights"])],
            "decoded": decoded,
            "predictions": [keypoints.tolist() for keypoints, _ in found],
            "results": results_mmpose(modules, boxes, found),
        }
    for name, (codec, _) in mmpose_codecs(modules, (192, 256)).items():
        record[name]["errors"] = errors_mmpose(codec, name == "udp")
    return record


def results_mmpose(modules, boxes, found):
    """Returns what CocoMetric, with the options of mmpose's configurations, writes to its file of results."""
    with tempfile.TemporaryDirectory() as folder:
        metric = modules.metric(format_only=True, outfile_prefix=f"{folder}/found")
        metric.coco, metric._dataset_meta = "not used", {"num_keypoints": KEYPOINTS, "sigmas": np.array(COCO_SIGMAS)}
        for place, ((number, _, score), (keypoints, scale)) in enumerate(zip(boxes, found, strict=True)):
            predicted = {"keypoints": keypoints[None, :, :2], "keypoint_scores": keypoints[None, :, 2]}
            given = {"bbox_scores": np.array([score]), "bbox_scales": scale}
            metric.process([], [{"id": place, "img_id": number, "pred_instances": predicted, "gt_instances": given}])
        metric.compute_metrics(metric.results)
        return compact_results(json.loads(Path(folder, "found.keypoints.json").read_text()))


def errors_mmpose(codec, udp):
    """Returns how far `places` are from their decoded positions: the mean, the median and the largest distance in pixels."""
    points = places()
    heatmaps = codec.encode(points[None].astype(np.float32), np.ones((1, len(points)), np.float32))["heatmaps"]
    found = codec.decode(heatmaps)[0][0]
    if udp:  # `decode` multiplies by W / (w - 1), which is corrected on the way back to the image
        found = found * [191 / 192, 255 / 256]
    errors = np.linalg.norm(found - points, axis=1)
    return [float(value) for value in (errors.mean(), np.median(errors), errors.max())]


def predict_mmpose(modules, net, codec, image, box, udp, shift):
    """Returns the keypoints (17, 3) of one box, in the order of mmpose's pipeline and `predict`, and the size of its crop (1, 2)."""
    corners = modules.box.bbox_xywh2xyxy(box[None])
    center, scale = modules.box.bbox_xyxy2cs(corners, padding=1.25)
    sample = modules.affine(SIZE, use_udp=udp).transform({"img": image, "bbox_center": center, "bbox_scale": scale})
    with torch.no_grad():
        batch = normalized(sample["img"])[None]
        mirrored = [next((b if a == i else a for a, b in PAIRS if i in (a, b)), i) for i in range(KEYPOINTS)]
        flipped = modules.flip(net(batch.flip(-1)), flip_indices=mirrored, shift_heatmap=shift)
        heatmaps = (net(batch) + flipped) * 0.5
    keypoints, scores = codec.decode(heatmaps[0].float().numpy())
    instances = Instances(keypoints=keypoints, keypoint_scores=scores, keypoints_visible=scores)
    info = {"input_center": sample["input_center"], "input_scale": sample["input_scale"], "input_size": sample["input_size"]}
    truth = types.SimpleNamespace(bboxes=None, bbox_scores=None)
    holder = types.SimpleNamespace(test_cfg={})
    modules.estimator.add_pred_to_datasample(
        holder, [instances], None, [types.SimpleNamespace(gt_instances=truth, metainfo=info)]
    )
    return np.concatenate([instances.keypoints[0], scores[0][:, None]], axis=1), sample["bbox_scale"]


if __name__ == "__main__":
    net, shapes = network()
    record = {
        "source": "leoxiaobin/deep-high-resolution-net.pytorch lib/core/function.py validate; mmpose 1; leeyegy/SimCC lib/core/loss.py",
        "keys": shapes,
        "authors": record_authors(net),
        "authors_targets": record_authors_targets(),
        "authors_losses": record_authors_losses(),
        "mmpose": record_mmpose(net),
    }
    rounded = json.loads(json.dumps(record), parse_float=lambda text: round(float(text), 9))
    RECORDS.joinpath("pose-evaluation.json").write_text("".join(json.JSONEncoder(indent=None).iterencode(rounded)) + "\n")
