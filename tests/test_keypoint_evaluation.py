"""Evaluation of keypoints: COCO's protocol, rescoring and suppression, PCKh and NME, and the boxes of a detector."""

import json
import math
from functools import cache

import numpy as np
import pytest
import torch
from data_files import coco_annotations, write_image
from PIL import Image
from recording import RECORDS
from test_configs import composed, trained
from test_distributed import devices, metrics, run

from spine.data import build_data
from spine.data.detections import DetectedObjects
from spine.data.formats.coco_keypoints import COCO_SIGMAS, COCOKeypoints
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.interfaces import Labels
from spine.tasks.pose.coco_protocol import NAMES, average_precision
from spine.tasks.pose.distances import mean_fraction
from spine.tasks.pose.metrics import Instances, KeypointEvaluation, KeypointScores, Protocol
from spine.tasks.pose.rescoring import keep_objects, rescore

pytestmark = pytest.mark.usefixtures("blank_figures")


@cache
def record():
    return json.loads((RECORDS / "keypoint_metrics.json").read_text())


# ---- equality with pycocotools and HRNet's code ----------------------------------------------------------------------


@pytest.mark.parametrize("case", range(3))
def test_average_precision_equals_pycocotools(tmp_path, case):
    """The files have crowds, unlabeled objects, images without objects, and predictions in all of them."""
    given = record()["pycocotools"][case]
    (tmp_path / "train").mkdir()
    (tmp_path / "train.json").write_text(json.dumps(given["annotations"]))
    data = COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", sigmas=given["sigmas"] or list(COCO_SIGMAS))
    truth = data.keypoint_annotations()
    assert truth.crowd.any() and (truth.labeled == 0).any() and len(truth.image_ids) > len(data)
    values = average_precision(given["results"], truth, truth.images.keys(), data.labels.sigmas)
    assert values == pytest.approx(dict(zip(NAMES, given["stats"], strict=True)), abs=1e-12)
    assert 0.05 < values["AP"] < 0.95


@pytest.mark.parametrize("case", range(3))
def test_rescoring_and_suppression_equal_hrnets(case):
    """HRNet's code groups the objects by image, which are recorded in its order."""
    images, expected = record()["hrnet"]["images"], record()["hrnet"]["suppressed"][case]
    points = np.array([person for image in images for person in image["keypoints"]])
    areas = np.array([area for image in images for area in image["areas"]])
    boxes = np.array([score for image in images for score in image["box_scores"]])
    image_ids = np.repeat(np.arange(1, 1 + len(images)), [len(image["areas"]) for image in images])
    scores = rescore(points[..., 2], boxes, 0.2)
    kept = keep_objects(points[..., :2], scores, areas, image_ids, np.array(COCO_SIGMAS), expected["threshold"], expected["soft"])
    assert image_ids[kept].tolist() == [one["image_id"] for one in expected["results"]]
    assert len(kept) < len(points)
    np.testing.assert_allclose(points[kept].reshape(len(kept), -1), [one["keypoints"] for one in expected["results"]], atol=1e-4)
    np.testing.assert_allclose(scores[kept], [one["score"] for one in expected["results"]], rtol=1e-6)


def test_pckh_equals_hrnets():
    given = record()["mpii"]
    truth, missing = np.array(given["truth"]), np.array(given["missing"])
    people = len(truth)
    names = (*(f"point{i}" for i in range(6)), "pelvis", "thorax", *(f"point{i}" for i in range(8, 16)))
    instances = Instances(
        index=np.arange(people),
        prediction=np.concatenate([np.array(given["predictions"]), np.ones((people, 16, 1))], -1),
        target=np.concatenate([truth, 2 * (1 - missing)[..., None]], -1),
        area=np.full(people, 1e4),
        box=np.tile([0.0, 0, 100, 100], (people, 1)),
        image_id=np.arange(people),
        box_score=np.ones(people),
        crop_area=np.full(people, 1e4),
        head_size=0.6 * np.linalg.norm(given["head_boxes"], axis=1),
    )
    evaluation = KeypointEvaluation(instances, Labels(keypoints=names, sigmas=(0.05,) * 16), Protocol())
    assert 100 * evaluation.metrics()["PCKh@0.5"] == pytest.approx(given["PCKh"]["Mean"])
    fraction = mean_fraction(evaluation.distances, instances.head_size, 0.11, [6, 7])  # the threshold that HRNet's code calls 0.1
    assert 100 * fraction == pytest.approx(given["PCKh"]["Mean@0.1"])
    rows = evaluation.rows()
    assert 50 * (rows[12]["PCKh@0.5"] + rows[13]["PCKh@0.5"]) == pytest.approx(given["PCKh"]["Shoulder"])
    assert 100 * rows[9]["PCKh@0.5"] == pytest.approx(given["PCKh"]["Head"])


# ---- scores and distances by their formulas --------------------------------------------------------------------------


def test_the_score_of_an_object_is_that_of_its_box_times_its_certain_keypoints():
    keypoints, boxes = np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.0]]), np.array([0.5, 0.8])
    assert rescore(keypoints, boxes, 0.2).tolist() == [0.5 * 0.7, 0.0]
    assert rescore(keypoints, boxes, None).tolist() == [0.5, 0.8]


FACE = Labels(keypoints=("left_eye", "right_eye", "nose"), sigmas=(0.05,) * 3, norm_keypoints=((0,), (1,)))


def faces(shifts, labels=FACE, order=None):
    """The evaluation of one face in each of several images; the predicted noses are moved by `shifts` pixels."""
    scores = KeypointScores(3)
    for image in order or range(len(shifts)):
        target = torch.tensor([[[10.0, 10, 2], [50, 10, 2], [30, 30, 2]]])
        prediction = target.clone()
        prediction[0, 2, 0] += shifts[image]
        prediction[..., 2] = 0.5
        scores.update(
            prediction=prediction, target=target, area=torch.tensor([2500.0]), box=torch.tensor([[5.0, 5, 50, 40]]),
            image_id=torch.tensor([image]), index=torch.tensor([image]),
        )  # fmt: skip
    return KeypointEvaluation(scores.compute(), labels, Protocol())


def test_errors_of_faces_are_in_units_of_the_distance_of_the_eyes():
    """Errors of a nose of 0, 6 and 24 of 40 pixels are means of 0, 0.05 and 0.2 over three points."""
    values = faces([0, 6, 24]).metrics()
    assert values["NME"] == pytest.approx(0.25 / 3)
    assert values["failure_rate@0.1"] == pytest.approx(1 / 3) and values["AUC@0.1"] == pytest.approx((1 + 0.5 + 0) / 3)
    whole = faces([0, 6, 24], Labels(keypoints=FACE.keypoints, sigmas=FACE.sigmas)).metrics()
    assert whole["NME"] == pytest.approx(30 / 9 / math.sqrt(50 * 40)) and "AUC@0.1" not in whole


def test_keypoints_have_a_table():
    rows = faces([0, 6, 24]).rows()
    assert [row["keypoint"] for row in rows] == list(FACE.keypoints) and {row["labeled"] for row in rows} == {3}
    assert rows[2]["PCK"] == pytest.approx(2 / 3) and rows[2]["pixels"] == pytest.approx(10) and rows[0]["PCK"] == 1


def test_the_order_in_which_samples_arrive_does_not_matter():
    assert faces([0, 6, 24], order=[2, 0, 1]).results == faces([0, 6, 24]).results


def test_objects_without_both_eyes_have_no_error_of_a_face():
    scores = KeypointScores(3)
    target = torch.tensor([[[0.0, 0, 0], [50, 10, 2], [30, 30, 2]]])
    scores.update(
        prediction=target, target=target, area=torch.tensor([2500.0]), box=torch.tensor([[5.0, 5, 50, 40]]),
        image_id=torch.tensor([1]), index=torch.tensor([0]),
    )  # fmt: skip
    values = KeypointEvaluation(scores.compute(), FACE, Protocol()).metrics()
    assert "NME" not in values and values["PCK"] == 1


# ---- boxes of a detector ---------------------------------------------------------------------------------------------


def detection(**changes):
    return {"image_id": 5, "category_id": 1, "bbox": [2, 3, 12, 10], "score": 0.8, **changes}


@pytest.fixture
def annotated(tmp_path):
    write_image(tmp_path / "train" / "a.png")
    (tmp_path / "train.json").write_text(json.dumps(coco_annotations()))
    return COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", sigmas=0.05)


@pytest.fixture
def detected(annotated, tmp_path):
    def opened(content, threshold=0.0):
        path = tmp_path / "boxes.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return DetectedObjects(annotated, str(path), threshold)

    return opened


def test_every_box_of_a_detector_is_a_sample_without_labels(detected, caplog):
    data = detected(
        [detection(), detection(score=0.3), detection(category_id=9), detection(image_id=6), detection(bbox=[1, 2, 0, 5])]
    )
    assert len(data) == 2 and data.labels.keypoints == ("left_eye", "right_eye", "nose")
    data.check(frozenset({"image", "keypoints"}))
    sample = data.load(1)
    assert sample["image"].shape == (20, 30, 3) and sample["box"].tolist() == [2, 3, 12, 10] and sample["image_id"] == 5
    assert sample["box_score"] == pytest.approx(0.3) and not sample["keypoints"].any()
    assert "1 of 4 boxes" in caplog.text and "that" in caplog.text and "without an area" in caplog.text
    assert len(detected([detection(), detection(score=0.3)], threshold=0.5)) == 1


def test_boxes_of_a_detector_are_in_the_pixels_of_the_annotations(detected, tmp_path):
    """The stored pixels of a rotated photo, if the annotation file has their size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "train" / "a.png", exif=exif)
    assert detected([detection()]).load(0)["image"].shape == (20, 30, 3)


@pytest.mark.parametrize(
    ("content", "threshold", "message"),
    [
        ([], 0, r"boxes.json' is an empty list"),
        ("{}", 0, r"boxes.json' is not a file of detections"),
        ("[1, 2", 0, r"boxes.json' is not JSON"),
        ([{"image_id": 5}], 0, r"Entry 0 of '.*boxes.json' is not a detection, which has image_id, category_id, bbox, score"),
        ([detection(), detection(bbox=[1, 2, math.nan, 4])], 0, r"Entry 1 of '.*boxes.json' needs a bbox of four numbers"),
        ([detection(category_id=3)], 0, r"boxes.json' has no detection of category 1, .* it has the categories 3"),
        ([detection(image_id=6)], 0, r"boxes.json' has no detection in an image of '.*train.json': image_id 6 is not among them"),
        ([detection(bbox=[1, 2, 0, 4])], 0, r"All boxes in '.*boxes.json' are without an area"),
        ([detection()], 0.9, r"The highest score in '.*boxes.json' is 0.8, below task.bbox_threshold=0.9"),
    ],
)
def test_mistakes_in_files_of_detections_are_reported(detected, content, threshold, message):
    with pytest.raises(InputError, match=message):
        detected(content, threshold)


def test_data_without_annotations_has_no_detections(tmp_path):
    data = build_data(composed("task=pose", f"task.bbox_file={tmp_path}/boxes.json"))
    assert data.transformed("train", training=True)[Draw(0, 0)]["keypoints"].any()
    with pytest.raises(InputError, match=r"task.bbox_file needs a data set with the images and annotations of a file"):
        data.transformed("val")


def write_people(root, boxes):
    """Two images with one labeled object each, a crowd and an unlabeled object, and a file of detections."""
    first, second, crowd = coco_annotations()["annotations"]
    images = [{"id": number, "file_name": f"{number}.png", "width": 30, "height": 20} for number in (5, 6, 7)]
    objects = [first, second, crowd, {**first, "id": 4, "image_id": 6}]
    for split in ("train", "val"):
        for image in images:
            write_image(root / split / image["file_name"])
        (root / f"{split}.json").write_text(json.dumps(coco_annotations(images=images, annotations=objects)))
    (root / "boxes.json").write_text(json.dumps(boxes))


OPTIONS = (
    "task=pose", "backbone=mobilenet_v2", "dataset=coco_keypoints", "dataset.annotations='{split}.json'", "dataset.sigmas=0.05",
    "image_size=[32,32]", "dataset.batch_size=2", "dataset.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "trainer.precision=32-true",
)  # fmt: skip


@pytest.mark.slow
def test_a_run_with_detections_writes_results_and_no_loss(tmp_path):
    write_people(tmp_path, [detection(), detection(image_id=6, score=0.5), detection(image_id=7, score=0.9)])
    run = tmp_path / "run"
    run.mkdir()
    trained(run, *OPTIONS, f"dataset.root={tmp_path}", f"task.bbox_file={tmp_path}/boxes.json", "task.oks_nms=null")
    found = json.loads((run / "val_keypoints.json").read_text())
    assert [each["image_id"] for each in found] == [5, 6, 7] and all(len(each["keypoints"]) == 9 for each in found)
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert metrics["val/loss"] is None and "val/PCK" not in metrics and not (run / "val_classes.csv").exists()
    truth = COCOKeypoints("val", root=str(tmp_path), annotations="{split}.json", sigmas=0.05).keypoint_annotations()
    own = average_precision(found, truth, truth.images.keys(), (0.05,) * 3)
    assert {name: metrics[f"val/{name}"] for name in own} == pytest.approx(own)
    assert (run / "figures" / "val_predictions.png").is_file() and not list(run.glob("figures/*worst*"))


@pytest.mark.slow
def test_two_processes_evaluate_detections_as_one(tmp_path):
    """Five boxes on two processes, of which two are equal, in batches of different processes: one of them is suppressed."""
    other = detection(bbox=[8, 2, 14, 12], score=0.4)
    write_people(tmp_path, [detection(), other, detection(score=0.5), detection(image_id=6, score=0.7), detection(image_id=7)])
    (tmp_path / "run").mkdir()
    trained(tmp_path / "run", *OPTIONS, f"dataset.root={tmp_path}")
    options = (f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", f"task.bbox_file={tmp_path}/boxes.json")
    for name, count in (("one", 1), ("two", 2)):
        run("eval.py", tmp_path / name, *options, *devices(count))
    one, two = (json.loads((tmp_path / name / "val_keypoints.json").read_text()) for name in ("one", "two"))
    assert len(one) < 5 and [each["image_id"] for each in one] == [each["image_id"] for each in two]
    for a, b in zip(one, two, strict=True):
        assert b["score"] == pytest.approx(a["score"], rel=1e-4) and b["keypoints"] == pytest.approx(a["keypoints"], abs=0.01)
    assert metrics(tmp_path / "two") == pytest.approx(metrics(tmp_path / "one"), abs=1e-6, nan_ok=True)


def test_a_run_with_given_boxes_writes_results_and_a_table(tmp_path):
    write_people(tmp_path, [])
    run = tmp_path / "run"
    run.mkdir()
    trained(run, *OPTIONS, f"dataset.root={tmp_path}")
    assert len(json.loads((run / "val_keypoints.json").read_text())) == 2
    assert (run / "val_classes.csv").read_text().startswith("keypoint,labeled,PCK,pixels")
    assert (run / "figures" / "val_worst_predictions.png").is_file()


def test_only_evaluated_images_count_in_a_part_of_a_split():
    evaluation = faces([0, 0])
    others = KeypointEvaluation(
        evaluation.instances, FACE, Protocol(), KeypointEvaluation(faces([0, 0, 0]).instances, FACE, Protocol()).truth
    )
    assert others.metrics(complete=False)["AR"] == 1.0 and others.metrics(complete=True)["AR"] == pytest.approx(2 / 3)
