"""The evaluation of keypoints against that of the authors' HRNet code and of mmpose, which tests/recording_pose.py recorded."""

import json

import numpy as np
import pytest
import recording_pose as reference
import torch
from recording import RECORDS

import spine
from spine.checkpoints.formats import layouts_of
from spine.data.data_module import Samples, collate
from spine.data.sampler import Draw
from spine.data.transforms import TopDownAffine, Transform
from spine.interfaces import DataSet, Labels
from spine.tasks.pose.codecs import CODECS
from spine.tasks.pose.losses import bin_loss, heatmap_loss
from spine.tasks.pose.task import Pose

RECORD = json.loads((RECORDS / "pose-evaluation.json").read_text())
NAMES = tuple(f"point{index}" for index in range(reference.KEYPOINTS))
LABELS = Labels(keypoints=NAMES, flip_pairs=tuple(map(tuple, reference.PAIRS)), sigmas=(0.05,) * len(NAMES))
WIDTH, HEIGHT = reference.SIZE
HEATMAP = (HEIGHT // 4, WIDTH // 4)


class Boxes(DataSet):
    """The boxes of the record."""

    provides = frozenset({"image", "keypoints"})
    labels = LABELS
    items = [(number, box) for number, boxes in reference.BOXES.items() for *box, _ in boxes]

    def __len__(self):
        return len(self.items)

    def load(self, index):
        number, box = self.items[index]
        keypoints = np.zeros((len(NAMES), 3), np.float32)
        return {
            "image": reference.image_of(number), "keypoints": keypoints, "box": np.array(box, np.float32), "area": 1.0, "image_id": number,
        }  # fmt: skip


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


def predictions(network, codec, **options):
    """Keypoints (boxes, 17, 3) in pixels of the original images."""
    transform = Transform([TopDownAffine((HEIGHT, WIDTH), codec=codec)], reference.MEAN, reference.STD)
    samples = Samples(Boxes(), transform, 0, frozenset({"image", "keypoints"}))
    batch = collate([samples[Draw(0, index)] for index in range(len(samples))])
    task = Pose(model=lambda image: network(image.double()), labels=LABELS, codec=codec, **options).eval()
    with torch.no_grad():
        return task.predict_batch(batch)["keypoints"].numpy()


@pytest.mark.parametrize("name", reference.FLIPS)
def test_msra_predicts_as_hrnets_validate(network, name):
    """Crop, network, flip test with and without shift, decoding and the way back: 0.01 pixels."""
    flip, shift = reference.FLIPS[name]
    found = predictions(network, "msra", flip_test=flip, flip_shift=shift)
    np.testing.assert_allclose(found, RECORD["authors"][name]["predictions"], atol=0.01)


@pytest.mark.parametrize("codec", RECORD["mmpose"])
def test_codecs_predict_as_mmpose(network, codec):
    found, expected = predictions(network, codec, flip_test=True), np.array(RECORD["mmpose"][codec]["predictions"])
    if codec == "msra":  # at the border mmpose refines each axis for itself, and HRNet's code neither: the records differ
        same = np.abs(expected - RECORD["authors"]["flip_shift"]["predictions"]).max(-1) < 0.01
        assert same.mean() > 0.6
        found, expected = found[same], expected[same]
    np.testing.assert_allclose(found, expected, atol=0.01)


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
