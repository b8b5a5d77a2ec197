"""Augmentation of crops by a box: half bodies, distributions, probabilities."""

import numpy as np
import pytest
from test_geometry import WITH_KEYPOINTS, center_of, spot

from spine.data.half_body import choose_half, find_upper_body
from spine.data.transforms import TopDownAffine
from spine.errors import InputError
from spine.interfaces import Labels

COCO = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
    "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
MPII = (
    "r_ankle", "r_knee", "r_hip", "l_hip", "l_knee", "l_ankle", "pelvis", "thorax", "upper_neck", "head_top", "r_wrist", "r_elbow",
    "r_shoulder", "l_shoulder",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "upper"),
    [
        (COCO, range(11)),
        (MPII, range(7, 14)),
        (["rHip", "LKnee", "Nose"], [2]),
        (["left_eye", "nose"], []),
        (["hip", "knee"], []),
    ],
)
def test_the_upper_body_is_known_by_names(names, upper):
    assert find_upper_body(names) == tuple(upper)


def person(labeled=17):
    """Keypoints (17, 3) of a person whose upper half is above y=50."""
    keypoints = np.stack([np.linspace(40, 80, 17), np.linspace(10, 90, 17), np.full(17, 2.0)], 1).astype(np.float32)
    keypoints[labeled:, 2] = 0
    return keypoints


def test_half_bodies_are_chosen_among_labeled_keypoints():
    rng = np.random.default_rng(0)
    centers = np.array([choose_half(person(), range(11), rng).center[1] for _ in range(2000)])
    assert set(centers.round(1)) == {35.0, 77.5} and (centers < 50).mean() == pytest.approx(0.69, abs=0.03)
    assert choose_half(person(8), range(11), rng) is None  # nine keypoints at least
    assert {float(choose_half(person(12), range(11), rng).center[1]) for _ in range(50)} == {
        35.0
    }  # one keypoint of the lower half


def test_a_crop_of_half_a_body_contains_its_keypoints():
    image, _ = spot(60, 20)
    sample = {"image": image, "keypoints": person(), "box": np.array([35, 5, 50, 90], np.float32)}
    step = TopDownAffine((96, 96), half_body=1.0)
    step.prepare(Labels(keypoints=COCO), WITH_KEYPOINTS)
    zooms = set()
    for seed in range(20):
        points = step(dict(sample), np.random.default_rng(seed))["keypoints"]
        inside = ((points[:, :2] > 10) & (points[:, :2] < 85)).all(1)
        assert inside[:11].all() or inside[11:].all()
        zooms.add(round(float(np.linalg.norm(points[1, :2] - points[0, :2])), 3))
    assert len(zooms) == 2
    plain = TopDownAffine((96, 96))(dict(sample), np.random.default_rng(0))["keypoints"]
    assert ((plain[:, :2] > -0.5) & (plain[:, :2] < 95.5)).all()


def test_half_bodies_are_turned_off_without_a_lower_body(caplog):
    step = TopDownAffine((96, 96), half_body=0.5)
    step.prepare(Labels(keypoints=("left_eye", "nose")), WITH_KEYPOINTS)
    assert step.half_body == 0 and "Bodies are not halved: it is not known which keypoints are of the upper body" in caplog.text
    step = TopDownAffine((96, 96), half_body=0.5, upper_body=[0])
    step.prepare(Labels(keypoints=("left_eye", "nose")), WITH_KEYPOINTS)
    assert step.half_body == 0.5
    step = TopDownAffine((96, 96), half_body=0.5, upper_body=[2])
    with pytest.raises(InputError, match="upper_body has index 2; the keypoints are 0 to 1"):
        step.prepare(Labels(keypoints=("left_eye", "nose")), WITH_KEYPOINTS)


def angles_and_zooms(step, count=3000):
    """The angles in degrees, the factors of the size of the box, and the shifts relative to it."""
    box, matrices = np.array([20, 10, 60, 80], np.float32), []
    step.size = (8, 8)  # a small warp
    for seed in range(count):
        sample = {"image": np.zeros((4, 4, 3), np.uint8), "keypoints": np.zeros((1, 3), np.float32), "box": box}
        matrices.append(step(sample, np.random.default_rng(seed))["affine"])
    affine = np.array(matrices, np.float64)
    angle = np.rad2deg(np.arctan2(affine[:, 0, 1], affine[:, 0, 0]))
    scale = 8 / 80 / step.padding / np.hypot(affine[:, 0, 0], affine[:, 0, 1])
    center = np.array([np.linalg.solve(m[:, :2], np.array([3.5, 3.5]) - m[:, 2]) for m in affine])
    return angle, scale, (center - [49.5, 49.5]) / [60, 80]


def test_hrnets_distributions():
    angle, scale, shift = angles_and_zooms(
        TopDownAffine((8, 8), scale=0.35, rotate=45, rotate_probability=0.6, distribution="clipped_normal")
    )
    turned = angle[abs(angle) > 1e-3]
    assert len(turned) / len(angle) == pytest.approx(0.6, abs=0.03)
    assert turned.std() == pytest.approx(45 * 0.96, rel=0.05) and abs(turned).max() == pytest.approx(90, abs=0.01)
    assert scale.min() == pytest.approx(0.65, abs=1e-4) and scale.max() == pytest.approx(1.35, abs=1e-4)
    assert (abs(abs(scale - 1) - 0.35) < 1e-4).mean() == pytest.approx(0.317, abs=0.03)  # beyond one standard deviation
    assert abs(shift).max() < 1e-4


def test_mmposes_distributions():
    step = TopDownAffine(
        (8, 8), scale=0.5, rotate=80, rotate_probability=0.6, shift=0.2, shift_probability=0.3, distribution="truncated_normal"
    )
    angle, scale, shift = angles_and_zooms(step)
    assert abs(angle).max() < 80 and 0.5 < scale.min() < 0.52 and 1.48 < scale.max() < 1.5
    assert (scale - 1).std() == pytest.approx(0.5 * 0.54, rel=0.05)  # of a normal number within one standard deviation
    moved = (abs(shift) > 1e-6).any(1)
    assert moved.mean() == pytest.approx(0.3, abs=0.03) and (abs(shift[moved]) > 1e-6).all()
    assert abs(shift).max() < 0.2 and np.corrcoef(shift[moved].T)[0, 1] < 0.1


def test_an_unknown_distribution_is_refused():
    with pytest.raises(InputError, match="distribution is 'normal'; choices: uniform, clipped_normal, truncated_normal"):
        TopDownAffine((8, 8), distribution="normal")


@pytest.mark.parametrize("codec", ["fractional", "msra", "dark", "udp"])
def test_every_grid_moves_image_and_keypoints_together(codec):
    step = TopDownAffine((96, 72), scale=0.2, rotate=30, shift=0.05, flip=0.5, codec=codec)
    for seed in range(6):
        image, _ = spot(70.3, 50.8)
        keypoints = np.array([[70.3, 50.8, 2]], np.float32)
        out = step(
            {"image": image, "keypoints": keypoints, "box": np.array([40, 30, 60, 45], np.float32)}, np.random.default_rng(seed)
        )
        np.testing.assert_allclose(center_of(out["image"][..., 0]), out["keypoints"][0, :2], atol=0.12)
