"""dataset.limit: a stratified and seeded part of the training split."""

import json

import numpy as np
import pytest
from command_line import run_command
from test_configs import composed
from test_processes import TWO

from spine.config import checks
from spine.data.building import build_data
from spine.data.subset import limited
from spine.errors import InputError
from spine.interfaces import DataSet, Labels
from spine.reporting.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("blank_figures")

SIZES = (100, 40, 3, 57)  # samples of each class


class Classes(DataSet):
    provides = frozenset({"image", "label"})
    labels = Labels(classes=("a", "b", "c", "d"))

    def __init__(self):
        self.targets = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))

    def __len__(self):
        return len(self.targets)

    def load(self, index):
        return {"image": np.zeros((4, 4, 3), np.uint8), "label": int(self.targets[index])}


class Unlabeled(Classes):
    provides = frozenset({"image"})


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(0.1, [10, 4, 1, 5]), (20, [10, 4, 1, 5]), (0.5, [50, 20, 1, 29]), (4, [1, 1, 1, 1]), (0.001, [1, 1, 1, 1]), (1.0, SIZES)],
)
def test_every_class_keeps_its_share_and_at_least_one_sample(limit, expected):
    part = limited(Classes(), limit, seed=0)
    counts = np.bincount([part.load(i)["label"] for i in range(len(part))], minlength=4)
    assert np.abs(counts - expected).max() <= 1 and counts.min() >= 1 and counts.sum() == sum(expected)
    assert (part.class_indices() == [part.load(i)["label"] for i in range(len(part))]).all()


def test_the_seed_determines_the_part_and_a_smaller_part_lies_in_a_larger_one():
    parts = [set(limited(Classes(), 20, seed).indices.tolist()) for seed in (0, 0, 1)]
    assert parts[0] == parts[1] != parts[2]
    assert set(limited(Classes(), 10, 0).indices.tolist()) < parts[0]


def test_data_without_class_labels_is_reduced_at_random():
    part = limited(Unlabeled(), 0.25, seed=3)
    assert len(part) == 50 and len(set(part.indices.tolist())) == 50 and part.class_indices() is None


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (201, "dataset.limit is 201, but the training split has 200 samples. Set at most 200."),
        (
            3,
            "dataset.limit is 3, but the training split has images of 4 classes, and each keeps at least one. Set at least 4.",
        ),
    ],
)
def test_a_number_that_does_not_fit_is_reported(limit, message):
    with pytest.raises(InputError) as error:
        limited(Classes(), limit, seed=0)
    assert str(error.value) == message


@pytest.mark.parametrize("value", ["0", "0.0", "1.5", "-3", "true", "half"])
def test_other_values_are_refused(value):
    with pytest.raises(InputError, match=r"^dataset\.limit is .*; it must be a fraction of the training split"):
        checks.prepare(composed(f"dataset.limit={value}"))


def opened(*overrides):
    return build_data(checks.prepare(composed("dataset.length={train: 60, val: 20, test: 4}", *overrides)))


def test_only_the_training_split_is_limited_and_by_the_seed_of_the_run_unless_given():
    data = opened("dataset.limit=0.2")
    assert [len(data.split(name)) for name in ("train", "val", "test")] == [12, 20, 4]
    same, other = opened("dataset.limit=0.2", "seed=7", "dataset.limit_seed=0"), opened("dataset.limit=0.2", "seed=7")
    assert (same.split("train").indices == data.split("train").indices).all()
    assert (other.split("train").indices != data.split("train").indices).any()


def test_relabeled_samples_keep_the_class_of_their_part():
    labels = Labels(classes=tuple(reversed(Classes.labels.classes)))
    from spine.data.relabeling import Relabeled

    part = limited(Relabeled(Classes(), labels, frozenset({"label"})), 20, seed=0)
    assert part.class_indices().tolist() == [part.load(i)["label"] for i in range(len(part))]
    assert np.bincount(part.class_indices())[3] == 10  # class a


def test_the_fingerprint_and_the_run_id_depend_on_the_limit():
    data = opened("dataset.limit=0.2")
    prints = {fingerprint(data.split("train"), {"limit": 0.2, "limit_seed": seed}, None) for seed in (0, 1)}
    assert len(prints) == 2


@pytest.mark.slow
def test_several_processes_take_the_same_samples(tmp_path):
    """Each of the 16 samples is used once per epoch, by one of the processes."""
    done = run_command(
        "train.py", "backbone=mobilenet_v2", "dataset.length={train: 60, val: 4, test: 4}", "dataset.limit=16", "dataset.batch_size=4",
        "dataset.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu", *TWO, folder=tmp_path, processes=2,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "16 training samples" in done.stdout
    (results,) = tmp_path.glob("logs/train/runs/*/metrics.json")
    assert json.loads(results.read_text())["steps"] == 2
