"""The evaluation of keypoints against that of the authors' HRNet code and of mmpose, which tests/recording_pose.py recorded."""

import json

import cv2
import numpy as np
import pytest
import recording_pose as reference
import torch
from recording import RECORDS
from test_configs import composed

import spine
from spine.checkpoints.formats import layouts_of
from spine.data import build_data
from spine.tasks.pose.codecs import CODECS
from spine.tasks.pose.losses import bin_loss, heatmap_loss
from spine.tasks.pose.task import Pose

RECORD = json.loads((RECORDS / "pose-evaluation.json").read_text())
PARTS = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
NAMES = ("nose", *(f"{side}_{part}" for part in PARTS for side in ("left", "right")))
WIDTH, HEIGHT = reference.SIZE
HEATMAP = (HEIGHT // 4, WIDTH // 4)


@pytest.fixture(scope="module")
def network():
    """Our network with the weights of the record, in float64, so that its rounding does not decide between pixels."""
    net = spine.create_model("hrnet", variant="w18_small_v1", task="pose", num_outputs=len(NAMES))
    shapes = {name: tuple(shape) for name, shape in RECORD["keys"].items()}
    layout = max(layouts_of("hrnet"), key=lambda layout: layout.match_fraction(reference.draw(shapes)))
    state, unknown = layout.to_spine(reference.weights_of(shapes))
    assert not unknown
    net.double().load_state_dict({**net.state_dict(), **state})
    return net.eval()


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with the images of the record, an annotation file, and the boxes as a file of detections."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "images").mkdir()
    for number in reference.BOXES:
        cv2.imwrite(str(folder / f"images/{number}.png"), reference.image_of(number)[..., ::-1])
    content = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 200, "height": 160} for number in reference.BOXES],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": []}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [9, 9, 2] * len(NAMES), "bbox": [0, 0, 9, 9]}],
    }
    (folder / "val.json").write_text(json.dumps(content))
    boxes = [(number, *box) for number, listed in reference.BOXES.items() for box in listed]
    detections = [{"image_id": number, "category_id": 1, "bbox": box, "score": score} for number, *box, score in boxes]
    (folder / "boxes.json").write_text(json.dumps(detections))
    return folder


def evaluated(network, people, codec, **options):
    """Returns the evaluation of the detections: data set, crop, network, flip test, decoding, the way back, rescoring, suppression."""
    config = composed(
        "task=pose", "backbone=hrnet", "backbone.variant=w18_small_v1", "dataset=coco_keypoints", f"dataset.root={people}",
        "dataset.annotations='{split}.json'", "dataset.images=images", f"image_size=[{HEIGHT},{WIDTH}]", "dataset.batch_size=4",
        "dataset.num_workers=0", f"task.codec={codec}", f"task.bbox_file={people}/boxes.json",
    )  # fmt: skip
    data = build_data(config)
    labels = data.split("val").labels
    assert [list(pair) for pair in labels.flip_pairs] == reference.PAIRS and labels.sigmas == reference.COCO_SIGMAS
    task = Pose(model=lambda image: network(image.double()), labels=labels, codec=codec, **options).eval()
    with torch.no_grad():
        for batch in data.loader("val"):
            task.update_metrics(task.evaluate_batch(batch)[1], batch)
    return task.evaluate()


def assert_same_results(found, expected, positions=True):
    """Compares objects, scores and keypoints of two files of results."""
    assert [one["image_id"] for one in found] == [one["image_id"] for one in expected]
    assert len(found) == 5  # of six boxes; two are nearly equal
    np.testing.assert_allclose([one["score"] for one in found], [one["score"] for one in expected], rtol=1e-4)
    if positions:
        np.testing.assert_allclose([one["keypoints"] for one in found], [one["keypoints"] for one in expected], atol=0.01)


@pytest.mark.parametrize("name", reference.FLIPS)
def test_msra_evaluates_as_hrnets_validate(network, people, name):
    """From files to the results, with the flip test with and without shift: 0.01 pixels."""
    flip, shift = reference.FLIPS[name]
    found = evaluated(network, people, "msra", flip_test=flip, flip_shift=shift)
    np.testing.assert_allclose(found.instances.prediction, RECORD["authors"][name]["predictions"], atol=0.01)
    assert_same_results(found.results, RECORD["authors"][name]["results"])


@pytest.mark.parametrize("codec", RECORD["mmpose"])
def test_codecs_evaluate_as_mmpose(network, people, codec):
    evaluation = evaluated(network, people, codec, flip_test=True)
    found, expected = evaluation.instances.prediction, np.array(RECORD["mmpose"][codec]["predictions"])
    if codec == "msra":  # at the border mmpose refines each axis for itself, and HRNet's code neither: the records differ
        same = np.abs(expected - RECORD["authors"]["flip_shift"]["predictions"]).max(-1) < 0.01
        assert same.mean() > 0.6
        found, expected = found[same], expected[same]
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert_same_results(evaluation.results, RECORD["mmpose"][codec]["results"], positions=codec != "msra")


@pytest.mark.parametrize("codec", RECORD["mmpose"])
def test_round_trips_near_the_border_are_those_of_mmpose(codec):
    """The blur of the decoding takes the pixels beyond the border as zero, so that points near it are decoded toward the middle."""
    points = torch.from_numpy(np.concatenate([reference.places(), np.full((1000, 1), 2.0)], axis=1))[None].float()
    targets, _ = CODECS[codec].encode(points, (1, 1000, 64, 48), (256, 192), 2.0)
    errors = (CODECS[codec].decode(targets, (256, 192), 2.0) - points)[..., :2].norm(dim=-1)
    found = [errors.mean().item(), errors.median().item(), errors.max().item()]
    assert found == pytest.approx(RECORD["mmpose"][codec]["errors"], abs=2e-3)


@pytest.mark.parametrize("codec", RECORD["mmpose"])
def test_codecs_decode_heatmaps_as_mmpose(codec):
    found = CODECS[codec].decode(torch.from_numpy(reference.heatmaps_of(HEATMAP)), (HEIGHT, WIDTH), 2.0).numpy()
    expected = np.array(RECORD["mmpose"][codec]["decoded"])
    if codec == "udp":  # mmpose multiplies by W / (w - 1) first, and corrects this on the way back
        expected[..., :2] *= np.array([(WIDTH - 1) / WIDTH, (HEIGHT - 1) / HEIGHT])
    if (
        codec == "msra"
    ):  # mmpose refines each axis for itself in the first two and the last rows and columns, HRNet's code neither
        inside = ((found[..., :2] > 8) & (found[..., :2] < np.array([WIDTH, HEIGHT]) - 9)).all(-1)
        found, expected = found[inside], expected[inside]
    np.testing.assert_allclose(found, expected, atol=2e-3)


@pytest.mark.parametrize("codec", RECORD["mmpose"])
def test_targets_are_those_of_mmpose(codec):
    points = torch.tensor([[[*point, 2.0] for point in reference.POINTS]])
    heatmaps, weight = CODECS[codec].encode(points, (1, len(points[0]), *HEATMAP), (HEIGHT, WIDTH), 2.0)
    found = reference.compact(heatmaps[0].numpy(), weight[0].numpy())
    for ours, theirs in zip(found, RECORD["mmpose"][codec]["targets"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
    if codec == "msra":
        for ours, theirs in zip(found, RECORD["authors_targets"], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_losses_are_those_of_the_authors():
    expected = RECORD["authors_losses"]
    assert heatmap_loss(*reference.loss_inputs((8, 6))).item() == pytest.approx(expected["mse"], abs=1e-8)
    assert heatmap_loss(*reference.loss_inputs((8, 6)), hardest=3).item() == pytest.approx(expected["ohkm"], abs=1e-8)
    x, y, target_x, target_y, weight = reference.bin_inputs()
    loss = bin_loss(torch.cat([x, y], -1), torch.cat([target_x, target_y], -1), weight, (32, 24))
    assert loss.item() == pytest.approx(expected["simcc"], abs=1e-8)
