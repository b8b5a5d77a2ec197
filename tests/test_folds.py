"""dataset.k_fold: stratified folds that keep groups together, the same for every run."""

import numpy as np
import pytest
from command_line import run_command
from data_files import write_image
from test_configs import composed, folder
from test_limit import SIZES, Classes, Unlabeled

from spine.config import checks
from spine.data.building import build_data
from spine.data.folds import divide_into_folds, fold_of_split
from spine.errors import InputError
from spine.interfaces import DataSet, Labels

pytestmark = pytest.mark.usefixtures("blank_figures")


class Grouped(Classes):
    """Groups of 1 to 9 samples of any class."""

    def __init__(self):
        super().__init__()
        numbers = np.resize(np.repeat(np.arange(40) * 7, np.arange(40) % 9 + 1), 200)
        self.numbers = np.random.default_rng(1).permutation(numbers)

    def groups(self):
        return self.numbers


class Faces(DataSet):
    """Three objects in each image."""

    provides = frozenset({"image", "keypoints"})
    labels = Labels(keypoints=("nose",))

    def __len__(self):
        return 30

    def files(self, index):
        return [f"{index // 3}.jpg"]


@pytest.mark.parametrize("count", [2, 5, 7])
def test_each_class_is_divided_evenly(count):
    data = Classes()
    folds = divide_into_folds(data, count, seed=0)
    for label, size in enumerate(SIZES):
        assert np.ptp(np.bincount(folds[data.targets == label], minlength=count)) <= 1, (label, size)
    assert np.ptp(np.bincount(folds, minlength=count)) <= 1


def test_folds_are_disjoint_and_cover_the_training_split():
    data = Unlabeled()
    parts = [fold_of_split(data, "val", 4, fold, seed=0).indices for fold in range(4)]
    assert sorted(np.concatenate(parts)) == list(range(200))
    for fold, part in enumerate(parts):
        train = fold_of_split(data, "train", 4, fold, seed=0).indices
        assert sorted([*part, *train]) == list(range(200))


def test_the_seed_of_the_division_determines_the_folds():
    folds = [divide_into_folds(Classes(), 5, seed) for seed in (0, 0, 1)]
    assert (folds[0] == folds[1]).all() and (folds[0] != folds[2]).any()


def test_groups_stay_together_and_classes_are_nearly_even():
    data = Grouped()
    folds = divide_into_folds(data, 5, seed=0)
    for group in np.unique(data.numbers):
        assert len(set(folds[data.numbers == group])) == 1
    assert np.ptp(np.bincount(folds)) <= 4  # of 40
    for label in (0, 1, 3):  # 100, 40 and 57 samples
        counts = np.bincount(folds[data.targets == label], minlength=5)
        assert np.abs(counts - counts.mean()).max() <= 4, counts


def test_every_fold_has_a_group():
    class Few(Grouped):
        def groups(self):
            return np.minimum(np.arange(200), 4)  # one large group and four samples

    assert sorted(np.bincount(divide_into_folds(Few(), 5, seed=0))) == [1, 1, 1, 1, 196]


def test_objects_of_one_image_stay_together():
    folds = divide_into_folds(Faces(), 3, seed=0).reshape(10, 3)
    assert (folds == folds[:, :1]).all() and np.ptp(np.bincount(folds[:, 0])) <= 1


def test_more_folds_than_samples_or_groups_are_reported():
    with pytest.raises(InputError) as error:
        divide_into_folds(Classes(), 201, seed=0)
    assert str(error.value) == "dataset.k_fold is 201, but the training split has 200 samples. Set at most 200."
    with pytest.raises(InputError, match="k_fold is 50, but the samples of the training split are in 40 groups.*at most 40"):
        divide_into_folds(Grouped(), 50, seed=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset.k_fold=1"], r"^dataset\.k_fold is 1; it must be a whole number of folds, 2 or more, or null\.$"),
        (["dataset.fold=2"], r"^dataset\.fold is 2, but dataset\.k_fold is null"),
        (["dataset.k_fold=3", "dataset.fold=3"], r"^dataset\.fold is 3, but dataset\.k_fold=3 has folds 0 to 2\.$"),
    ],
)
def test_folds_that_do_not_exist_are_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        checks.prepare(composed(*overrides))


def test_rare_classes_are_reported(caplog):
    fold_of_split(Classes(), "train", 5, 0, seed=0)
    assert "1 classes have fewer samples than the 5 folds, so that some folds have none: c." in caplog.text


def test_a_fold_replaces_the_validation_split_and_the_limit_applies_to_the_rest(tmp_path):
    for name in ("cat", "dog"):
        for i in range(10):
            write_image(tmp_path / "train" / name / f"{i}.png")
        write_image(tmp_path / "test" / name / "0.png")  # there is no folder val
    options = ("dataset=image_folder", f"dataset.root={tmp_path}", "dataset.k_fold=5", "dataset.fold=3")
    data = build_data(checks.prepare(composed(*options)))
    train, val = data.split("train"), data.split("val")
    assert (len(train), len(val), len(data.split("test"))) == (16, 4, 2)
    files = [{train.files(i)[0] for i in range(16)}, {val.files(i)[0] for i in range(4)}]
    assert not files[0] & files[1] and np.bincount(val.class_indices()).tolist() == [2, 2]
    limited = build_data(checks.prepare(composed(*options, "dataset.limit=0.5", "seed=3")))
    assert len(limited.split("train")) == 8
    assert {limited.split("val").files(i)[0] for i in range(4)} == files[1]


def test_each_fold_has_a_run_folder_of_its_own():
    assert len({folder("dataset.k_fold=5", f"dataset.fold={fold}") for fold in range(5)}) == 5


@pytest.mark.slow
def test_a_sweep_over_folds_trains_each(tmp_path):
    done = run_command(
        "train.py", "-m", "backbone=mobilenet_v2", "dataset.length={train: 12, val: 4, test: 4}", "dataset.k_fold=2", "dataset.fold=0,1",
        "dataset.batch_size=4", "dataset.num_workers=0", "trainer.max_epochs=1", "trainer.accelerator=cpu", folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("logs/train/multiruns/*/*/metrics.json"))) == 2
    assert "dataset.fold" in done.stdout
