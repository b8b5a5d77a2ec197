"""Every format is written tiny into a folder and read back; what is broken is named in one sentence."""

import gzip
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from spine.data.formats.coco_keypoints import COCO_SIGMAS, COCOKeypoints
from spine.data.formats.fashion_mnist import FashionMNIST
from spine.data.formats.image_folder import ImageFolder
from spine.data.formats.mask_folder import MaskFolder
from spine.data.formats.shapes import CLASSES, Shapes
from spine.data.keypoint_flips import find_flip_pairs
from spine.data.transforms import TopDownAffine, Transform
from spine.errors import InputError


def picture(path, color=(200, 100, 50), size=(20, 30)):
    """An RGB picture of one color, without loss where the suffix allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), color[::-1], np.uint8))


def write_mask(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.asarray(values, np.uint8))


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_shapes_are_a_function_of_split_and_index():
    one, two = Shapes("train"), Shapes("train")
    for key, value in one.load(7).items():
        np.testing.assert_array_equal(value, two.load(7)[key])
    assert not np.array_equal(one.load(7)["image"], one.load(8)["image"])
    assert not np.array_equal(one.load(7)["image"], Shapes("val").load(7)["image"])
    assert not np.array_equal(one.load(7)["image"], Shapes("train", seed=1).load(7)["image"])


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (224, 224)])
def test_shapes_give_what_they_promise(size):
    data = Shapes("val", size=size)
    for index in range(30):
        sample = data.load(index)
        assert sample["image"].shape == (*size, 3) and sample["image"].dtype == np.uint8
        assert sample["mask"].shape == size and sample["mask"].max() <= len(CLASSES)
        assert (sample["mask"] == sample["label"] + 1).any()  # the main object can be seen
        assert sample["keypoints"].shape == (5, 3) and set(sample["keypoints"][:, 2]) <= {1, 2}
        x, y = sample["keypoints"][4, :2]  # the centre lies in the object's box
        left, top, width, height = sample["box"]
        assert left <= x <= left + width and top <= y <= top + height
    assert {data.load(i)["label"] for i in range(60)} == set(range(len(CLASSES)))


def test_shapes_cannot_be_told_by_the_colour_of_a_pixel():
    """The best answer per color (8 steps a channel), learnt on 600 pictures, stays below 0.4 mIoU."""
    steps = 8

    def colors(image):
        r, g, b = np.moveaxis(image.astype(int) // (256 // steps), -1, 0)
        return ((r * steps + g) * steps + b).ravel()

    train, val = Shapes("train"), Shapes("val")
    counts = np.zeros((steps**3, len(CLASSES) + 1))
    for index in range(600):
        sample = train.load(index)
        np.add.at(counts, (colors(sample["image"]), sample["mask"].ravel()), 1)
    for table in (counts, counts / counts.sum(0)):  # as often as they are, and each class alike
        answer, confusion = table.argmax(1), np.zeros((len(CLASSES) + 1,) * 2)
        for index in range(200):
            sample = val.load(index)
            np.add.at(confusion, (sample["mask"].ravel(), answer[colors(sample["image"])]), 1)
        hits = np.diag(confusion)
        assert np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits)) < 0.4


def test_shapes_refuse_sizes_they_were_not_made_for():
    with pytest.raises(InputError, match="64 to 224"):
        Shapes("train", size=(32, 64))


# ---- image_folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / split / "apple" / "a.png", (250, 0, 0))
        picture(tmp_path / split / "pear" / "b.png", (0, 250, 0))
    return tmp_path


def test_image_folder_reads_rgb_and_classes(folders):
    data = ImageFolder("val", root=str(folders))
    assert data.labels.classes == ("apple", "pear") and len(data) == 2
    sample = data.load(1)
    assert sample["label"] == 1 and sample["image"][0, 0].tolist() == [0, 250, 0]


def test_grey_pictures_become_rgb(folders):
    cv2.imwrite(str(folders / "val/apple/grey.png"), np.full((9, 9), 77, np.uint8))
    data = ImageFolder("val", root=str(folders))
    grey = next(i for i in range(len(data)) if data.path(i).name == "grey.png")
    assert data.load(grey)["image"].shape == (9, 9, 3)


def test_image_folder_names_what_is_wrong(folders, tmp_path):
    with pytest.raises(InputError, match=r"dataset.root=<path>"):
        ImageFolder("train", root=None)
    with pytest.raises(InputError, match="no folder '.*nowhere'"):
        ImageFolder("train", root=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no folder '.*test'.*Folders beside it: train, val"):
        ImageFolder("test", root=str(folders))
    (folders / "val" / "apple" / "a.png").write_bytes(b"\xff\xd8 not a picture")
    with pytest.raises(InputError, match="'.*apple/a.png' cannot be decoded"):
        ImageFolder("val", root=str(folders)).load(0)
    picture(folders / "val" / "plum" / "c.png")
    with pytest.raises(InputError, match="class 'plum', which '.*train' does not know"):
        ImageFolder("val", root=str(folders))
    for path in (folders / "train").rglob("*.png"):
        path.unlink()
    with pytest.raises(InputError, match="hold no images"):
        ImageFolder("train", root=str(folders))


def test_a_picture_that_vanished_is_named(folders):
    data = ImageFolder("train", root=str(folders))
    (folders / "train/apple/a.png").unlink()
    with pytest.raises(InputError, match="'.*a.png' is missing"):
        data.load(0)


# ---- mask_folder -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pairs(tmp_path):
    for split in ("train", "val"):
        picture(tmp_path / "images" / split / "one.png", size=(4, 6))
        write_mask(tmp_path / "masks" / split / "one.png", [[0, 0, 1, 1, 2, 2]] * 4)
    (tmp_path / "classes.txt").write_text("sky\nroad\n")
    (tmp_path / "train.txt").write_text("images/train/one.png masks/train/one.png\n")
    return tmp_path


def test_mask_folder_matches_names_and_ignores(pairs):
    data = MaskFolder("train", root=str(pairs), ignore_index=2)
    assert data.labels.mask_classes == ("sky", "road")
    assert data.load(0)["mask"][0].tolist() == [0, 0, 1, 1, 255, 255]


def test_mask_folder_reads_a_list_and_reduces_zero(pairs):
    data = MaskFolder("train", root=str(pairs), pairs="{split}.txt", reduce_zero_label=True)
    assert data.load(0)["mask"][0].tolist() == [255, 255, 0, 0, 1, 1]


def test_mask_folder_names_what_is_wrong(pairs):
    with pytest.raises(InputError, match=r"'.*one.png' holds the value 2, which none of the 2 classes has"):
        MaskFolder("train", root=str(pairs)).load(0)
    with pytest.raises(InputError, match="two classes or more"):
        MaskFolder("train", root=str(pairs), classes=["only"])
    with pytest.raises(InputError, match=r"no file '.*names.txt'"):
        MaskFolder("train", root=str(pairs), classes="names.txt")
    picture(pairs / "masks" / "train" / "one.png", size=(4, 6))
    with pytest.raises(InputError, match="holds colors .* one channel of class indices"):
        MaskFolder("train", root=str(pairs)).load(0)
    write_mask(pairs / "masks" / "train" / "one.png", [[0, 1]])
    with pytest.raises(InputError, match="is 4x6, its mask .* 1x2"):
        MaskFolder("train", root=str(pairs)).load(0)
    (pairs / "masks" / "train" / "one.png").unlink()
    with pytest.raises(InputError, match="1 of 1 images have no mask"):
        MaskFolder("train", root=str(pairs))
    (pairs / "train.txt").write_text("images/train/one.png\n")
    with pytest.raises(InputError, match=r"Line 1 of '.*train.txt' is not a pair"):
        MaskFolder("train", root=str(pairs), pairs="{split}.txt")


# ---- coco_keypoints --------------------------------------------------------------------------------------------------


def coco(**changes):
    annotation = {
        "id": 1, "image_id": 5, "category_id": 1, "keypoints": [4, 5, 2, 10, 6, 1, 0, 0, 0], "num_keypoints": 2,
        "bbox": [2, 3, 12, 10], "area": 90, "iscrowd": 0,
    }  # fmt: skip
    content = {
        "images": [{"id": 5, "file_name": "a.png", "width": 30, "height": 20}],
        "categories": [{"id": 1, "name": "face", "keypoints": ["left_eye", "right_eye", "nose"], "skeleton": [[1, 3], [2, 3]]}],
        "annotations": [
            annotation,
            {**annotation, "id": 2, "keypoints": [0] * 9},
            {**annotation, "id": 3, "iscrowd": 1},
        ],
    }
    return {**content, **changes}


@pytest.fixture
def keypoints(tmp_path):
    picture(tmp_path / "train" / "a.png")

    def write(content, **options):
        (tmp_path / "train.json").write_text(content if isinstance(content, str) else json.dumps(content))
        return COCOKeypoints("train", root=str(tmp_path), annotations="{split}.json", **{"sigmas": 0.05, **options})

    return write


def test_coco_keypoints_reads_the_labelled_objects(keypoints):
    data = keypoints(coco())
    assert len(data) == 1  # not the unlabelled one, not the crowd
    assert data.labels.keypoints == ("left_eye", "right_eye", "nose")
    assert data.labels.flip_pairs == ((0, 1),) and data.labels.skeleton == ((0, 2), (1, 2))
    assert data.labels.sigmas == (0.05,) * 3
    sample = data.load(0)
    assert sample["keypoints"].tolist() == [[4, 5, 2], [10, 6, 1], [0, 0, 0]]
    assert sample["box"].tolist() == [2, 3, 12, 10] and sample["area"] == 90 and sample["image_id"] == 5


def test_coco_persons_know_their_sigmas(keypoints):
    names = ["nose", "left_eye", "right_eye", *[f"point{i}" for i in range(14)]]
    content = coco(categories=[{"id": 1, "name": "person", "keypoints": names, "skeleton": []}])
    for annotation in content["annotations"]:
        annotation["keypoints"] = [1, 1, 2] * 17
    assert keypoints(content, sigmas=None).labels.sigmas == COCO_SIGMAS


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (coco(categories=[{"id": 1, "name": "car"}]), {}, "no category with keypoints"),
        (coco(annotations=[]), {}, "no annotation with a labelled keypoint"),
        ("[1, 2", {}, "is not JSON"),
        (coco(images=[]), {}, "of image 5, which the file does not list"),
        (coco(), {"sigmas": None}, "names no sigmas for its 3 keypoints"),
        (coco(), {"sigmas": [0.1]}, "1 sigmas were given for 3 keypoints"),
        (coco(), {"flip_pairs": [[0, 3]]}, "keypoints 0 to 2"),
        (coco(), {"flip_pairs": [[0, 1], [1, 2]]}, r"Keypoint 1 \('right_eye'\) stands in two flip pairs"),
        ({"images": []}, {}, "is not in COCO's format: it needs the lists images, annotations, categories"),
    ],
)
def test_coco_keypoints_names_what_is_wrong(keypoints, content, options, message):
    with pytest.raises(InputError, match=message):
        keypoints(content, **options)


def write_split(root, split, suffix, images="{split}"):
    """One image and its annotations, as split + suffix."""
    picture(root / images.format(split=split + suffix) / "a.png")
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"person_keypoints_{split}{suffix}.json").write_text(json.dumps(coco()))


@pytest.mark.parametrize("suffix", ["", "2017", "2014"])
def test_coco_opens_as_downloaded(tmp_path, suffix):
    for split in ("train", "val"):
        write_split(tmp_path, split, suffix)
    for split in ("train", "val"):
        data = COCOKeypoints(split, root=str(tmp_path), sigmas=0.05)
        assert data.folder == tmp_path / (split + suffix)
        assert data.path == tmp_path / f"annotations/person_keypoints_{split}{suffix}.json"
        data.check(frozenset({"image", "keypoints"}))


def test_coco_splits_may_have_names(tmp_path):
    write_split(tmp_path, "train", "")
    write_split(tmp_path, "valid", "")
    with pytest.raises(InputError, match="To use 'valid', set dataset.splits.val=valid"):
        COCOKeypoints("val", root=str(tmp_path), sigmas=0.05)
    data = COCOKeypoints("val", root=str(tmp_path), sigmas=0.05, splits={"val": "valid"})
    assert data.folder == tmp_path / "valid" and data.path.name == "person_keypoints_valid.json"


def test_coco_paths_without_a_pattern(tmp_path, caplog):
    """images=images is a sub-folder of the split or the folder itself, annotations=annotations/x.json the file of the split or itself."""
    write_split(tmp_path, "train", "", images="images/{split}")
    picture(tmp_path / "flat/a.png")
    options = {"root": str(tmp_path), "sigmas": 0.05, "annotations": "annotations/person_keypoints.json"}
    assert COCOKeypoints("train", images="images", **options).folder == tmp_path / "images/train"
    assert COCOKeypoints("train", images="flat", **options).folder == tmp_path / "flat"
    assert not caplog.messages
    options["annotations"] = "annotations/person_keypoints_train.json"
    assert COCOKeypoints("val", images="flat", **options).path.name == "person_keypoints_train.json"
    assert "Split 'val' reads" in caplog.text and "as every split does" in caplog.text


def test_keypoints_stay_in_stored_pixels(keypoints, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "train").mkdir(exist_ok=True)
    Image.new("RGB", (30, 20)).save(tmp_path / "train/a.jpg", exif=exif)

    def image(**size):
        data = keypoints(coco(images=[{"id": 5, "file_name": "a.jpg", **size}]))
        data.check(frozenset({"image", "keypoints"}))
        return data.load(0)["image"]

    assert image(width=30, height=20).shape == (20, 30, 3)
    assert image(width=20, height=30).shape == (30, 20, 3)  # the annotations are of the upright image
    assert image().shape == (20, 30, 3)
    with pytest.raises(InputError, match=r"a.jpg' is 20x30 .* made for 31x20"):
        image(width=20, height=31)


def test_missing_images_are_counted_before_training(keypoints):
    data = keypoints(coco(images=[{"id": 5, "file_name": "gone.png"}]))
    with pytest.raises(InputError, match=r"1 of 1 images that '.*train.json' lists are not in .* the first is 'gone.png'"):
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
def test_names_that_leave_the_mirror_image_open(names, unknown):
    pairs, found = find_flip_pairs(names.split())
    assert pairs == () and list(found) == unknown


def named(*names):
    annotation = {**coco()["annotations"][0], "keypoints": [4, 5, 2] * len(names)}
    return coco(categories=[{"id": 1, "keypoints": list(names)}], annotations=[annotation])


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
def test_images_are_mirrored_only_where_pairs_are_known(keypoints, caplog, names, given, can_flip):
    data = keypoints(named(*names), flip_pairs=given)
    assert data.labels.can_flip == can_flip
    step = TopDownAffine((32, 32), flip=0.5)
    transform = Transform([step], [0] * 3, [1] * 3, data.labels.flip_pairs)
    transform.prepare(data.labels, frozenset({"image", "keypoints"}))
    assert (step.flip == 0.5) == can_flip
    assert any("Images are not mirrored" in m and "dataset.flip_pairs=[[0,1],...]" in m for m in caplog.messages) != can_flip


def test_face_chains_are_not_paired_by_their_numbers(shared_data):
    data = COCOKeypoints(
        "val", root=str(shared_data / "face_landmarks"), images="images", annotations="annotations/face68.json", sigmas=0.05
    )
    assert len(data) == 360 and not data.labels.can_flip


# ---- fashion_mnist ---------------------------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_fashion(folder, per_class, zipped=False):
    """Training files with `per_class` images of each class, whose first pixel counts them within the class."""
    labels = np.tile(np.arange(10), per_class)
    images = np.arange(len(labels) * 28 * 28).reshape(-1, 28, 28) % 256
    images[:, 0, 0] = np.arange(len(labels)) // 10
    for name, array in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
def test_fashion_mnist_reads_idx_files(tmp_path, zipped):
    images, _ = write_fashion(tmp_path, 12, zipped)
    data = FashionMNIST("train", root=str(tmp_path))
    sample = data.load(2)
    assert len(data) == 110 and sample["label"] == 2
    np.testing.assert_array_equal(sample["image"], images[2][..., None].repeat(3, 2))
    with pytest.raises(InputError, match="neither 't10k-images"):
        FashionMNIST("test", root=str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images)[:-1])
    (tmp_path / "train-images-idx3-ubyte.gz").unlink(missing_ok=True)
    with pytest.raises(InputError, match="not an IDX file"):
        FashionMNIST("train", root=str(tmp_path))


def test_fashion_mnist_validates_on_training_images(tmp_path):
    write_fashion(tmp_path, 24)
    train, val = FashionMNIST("train", root=str(tmp_path)), FashionMNIST("val", root=str(tmp_path))
    assert len(train) == 220 and len(val) == 20
    assert np.bincount(val.targets).tolist() == [2] * 10
    assert set(val.images[:, 0, 0]) == {22, 23} and set(train.images[:, 0, 0]) == set(range(22))  # the last of each class
    write_fashion(tmp_path, 3)
    with pytest.raises(InputError, match="holds no val images"):
        FashionMNIST("val", root=str(tmp_path))


def test_a_cut_gzip_is_named(tmp_path):
    whole = gzip.compress(idx(np.zeros((1, 28, 28))))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match="not a whole gzip file"):
        FashionMNIST("train", root=str(tmp_path))


# ---- real data -------------------------------------------------------------------------------------------------------


def test_camvid_opens(shared_data):
    data = MaskFolder("val", root=str(shared_data / "camvid"), pairs="{split}.txt", ignore_index=11)
    assert len(data) == 101 and len(data.labels.mask_classes) == 11
    assert set(np.unique(data.load(0)["mask"])) <= {*range(11), 255}


def test_coco_persons_open(shared_data):
    data = COCOKeypoints("val", root=str(shared_data / "coco_person"))
    assert len(data) == 12 and len(data.labels.flip_pairs) == 8 and len(data.labels.sigmas) == 17


def test_faces_open(shared_data):
    data = COCOKeypoints(
        "val",
        root=str(shared_data / "face_landmarks"),
        images="images/{split}",
        annotations="annotations/face5_{split}.json",
        sigmas=0.05,
    )
    assert len(data) == 360
    assert {frozenset(pair) for pair in data.labels.flip_pairs} == {frozenset((0, 1)), frozenset((3, 4))}


def test_caltech_opens(shared_data):
    data = ImageFolder("val", root=str(shared_data / "caltech10"))
    assert len(data) == 150 and len(data.labels.classes) == 10
