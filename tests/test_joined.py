"""dataset=joined: several data sets as one, with classes united by name and draws by weight."""

import dataclasses
import json

import numpy as np
import pytest
from data_files import coco_annotations, write_image
from test_configs import composed, trained

from spine.config import checks
from spine.config.untrusted import strip_untrusted
from spine.data.building import build_data
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.shapes import Shapes
from spine.data.joined import JoinedDataSets, unite_labels
from spine.data.relabeling import Relabeled
from spine.data.sampling import weighted_order
from spine.errors import InputError
from spine.interfaces import DataSet, Labels
from spine.testing import check_data

pytestmark = pytest.mark.usefixtures("blank_figures")

CLASSES = {"a": ("cat", "dog"), "b": ("bird", "dog", "emu")}


@pytest.fixture
def roots(tmp_path):
    """Two folders: 10 images of each of two classes, and 4 of each of three."""
    for folder, count in (("a", 10), ("b", 4)):
        for name in CLASSES[folder]:
            for split in ("train", "val"):
                for i in range(count if split == "train" else 2):
                    write_image(tmp_path / folder / split / name / f"{i}.png", (10 * i, 100, 50))
    return tmp_path


def joined(root, *overrides):
    parts = [
        text for name in ("a", "b") for text in
        (f"+dataset@dataset.parts.{name}=image_folder", f"dataset.parts.{name}.root={root / name}")
    ]  # fmt: skip
    return composed("dataset=joined", "image_size=[32,32]", *parts, *overrides)


def opened(root, *overrides):
    return build_data(checks.prepare(joined(root, *overrides)))


def test_classes_are_united_by_name(roots):
    data = opened(roots).split("train")
    assert data.labels.classes == ("cat", "dog", "bird", "emu") and len(data) == 32
    assert np.bincount(data.class_indices()).tolist() == [10, 14, 4, 4]
    for index in (0, 10, 19, 20, 24, 31):
        (file,) = data.files(index)
        assert data.load(index)["label"] == data.load_annotations(index)["label"] == data.class_indices()[index]
        assert f"/{data.labels.classes[data.load(index)['label']]}/" in file
        assert data.encoded_image(index).name == file
    check_data(data, (0, 31))


def test_without_weights_each_sample_is_drawn_once(roots):
    data = opened(roots)
    assert data.sampling == "weighted"
    order = weighted_order(data.split("train"), "weighted").draw(32, np.random.default_rng(0))
    assert sorted(order) == list(range(32))


def test_weights_are_shares_of_the_draws(roots):
    data = opened(roots, "+dataset.parts.a.weight=1", "+dataset.parts.b.weight=3").split("train")
    times = np.bincount(weighted_order(data, "weighted").draw(32, np.random.default_rng(0)), minlength=32)
    assert times[:20].sum() == 8 and times[20:].sum() == 24 and set(times[20:]) == {2}


def test_a_part_may_be_used_for_some_splits_only(roots):
    data = opened(roots, "+dataset.parts.b.used_for=[train]", "+dataset.parts.a.weight=1", "+dataset.parts.b.weight=1")
    assert len(data.split("train")) == 32 and len(data.split("val")) == 4
    assert data.split("val").labels == data.split("train").labels
    with pytest.raises(InputError) as error:
        opened(roots, "+dataset.parts.a.used_for=[train]", "+dataset.parts.b.used_for=[train]").split("val")
    assert str(error.value) == "No part of the joined data set is used for the split 'val': a for train, b for train."


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+dataset.parts.a.weight=0"], r"^dataset\.parts\.a\.weight is 0; it must be a share of the draws above 0"),
        (["+dataset.parts.a.used_for=[training]"], r"^dataset\.parts\.a\.used_for is \['training'\]; it must be a list of splits"),
        (["+dataset.parts.a.rot=3"], r"^Unknown key 'dataset\.parts\.a\.rot'\. Did you mean 'root'"),
        (["dataset.parts.a.val_fraction=2.5"], r"^dataset\.parts\.a\.val_fraction is 2\.5; it must be a fraction of the images"),
        (["dataset.parts.a.root=nowhere"], r"^There is no folder 'nowhere', where data set 'image_folder' should be"),
        (["dataset.parts.a.root=null"], r"^Data set 'image_folder' is on disk"),
        (["dataset.parts.a._target_=os.system"], r"^dataset\.parts\.a\._target_='os\.system' is not allowed: it may name a data set"),
        (["dataset.parts=3"], r"^dataset\.parts is 3; dataset\.parts holds named data sets"),
        (["dataset.parts.a=photos"], r"^dataset\.parts\.a is 'photos'; dataset\.parts holds named data sets"),
        (["task=seg"], r"^Task 'seg' reads mask, which dataset\.parts\.a does not provide \(it gives image, label\)\.$"),
        (["+dataset.parts.c.root=x"], r"^dataset\.parts\.c has no _target_; it should name a data set"),
    ],
)  # fmt: skip
def test_mistakes_in_parts_are_reported(roots, overrides, message):
    with pytest.raises(InputError, match=message):
        checks.prepare(joined(roots, *overrides))


def test_mistakes_that_only_the_data_shows_are_reported(roots):
    with pytest.raises(InputError, match=r"^dataset\.parts\.b has no weight, and other parts have one"):
        opened(roots, "+dataset.parts.a.weight=2").split("train")
    with pytest.raises(InputError, match=r"^dataset=joined has no parts\."):
        build_data(checks.prepare(composed("dataset=joined"))).split("train")


def test_folders_of_parts_may_begin_with_the_home_folder(roots, monkeypatch):
    monkeypatch.setenv("HOME", str(roots))
    assert joined(roots, "dataset.parts.a.root='~/a'")["dataset"]["parts"]["a"]["root"] == f"{roots}/a"


def test_parts_of_a_checkpoint_are_checked(roots):
    config = joined(roots)
    assert strip_untrusted(config)["dataset"]["parts"]["a"]["root"] == str(roots / "a")
    config["dataset"]["parts"]["a"]["_target_"] = "shutil.rmtree"
    with pytest.raises(InputError, match="not allowed"):
        strip_untrusted(config)


def test_a_run_trains_on_parts_and_evaluates_the_joined_validation_split(roots, tmp_path):
    options = ("backbone=mobilenet_v2", "trainer.max_epochs=1", "trainer.accelerator=cpu", "dataset.num_workers=0")
    parts = [f"+dataset@dataset.parts.{name}=image_folder" for name in "ab"]
    trained(
        tmp_path, "dataset=joined", "image_size=[32,32]", *parts, f"dataset.parts.a.root={roots}/a", f"dataset.parts.b.root={roots}/b",
        "+dataset.parts.a.weight=1", "+dataset.parts.b.weight=1", "dataset.batch_size=8", *options,
    )  # fmt: skip
    rows = (tmp_path / "metrics.json").read_text()
    assert json.loads(rows)["steps"] == 4
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["num_outputs"] == 4


class Colored(Shapes):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.labels = dataclasses.replace(self.labels, palette=tuple((9, 9, i) for i in range(len(self.labels.mask_classes))))


class Half(Colored):
    """Shapes with other names of classes, and without keypoints."""

    provides = frozenset({"image", "label", "mask"})

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        own = self.labels
        self.labels = Labels(
            classes=("moon", *own.classes[1:]),
            mask_classes=("moon", *reversed(own.mask_classes)),
            palette=((1, 2, 3), *reversed(own.palette)),
        )


def test_masks_get_the_indices_of_the_united_classes():
    parts = {"a": Colored("train", length={"train": 4}), "b": Half("train", length={"train": 3})}
    labels = unite_labels(parts)
    data = JoinedDataSets(parts, labels)
    assert data.provides == {"image", "label", "mask"} and labels.keypoints == ()
    assert labels.mask_classes == (*parts["a"].labels.mask_classes, "moon")
    assert labels.palette == (*parts["a"].labels.palette, (1, 2, 3))
    for index in range(3):
        own, whole = parts["b"].load(index), data.load(4 + index)
        names, new = parts["b"].labels.mask_classes, labels.mask_classes
        assert [new[i] for i in np.unique(whole["mask"])] == [n for n in new if n in {names[i] for i in np.unique(own["mask"])}]
        assert (np.array([new.index(name) for name in names])[own["mask"]] == whole["mask"]).all()
        assert "keypoints" not in data.load(index)
    check_data(data, (0, 6))


def keypoint_parts(folder, orders):
    parts = {}
    for name, order in orders.items():
        write_image(folder / name / "train" / "a.png")
        names = ["left_eye", "right_eye", "nose"]
        content = coco_annotations()
        content["categories"][0]["keypoints"] = [names[i] for i in order]
        (folder / name / "train.json").write_text(json.dumps(content))
        options = {"images": "{split}", "annotations": "{split}.json", "sigmas": 0.05}
        parts[name] = COCOKeypoints("train", root=str(folder / name), **options)
    return parts


def test_keypoints_and_annotations_are_joined(tmp_path):
    parts = keypoint_parts(tmp_path, {"a": (0, 1, 2), "b": (2, 0, 1)})
    data = JoinedDataSets(parts, unite_labels(parts))
    first, second = data.load(0), data.load(1)
    assert first["image_id"] != second["image_id"]
    assert (second["keypoints"] == first["keypoints"][[1, 2, 0]]).all()  # its first keypoint is the nose
    truth = data.keypoint_annotations()
    assert truth.images.keys() == {first["image_id"], second["image_id"]} and len(truth.image_ids) == 6
    assert set(truth.image_ids.tolist()) == set(truth.images) and truth.crowd.sum() == 2
    assert (truth.keypoints[3] == truth.keypoints[0][[1, 2, 0]]).all()
    assert len(data.shared_files()) == 2
    mixed = JoinedDataSets({"a": parts["a"], "b": Plain(4)}, Labels())
    assert mixed.keypoint_annotations() is None and mixed.load(1).keys() == {"image"}
    with pytest.raises(InputError, match="'ear' is in one of the parts 'a' and 'b' only"):
        unite_labels({"a": Named("left", "ear"), "b": Named("left")})


class Plain(DataSet):
    provides = frozenset({"image"})
    labels = Labels()

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def load(self, index):
        return {"image": np.full((4, 4, 3), index, np.uint8)}


class Named(Plain):
    provides = frozenset({"image", "keypoints"})

    def __init__(self, *names):
        super().__init__(3)
        self.labels = Labels(keypoints=names)


class Grouped(Plain):
    def groups(self):
        return np.array([7, 7, 3])[: self.count]

    def sample_weights(self):
        return np.array([1.0, 1.0, 2.0])[: self.count]


def test_groups_and_weights_of_parts():
    data = JoinedDataSets({"a": Grouped(3), "b": Plain(2), "c": Grouped(2)}, Labels())
    groups = data.groups()
    assert groups[0] == groups[1] and groups[5] == groups[6] and len(set(groups.tolist())) == 5
    assert data.sample_weights().tolist() == [1, 1, 2, 1, 1, 1, 1]
    data = JoinedDataSets({"a": Grouped(3), "b": Plain(2)}, Labels(), {"a": 0.2, "b": 0.8})
    assert data.sample_weights() == pytest.approx([0.05, 0.05, 0.1, 0.4, 0.4])
    assert JoinedDataSets({"a": Plain(2)}, Labels()).groups() is None
    assert [int(data.load(i)["image"][0, 0, 0]) for i in range(5)] == [0, 1, 2, 0, 1] and data.class_indices() is None


class Several(Plain):
    provides = frozenset({"image", "label"})
    labels = Labels(classes=("x", "y"), several_classes=True)

    def load(self, index):
        return {**super().load(index), "label": np.array([1, 0], np.uint8)}


class Single(Several):
    labels = Labels(classes=("x", "y"))


def test_classes_that_a_data_set_of_several_classes_lacks_are_unknown():
    wanted = Labels(classes=("z", "y", "x"), several_classes=True)
    assert Relabeled(Several(1), wanted, frozenset({"label"})).load(0)["label"].tolist() == [255, 0, 1]
    with pytest.raises(InputError, match="Part 'a' has images with several classes .*, and part 'b' has not"):
        unite_labels({"a": Several(1), "b": Single(1)})
    with pytest.raises(InputError, match="trained with one class per image, and the data set has several classes per image"):
        Relabeled(Several(1), Labels(classes=("x", "y")), frozenset({"label"}))
