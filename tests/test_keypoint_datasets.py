"""Keypoint data sets in the layouts that users have on disk: COCO-WholeBody, MPII, 300-W and WFLW. Bad annotations."""

import json

import numpy as np
import pytest
from data_files import coco_annotations, write_image
from PIL import Image
from scipy.io import savemat
from test_configs import composed

from spine.data import build_data
from spine.data.formats.coco_keypoints import COCOKeypoints
from spine.data.formats.mpii import MPII
from spine.data.sampler import Draw
from spine.errors import InputError

NEEDS = frozenset({"image", "keypoints"})


def opened(dataset, root, split):
    """Returns the data set of a split, and its first sample."""
    data = build_data(composed("task=pose", f"dataset={dataset}", f"dataset.root={root}"))
    sample = data.transformed(split)[Draw(0, 0)]
    return data.split(split), sample


def write_coco(root, path, image, **changes):
    """Writes an image and an annotation file with one object."""
    write_image(root / image)
    content = coco_annotations(**changes)
    content["annotations"] = content["annotations"][:1]
    content["images"][0]["file_name"] = image.split("/", 1)[1]
    (root / path).parent.mkdir(exist_ok=True)
    (root / path).write_text(json.dumps(content))
    return content


def points(count, visibility=2):
    return [number for i in range(count) for number in (2 + i % 20, 3 + i % 9, visibility)]


def test_whole_bodies_have_133_keypoints_in_the_order_of_the_benchmark(tmp_path):
    annotation = {
        **coco_annotations()["annotations"][0], "keypoints": points(17), "num_keypoints": 17, "foot_kpts": points(6, 1),
        "face_kpts": points(68, 0), "lefthand_kpts": points(21), "righthand_kpts": points(21, 0),
    }  # fmt: skip
    person = [{"id": 1, "name": "person", "keypoints": ["nose"] * 17, "skeleton": [[1, 2]]}]
    write_coco(tmp_path, "annotations/coco_wholebody_val_v1.0.json", "val2017/a.png", annotations=[annotation], categories=person)
    data, sample = opened("coco_wholebody", tmp_path, "val")
    visible = sample["keypoints"][:, 2].tolist()
    assert visible == [2] * 17 + [1] * 6 + [0] * 68 + [2] * 21 + [0] * 21 and sample["image"].shape == (3, 256, 192)
    assert len(data.labels.sigmas) == 133 and data.keypoint_annotations().labeled.tolist() == [44]
    names = data.labels.keypoints
    assert len(set(names)) == 133
    for a, b in data.labels.flip_pairs:  # the parts of the face are numbered
        assert names[a].startswith("face") == names[b].startswith("face")
        assert names[a].startswith("face") or names[a].replace("left", "right") == names[b]
    for a, b in data.labels.skeleton:
        assert not names[a].startswith("face") and not names[b].startswith("face")


@pytest.mark.parametrize(
    ("dataset", "count", "split", "name", "middle"),
    [
        ("faces_300w", 68, "val", "face_landmarks_300w_valid", {8, 27, 28, 29, 30, 33, 51, 57, 62, 66}),
        ("faces_wflw", 98, "val", "face_landmarks_wflw_test", {16, 51, 52, 53, 54, 57, 79, 85, 90, 94}),
    ],
)
def test_faces_open_in_the_layout_of_openmmlab(tmp_path, dataset, count, split, name, middle):
    """Their files have no names of keypoints. Keypoints without a partner are in the middle of a face."""
    category = [{"id": 1, "name": "face", "keypoints": [], "skeleton": []}]
    annotation = {**coco_annotations()["annotations"][0], "keypoints": points(count, 1)}
    write_coco(tmp_path, f"annotations/{name}.json", "images/set/a.png", annotations=[annotation], categories=category)
    data, sample = opened(dataset, tmp_path, split)
    assert sample["keypoints"].shape == (count, 3) and data.labels.can_flip and len(data.labels.keypoints) == count
    paired = {i for pair in data.labels.flip_pairs for i in pair}
    assert set(range(count)) - paired == middle
    assert [len(group) for group in data.labels.norm_keypoints] == [1, 1]
    assert tuple(i for group in data.labels.norm_keypoints for i in group) in data.labels.flip_pairs


def person(**changes):
    joints = [[10.0 + i, 20.0] for i in range(16)]
    return {"image": "004.png", "center": [50.0, 40.0], "scale": 0.4, "joints": joints, "joints_vis": [1] * 15 + [0], **changes}


def write_mpii(root, people, annotations="annotations/mpii_val.json", heads="annotations/mpii_gt_val.mat"):
    write_image(root / "images" / "004.png", size=(80, 100))
    (root / annotations).parent.mkdir(exist_ok=True)
    (root / annotations).write_text(json.dumps(people))
    if heads:
        corners = np.zeros((2, 2, 1))
        corners[1, :, 0] = 30, 40
        savemat(root / heads, {"headboxes_src": corners})


@pytest.mark.parametrize(
    "files", [("annotations/mpii_val.json", "annotations/mpii_gt_val.mat"), ("annot/valid.json", "annot/gt_valid.mat")]
)
def test_mpii_opens_as_downloaded_from_openmmlab_and_from_hrnet(tmp_path, files):
    """Annotations count pixels from 1. The center of the box is 15 * scale lower, and its side 200 * scale (HRNet's code)."""
    write_mpii(tmp_path, [person()], *files)
    data, sample = opened("mpii", tmp_path, "val")
    raw = data.load(0)
    assert raw["keypoints"][0].tolist() == [9, 19, 2] and raw["keypoints"][15, 2] == 0
    x, y, width, height = raw["box"]
    assert (width, height) == (80, 80) and (x + width / 2, y + height / 2) == (49, 40 - 1 + 6)
    assert raw["head_size"] == pytest.approx(0.6 * 50) and raw["image_id"] == 4
    assert sample["head_size"] == 30 and sample["image"].shape == (3, 256, 256)
    assert len(data.shared_files()) == 2


def test_mpii_without_head_boxes_has_no_pckh(tmp_path, caplog):
    write_mpii(tmp_path, [person()], heads=None)
    assert "head_size" not in MPII("val", root=str(tmp_path)).load(0)
    assert "PCKh is not measured" in caplog.text


@pytest.mark.parametrize(
    ("people", "message"),
    [
        ([], r"mpii_val.json' is not in the format of MPII: a list of people with image, center, scale, joints, joints_vis"),
        ([{"image": "a.png"}], "is not in the format of MPII"),
        ([person(), person()], r"mpii_gt_val.mat' has 1 boxes of heads for 2 people"),
        ([person(joints=[[1, 2]] * 14)], r"image '004.png' in '.*mpii_val.json' does not have 16 keypoints"),
        ([person(joints=[[1, float("nan")]] * 16)], "does not have 16 keypoints of finite x and y"),
        ([person(scale=0)], r"image '004.png' in '.*mpii_val.json' has the center .* and the scale 0; the center is x and y"),
        ([person(center=[1, 2, 3])], r"has the center \[1, 2, 3\]"),
        ([person(center="left")], r"has the center left"),
        ([person(joints=[[1, 2]] * 15 + [[1]])], r"does not have 16 keypoints"),
    ],
)
def test_mistakes_in_files_of_mpii_are_reported(tmp_path, people, message):
    write_mpii(tmp_path, people)
    with pytest.raises(InputError, match=message):
        MPII("val", root=str(tmp_path)).check(NEEDS)


# ---- bad annotations in COCO's format --------------------------------------------------------------------------------


@pytest.fixture
def coco(tmp_path):
    def write(content, **options):
        write_image(tmp_path / "train" / "a.png")
        (tmp_path / "train.json").write_text(json.dumps(content))
        return COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", **{"sigmas": 0.05, **options})

    return write


def annotated(*changes):
    first = coco_annotations()["annotations"][0]
    return coco_annotations(annotations=[{**first, "id": number, **each} for number, each in enumerate(changes, start=1)])


def test_coordinates_that_are_not_numbers_are_refused(coco):
    with pytest.raises(InputError, match=r"Annotation 2 in '.*train.json' has a coordinate or an area that is not a number"):
        coco(annotated({}, {"keypoints": [4, float("nan"), 2, 10, 6, 1, 0, 0, 0]}))
    with pytest.raises(InputError, match=r"Annotation 1 in '.*train.json' has a coordinate or an area that is not a number"):
        coco(annotated({"bbox": [2, 3, float("inf"), 10]}))
    with pytest.raises(InputError, match=r"Annotation 1 in '.*train.json' has a coordinate or an area that is not a number"):
        coco(annotated({"area": float("nan")}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (annotated({"keypoints": 5}), r"Annotation 1 in '.*train.json' has keypoints that are not a list of x, y, visibility"),
        (annotated({"keypoints": [[4, 5, 2], [10, 6, 1], [0, 0, 0]]}), r"Annotation 1 in '.*train.json' has 3 numbers for 3"),
        (annotated({"keypoints": [4, 5, "2", 10, 6, "x", 0, 0, 0]}), r"Annotation 1 in '.*train.json' has a coordinate"),
        (annotated({"bbox": [2, 3]}), r"Annotation 1 in '.*train.json' has a coordinate or an area .* a bbox that is not x, y"),
        (
            coco_annotations(annotations=[{"id": 1}]),
            r"Entry 0 of the list 'annotations' in '.*train.json' .* id, image_id, category_id",
        ),
        (
            coco_annotations(images=[{"id": 5}]),
            r"Entry 0 of the list 'images' in '.*train.json' is not an object with id, file_name",
        ),
        (coco_annotations(categories=["face"]), r"Entry 0 of the list 'categories' in '.*train.json' is not an object with id"),
    ],
)
def test_files_with_other_contents_are_refused(coco, content, message):
    with pytest.raises(InputError, match=message):
        coco(content)


GRAY = np.full((20, 30), 120, np.uint8)
OPAQUE = np.full((20, 30), 255, np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GRAY),
        Image.fromarray(np.stack([GRAY, OPAQUE], -1), "LA"),
        Image.fromarray(np.stack([GRAY] * 3 + [OPAQUE], -1), "RGBA"),
        Image.fromarray(np.stack([GRAY] * 3, -1)).quantize(4),
        Image.fromarray(GRAY.astype(np.uint16) * 257),
    ],
    ids=["gray", "gray with alpha", "RGB with alpha", "palette", "16 bits"],
)
def test_images_of_one_channel_with_alpha_and_of_16_bits_are_read_as_rgb(coco, tmp_path, image):
    data = coco(annotated({}))
    image.save(tmp_path / "train" / "a.png")
    data.check(NEEDS)
    pixels = data.load(0)["image"]
    assert pixels.shape == (20, 30, 3) and pixels.dtype == np.uint8 and (pixels == 120).all()


def test_boxes_without_an_area_are_left_out_but_evaluated(coco, caplog):
    data = coco(annotated({}, {"bbox": [2, 3, 0, 10]}))
    assert len(data) == 1 and len(data.keypoint_annotations().boxes) == 2
    assert "1 labeled objects in" in caplog.text and "the first is annotation 2" in caplog.text


def test_keypoints_outside_of_the_image_are_reported_and_kept(coco, caplog):
    data = coco(annotated({}, {"keypoints": [4, 5, 2, 40, 6, 1, 0, 0, 0]}, {"keypoints": [4, 5, 2, 90, 90, 0, 0, 0, 0]}))
    assert len(data) == 3 and data.load(1)["keypoints"][1].tolist() == [40, 6, 1]
    assert "1 labeled keypoints in" in caplog.text and "the first in annotation 2" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm_keypoints": [[0]]}, "dataset.norm_keypoints has 1 groups of keypoints; it needs two"),
        ({"norm_keypoints": [[0], [3]]}, "dataset.norm_keypoints names keypoint 3; there are keypoints 0 to 2"),
        ({"skeleton": [[0, 5]]}, "dataset.skeleton names keypoint 5"),
        ({"names": 4}, r"has 9 numbers for 4 keypoints, not 12"),
    ],
)
def test_mistakes_in_options_are_reported(coco, options, message):
    with pytest.raises(InputError, match=message):
        coco(coco_annotations(), **options)


def test_files_without_names_of_keypoints_need_them(coco):
    content = coco_annotations(categories=[{"id": 1, "name": "face", "keypoints": [], "skeleton": []}])
    with pytest.raises(InputError, match=r"set dataset.names to a list of names, or to their number"):
        coco(content)
    assert coco(content, names=3).labels.keypoints == ("0", "1", "2")
    assert coco(content, names=["a", "b", "c"]).labels.keypoints == ("a", "b", "c")
