"""Keypoints in COCO's format, and the keypoints that swap in a flipped image."""

import json

import pytest
from data_files import coco_annotations, write_image
from PIL import Image

from spine.data.formats.coco_keypoints import COCO_SIGMAS, COCOKeypoints
from spine.data.keypoint_flips import find_flip_pairs
from spine.data.transforms import TopDownAffine, Transform
from spine.errors import InputError


@pytest.fixture
def keypoints(tmp_path):
    write_image(tmp_path / "train" / "a.png")

    def write(content, **options):
        (tmp_path / "train.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", **{"sigmas": 0.05, **options})

    return write


def test_only_labeled_single_objects_are_samples(keypoints):
    data = keypoints(coco_annotations())
    assert len(data) == 1  # not the unlabeled one, not the crowd
    assert data.labels.keypoints == ("left_eye", "right_eye", "nose")
    assert data.labels.flip_pairs == ((0, 1),) and data.labels.skeleton == ((0, 2), (1, 2))
    assert data.labels.sigmas == (0.05,) * 3
    sample = data.load(0)
    assert sample["keypoints"].tolist() == [[4, 5, 2], [10, 6, 1], [0, 0, 0]]
    assert sample["box"].tolist() == [2, 3, 12, 10] and sample["area"] == 90 and sample["image_id"] == 5


def test_coco_persons_have_the_sigmas_of_cocoeval(keypoints):
    names = ["nose", "left_eye", "right_eye", *[f"point{i}" for i in range(14)]]
    content = coco_annotations(categories=[{"id": 1, "name": "person", "keypoints": names, "skeleton": []}])
    for annotation in content["annotations"]:
        annotation["keypoints"] = [1, 1, 2] * 17
    assert keypoints(content, sigmas=None).labels.sigmas == COCO_SIGMAS


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (coco_annotations(categories=[{"id": 1, "name": "car"}]), {}, "no category with keypoints"),
        (coco_annotations(annotations=[]), {}, "no annotation with a labeled keypoint"),
        ("[1, 2", {}, "is not JSON"),
        (coco_annotations(images=[]), {}, "of image 5, which the file does not list"),
        (coco_annotations(), {"sigmas": None}, "has no sigmas for its 3 keypoints"),
        (coco_annotations(), {"sigmas": [0.1]}, "There are 1 sigmas for 3 keypoints"),
        (coco_annotations(), {"flip_pairs": [[0, 3]]}, "keypoints 0 to 2"),
        (coco_annotations(), {"flip_pairs": [[0, 1], [1, 2]]}, r"Keypoint 1 \('right_eye'\) is in two flip pairs"),
        ({"images": []}, {}, "is not in COCO's format: it needs the lists images, annotations, categories"),
    ],
)
def test_mistakes_in_annotation_files_are_reported(keypoints, content, options, message):
    with pytest.raises(InputError, match=message):
        keypoints(content, **options)


def write_split(root, split, suffix, images="{split}"):
    """One image and its annotations, as split + suffix."""
    write_image(root / images.format(split=split + suffix) / "a.png")
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}{suffix}.json").write_text(json.dumps(coco_annotations()))


@pytest.mark.parametrize("suffix", ["", "2017", "2014"])
def test_the_files_of_coco_open_as_downloaded(tmp_path, suffix):
    for split in ("train", "val"):
        write_split(tmp_path, split, suffix)
    for split in ("train", "val"):
        data = COCOKeypoints(split, root=str(tmp_path), sigmas=0.05)
        assert data.folder == tmp_path / (split + suffix)
        assert data.path == tmp_path / f"annotations/person_keypoints_{split}{suffix}.json"
        data.check(frozenset({"image", "keypoints"}))


def test_splits_can_have_other_names(tmp_path):
    write_split(tmp_path, "train", "")
    write_split(tmp_path, "valid", "")
    with pytest.raises(InputError, match="To use 'valid', set dataset.splits.val=valid"):
        COCOKeypoints("val", root=str(tmp_path), sigmas=0.05)
    data = COCOKeypoints("val", root=str(tmp_path), sigmas=0.05, splits={"val": "valid"})
    assert data.folder == tmp_path / "valid" and data.path.name == "person_keypoints_valid.json"


def test_paths_without_split_use_the_split_if_it_exists(tmp_path, caplog):
    """images=images is a sub-folder of the split or the folder itself, annotations=annotations/x.json the file of the split or itself."""
    write_split(tmp_path, "train", "", images="images/{split}")
    write_image(tmp_path / "flat/a.png")
    options = {"root": str(tmp_path), "sigmas": 0.05, "annotations": "annotations/person_keypoints.json"}
    assert COCOKeypoints("train", images="images", **options).folder == tmp_path / "images/train"
    assert COCOKeypoints("train", images="flat", **options).folder == tmp_path / "flat"
    assert not caplog.messages
    options["annotations"] = "annotations/person_keypoints_train.json"
    assert COCOKeypoints("val", images="flat", **options).path.name == "person_keypoints_train.json"
    assert "Split 'val' reads" in caplog.text and "like every other split" in caplog.text


def test_keypoints_stay_in_stored_pixels(keypoints, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train").mkdir(exist_ok=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "train/a.jpg", exif=exif)

    def image(**size):
        data = keypoints(coco_annotations(images=[{"id": 5, "file_name": "a.jpg", **size}]))
        data.check(frozenset({"image", "keypoints"}))
        return data.load(0)["image"]

    assert image(width=30, height=20).shape == (20, 30, 3)
    assert image(width=20, height=30).shape == (30, 20, 3)  # the annotations are of the upright image
    assert image().shape == (20, 30, 3)
    with pytest.raises(InputError, match=r"a.jpg' is 20x30 .* made for 31x20"):
        image(width=20, height=31)


def test_missing_images_are_reported_before_training(keypoints):
    data = keypoints(coco_annotations(images=[{"id": 5, "file_name": "gone.png"}]))
    with pytest.raises(InputError, match=r"1 of 1 images in '.*train.json' are not in .* the first is 'gone.png'"):
        data.check(frozenset({"image", "keypoints"}))


@pytest.mark.parametrize(
    "names",
    [
        "nose left_eye right_eye", "nose Left_Eye Right_Eye", "nose leftEye rightEye", "nose LeftEye RightEye", "nose LEye REye",
        "nose l_eye r_eye", "nose eye_l eye_r", "nose eye.L eye.R", "nose eyeL eyeR", "nose lefteye righteye", "nose lhip rhip",
        "nose LEFT_EYE RIGHT_EYE", "neck left_eye_left_corner right_eye_right_corner", "tail L1 R1", "chin_cleft lt-ear rt-ear",
    ],
)  # fmt: skip
def test_flip_pairs_are_read_from_names(names):
    assert find_flip_pairs(names.split()) == (((1, 2),), ())


@pytest.mark.parametrize(
    ("names", "unknown"),
    [
        ("left_eye nose", ["left_eye"]),
        ("L_hand r_foot", ["L_hand", "r_foot"]),
        ("right_brow_0 right_brow_1 left_brow_0 left_brow_1", ["right_brow_0", "right_brow_1", "left_brow_0", "left_brow_1"]),
        ("point1 point2 nose", ["point1", "point2"]),
        ("0 1 2", ["0", "1", "2"]),
    ],
)
def test_names_without_a_known_partner(names, unknown):
    pairs, found = find_flip_pairs(names.split())
    assert pairs == () and list(found) == unknown


def with_names(*names):
    annotation = {**coco_annotations()["annotations"][0], "keypoints": [4, 5, 2] * len(names)}
    return coco_annotations(categories=[{"id": 1, "keypoints": list(names)}], annotations=[annotation])


@pytest.mark.parametrize(
    ("names", "given", "can_flip"),
    [
        (("left_eye", "right_eye", "nose"), None, True),
        (("left_eye", "right_eye", "left_ear"), None, False),
        (("0", "1"), None, False),
        (("head", "tail"), None, False),
        (("head", "tail"), [], True),
        (("0", "1"), [[0, 1]], True),
        (("centre",), None, True),
    ],
)
def test_images_are_flipped_only_if_pairs_are_known(keypoints, caplog, names, given, can_flip):
    data = keypoints(with_names(*names), flip_pairs=given)
    assert data.labels.can_flip == can_flip
    step = TopDownAffine((32, 32), flip=0.5)
    transform = Transform([step], [0] * 3, [1] * 3)
    transform.prepare(data.labels, frozenset({"image", "keypoints"}))
    assert (step.flip == 0.5) == can_flip
    assert any("Images are not flipped" in m and "dataset.flip_pairs=[[0,1],...]" in m for m in caplog.messages) != can_flip


def test_numbered_face_keypoints_are_not_paired(shared_data):
    data = COCOKeypoints(
        "val", root=str(shared_data / "face_landmarks"), images="images", annotations="annotations/face68.json", sigmas=0.05
    )
    assert len(data) == 360 and not data.labels.can_flip


def test_real_persons_open(shared_data):
    data = COCOKeypoints("val", root=str(shared_data / "coco_person"))
    assert len(data) == 12 and len(data.labels.flip_pairs) == 8 and len(data.labels.sigmas) == 17


def test_real_faces_open(shared_data):
    data = COCOKeypoints(
        "val",
        root=str(shared_data / "face_landmarks"),
        images="images/{split}",
        annotations="annotations/face5_{split}.json",
        sigmas=0.05,
    )
    assert len(data) == 360
    assert {frozenset(pair) for pair in data.labels.flip_pairs} == {frozenset((0, 1)), frozenset((3, 4))}
