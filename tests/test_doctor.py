"""spine doctor: each kind of fault is planted in a data set without any, and found, and nothing else is."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import BROWSER, open_page
from command_line import run_command
from PIL import Image
from test_configs import composed

from spine.data import build_data
from spine.data.checks import duplicates, masks, pictures, scan
from spine.data.checks.doctor import Doctor
from spine.data.checks.kinds import KINDS
from spine.data.checks.quick import warn_of_faults
from spine.errors import InputError
from spine.interfaces import DataSet, Labels

SHARED = Path(__file__).parents[2] / "shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real data sets")
CLASSES = ("cat", "dog", "owl")
NAMES = ["nose", "left_eye", "right_eye"]


def photo(seed, size=(72, 96)):
    """A colored picture with large shapes; those of different seeds differ."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


# ---- data sets without faults ----------------------------------------------------------------------------------------


def image_folder(root):
    for number, split in enumerate(("train", "val")):
        for label, name in enumerate(CLASSES):
            for i in range(3):
                save(root / split / name / f"{i}.jpg", photo(100 * number + 10 * label + i), quality=90)
    return ["dataset=image_folder", f"dataset.root={root}"]


def mask_of(seed, values=(0, 1, 2)):
    return cv2.resize(
        np.random.default_rng(seed).permutation(np.resize(np.array(values, np.uint8), 12)).reshape(3, 4),
        (96, 72),
        interpolation=cv2.INTER_NEAREST,
    )


def mask_folder(root):
    for number, split in enumerate(("train", "val")):
        for i in range(3):
            save(root / "images" / split / f"{i}.jpg", photo(100 * number + i), quality=90)
            save(root / "masks" / split / f"{i}.png", mask_of(100 * number + i))
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return ["dataset=mask_folder", f"dataset.root={root}"]


def annotations_of(root, split):
    return root / "annotations" / f"person_keypoints_{split}.json"


def coco_keypoints(root):
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(("train", "val")):
        images, annotations = [], []
        for i in range(3):
            save(root / split / f"{i}.jpg", photo(100 * number + i), quality=90)
            images.append({"id": i, "file_name": f"{i}.jpg", "height": 72, "width": 96})
            points = [50, 20, 2, 60, 15, 2, 40, 15, 1]
            annotations.append(
                {
                    "id": i,
                    "image_id": i,
                    "category_id": 1,
                    "keypoints": points,
                    "num_keypoints": 3,
                    "bbox": [30, 10, 40, 40],
                    "area": 1600,
                }
            )
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "face", "keypoints": NAMES}]}
        annotations_of(root, split).write_text(json.dumps(content))
    return ["dataset=coco_keypoints", f"dataset.root={root}", "dataset.sigmas=0.05"]


MAKE = {function.__name__: function for function in (image_folder, mask_folder, coco_keypoints)}

# ---- faults ----------------------------------------------------------------------------------------------------------


def change(root, split="train", index=0, **values):
    """Changes an annotation of a keypoint file."""
    path = annotations_of(root, split)
    content = json.loads(path.read_text())
    content["annotations"][index].update(values)
    path.write_text(json.dumps(content))


def cut(path, share=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def gray_below(path):
    """A JPEG whose data ends early, and which was closed properly: it is decoded without complaint."""
    save(path, np.concatenate([photo(7), photo(8)]), quality=95)
    cut(path, 0.65)
    path.write_bytes(path.read_bytes() + b"\xff\xd9")


def cut_png(root):
    replace(root / FIRST, Image.open(root / FIRST), "png")
    cut(root / "train/cat/0.png")


def sixteen_bit(path, peak):
    gray = cv2.cvtColor(photo(777), cv2.COLOR_RGB2GRAY).astype(float)
    path.unlink(missing_ok=True)
    cv2.imwrite(str(path.with_suffix(".png")), (gray / gray.max() * peak).astype(np.uint16))


def replace(path, image, suffix, **options):
    path.unlink()
    options = {**options, "format": {"png": "PNG", "tif": "TIFF", "jpg": "JPEG"}[suffix]}
    image.save(path.with_suffix(f".{suffix}"), **options)


def with_exif(path):
    image, exif = Image.open(path).copy(), Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=90)


def one_based(root):
    for path in (root / "masks").rglob("*.png"):
        save(path, np.asarray(Image.open(path)) + 1)


def shifted_and_unlabeled(root):
    for path in (root / "masks").rglob("*.png"):
        save(path, mask_of(1, (0, 1, 2, 3)))


def black_and_white(root):
    (root / "classes.txt").write_text("background\nobject")
    for seed, path in enumerate(sorted((root / "masks").rglob("*.png"))):
        save(path, mask_of(seed, (0, 255)))


def map_from_one(root):
    return ["dataset.label_map={1: 0, 2: 1, 3: 2}"]


def unlabeled_border(root):
    path = root / "masks/train/0.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[:3] = 255
    save(path, mask)


def empty_mask(root):
    save(root / "masks/train/0.png", np.zeros((72, 96), np.uint8))


def jpeg_mask(root):
    replace(root / "masks/train/0.png", Image.fromarray(mask_of(0) * 80), "jpg")


def no_third_class(root):
    for seed, path in enumerate(sorted((root / "masks").rglob("*.png"))):
        save(path, mask_of(seed, (0, 1)))


COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)


def unknown_color(root):
    for path in (root / "masks").rglob("*.png"):
        save(path, COLORS[np.asarray(Image.open(path))])
    save(root / "masks/train/0.png", np.array([*COLORS[:2], [9, 9, 9]], np.uint8)[mask_of(0)])
    return ["dataset.color_map={cat: [0,0,0], dog: [255,0,0], owl: [0,255,0]}"]


def near_copy(source, target):
    """The same picture, saved at another size and quality."""
    save(target, np.asarray(Image.open(source).resize((120, 90))), quality=70)


def many_of_one_class(root):
    for i in range(3, 31):
        save(root / f"train/cat/{i}.jpg", photo(1000 + i), quality=90)


FIRST = "train/cat/0.jpg"
FAULTS = [  # format, what is done to its folder (it may return arguments), the findings
    ("image_folder", lambda root: None, set()),
    ("mask_folder", lambda root: None, set()),
    ("coco_keypoints", lambda root: None, set()),
    ("image_folder", lambda root: (root / FIRST).write_bytes(b""), {("empty_file", "train")}),
    ("image_folder", lambda root: (root / FIRST).write_bytes(b"<html>404</html>"), {("unreadable", "train")}),
    ("image_folder", lambda root: cut(root / FIRST), {("truncated", "train")}),
    ("image_folder", lambda root: gray_below(root / FIRST), {("truncated", "train")}),
    ("image_folder", cut_png, {("truncated", "train")}),
    ("image_folder", lambda root: replace(root / FIRST, Image.fromarray(photo(1)[..., 0].astype(np.float32) / 255), "tif"),
     {("float_image", "train")}),
    ("image_folder", lambda root: sixteen_bit(root / FIRST, 4095), {("dark_16_bit", "train")}),
    ("image_folder", lambda root: sixteen_bit(root / FIRST, 65535), {("sixteen_bit", "train")}),
    ("image_folder", lambda root: save(root / FIRST, photo(1)[..., 0]), {("grayscale", "train")}),
    ("image_folder", lambda root: save(root / FIRST, photo(1)[..., :1].repeat(3, 2), quality=90, subsampling=0), {("grayscale", "train")}),
    ("image_folder", lambda root: replace(root / FIRST, Image.open(root / FIRST).convert("RGBA"), "png"), {("alpha", "train")}),
    ("image_folder", lambda root: replace(root / FIRST, Image.open(root / FIRST).convert("CMYK"), "jpg"), {("cmyk", "train")}),
    ("image_folder", lambda root: replace(root / FIRST, Image.open(root / FIRST).convert("P"), "png"), {("palette", "train")}),
    ("image_folder", lambda root: with_exif(root / FIRST), {("exif_rotation", "train")}),
    ("image_folder", lambda root: (root / "val/owl").rename(root / "val/eagle") and None, {("class_folders", "val")}),
    ("image_folder", lambda root: save(root / "val/eagle/0.jpg", photo(500), quality=90), {("class_folders", "val")}),
    ("image_folder", lambda root: (root / "train/fox").mkdir(), {("empty_class", "train")}),
    ("image_folder", lambda root: save(root / "train/cat/more/0.jpg", photo(500), quality=90), {("nested_images", "train")}),
    ("image_folder", lambda root: (root / "train/cat/phone.heic").write_bytes(b"x"), {("unread_files", "train")}),
    ("image_folder", lambda root: shutil.copy(root / FIRST, root / "val/cat/copy.jpg") and None, {("duplicates_between", "train, val")}),
    ("image_folder", lambda root: shutil.copy(root / FIRST, root / "train/cat/copy.jpg") and None, {("duplicates_inside", "train")}),
    ("image_folder", lambda root: shutil.copy(root / FIRST, root / "train/dog/copy.jpg") and None, {("contradicting", "train")}),
    ("image_folder", lambda root: near_copy(root / FIRST, root / "val/cat/copy.jpg"), {("near_duplicates_between", "train, val")}),
    ("image_folder", lambda root: near_copy(root / FIRST, root / "train/cat/copy.jpg"), {("near_duplicates_inside", "train")}),
    ("image_folder", lambda root: save(root / FIRST, photo(1, (10, 16)), quality=90), {("odd_size", "train")}),
    ("image_folder", lambda root: many_of_one_class(root), {("imbalance", "train")}),
    ("image_folder", lambda root: shutil.rmtree(root / "val"), {("cannot_open", "val")}),
    ("mask_folder", one_based, {("unknown_values", "train"), ("unknown_values", "val")}),
    ("mask_folder", shifted_and_unlabeled, {("unknown_values", "train"), ("unknown_values", "val")}),
    ("mask_folder", black_and_white, {("unknown_values", "train"), ("unknown_values", "val")}),
    ("mask_folder", unlabeled_border, {("unknown_values", "train")}),
    ("mask_folder", map_from_one, {("unknown_values", "train"), ("unknown_values", "val")}),
    ("mask_folder", lambda root: save(root / "masks/train/0.png", mask_of(0)[:70]), {("mask_size", "train")}),
    ("mask_folder", empty_mask, {("empty_mask", "train")}),
    ("mask_folder", jpeg_mask, {("jpeg_mask", "train")}),
    ("mask_folder", lambda root: cut(root / "masks/train/0.png"), {("truncated", "train")}),
    ("mask_folder", lambda root: (root / "masks/train/0.png").write_bytes(b""), {("empty_file", "train")}),
    ("mask_folder", lambda root: (root / "masks/train/0.png").unlink(), {("image_without_mask", "train")}),
    ("mask_folder", lambda root: (root / "images/val/0.jpg").unlink(), {("mask_without_image", "val")}),
    ("mask_folder", lambda root: save(root / "masks/train/0.png", photo(3)), {("sample", "train")}),
    ("mask_folder", unknown_color, {("unknown_colors", "train")}),
    ("mask_folder", no_third_class, {("class_without_pixels", "train")}),
    ("coco_keypoints", lambda root: change(root, keypoints=[150, 20, 2, 60, 15, 2, 40, 15, 1]), {("keypoints_outside_image", "train")}),
    ("coco_keypoints", lambda root: change(root, keypoints=[99, 20, 2, 90, 15, 2, 80, 15, 1], bbox=[60, 10, 40, 40]),
     {("keypoints_near_image", "train")}),
    ("coco_keypoints", lambda root: change(root, bbox=[0, 50, 20, 20]), {("keypoints_outside_box", "train")}),
    ("coco_keypoints", lambda root: change(root, keypoints=[50, 20, 2]), {("annotation", "train")}),
    ("coco_keypoints", lambda root: (root / "val/1.jpg").unlink(), {("missing_file", "val")}),
    ("coco_keypoints", lambda root: save(root / "train/1.jpg", photo(1, (96, 72)), quality=90), {("sample", "train")}),
    ("coco_keypoints", lambda root: ["dataset.flip_pairs=[[0,1]]"], {("flip_pairs", "all")}),
    ("coco_keypoints", lambda root: ["dataset.flip_pairs=[[0,1],[1,2]]"], {("flip_pairs", "train")}),
]  # fmt: skip


def examined(arguments, workers=0):
    examination = Doctor(build_data(composed(*arguments)).split)
    total = examination.open()
    read = []
    examination.read(workers, read.append)
    assert sum(read) == total
    return examination.judge()


@pytest.mark.parametrize(
    ("name", "plant", "expected"), FAULTS, ids=lambda value: str(sorted(value)) if isinstance(value, set) else None
)
def test_each_planted_fault_is_found_and_nothing_else(tmp_path, name, plant, expected):
    arguments = MAKE[name](tmp_path)
    more = plant(tmp_path)
    report = examined([*arguments, *(more if isinstance(more, list) else [])])
    assert {(finding.kind, finding.split) for finding in report.findings} == expected
    for finding in report.findings:
        assert finding.seen and KINDS[finding.kind].why and (finding.todo or KINDS[finding.kind].todo)
        for _, image in pictures.draw(finding):
            assert image.dtype == np.uint8 and image.ndim == 3 and max(image.shape) <= pictures.SIDE


def test_every_kind_is_planted():
    planted = {kind for _, _, expected in FAULTS for kind, _ in expected}
    assert planted == set(KINDS) - {"check"}


class Rendered(DataSet):
    """Images without files."""

    reads_files = False
    provides = frozenset({"image", "label"})
    labels = Labels(classes=CLASSES)

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return 3

    def load(self, index):
        return {"image": photo(index + 10 * (self.split == "val") + 20 * (self.split == "test")), "label": index}

    def check(self, needs):
        if self.split == "val":
            raise InputError("This one is refused.")


def test_images_without_files_and_what_a_data_set_refuses_before_training():
    examination = Doctor(Rendered)
    assert examination.open() == 9
    examination.read(0, lambda count: None)
    report = examination.judge()
    assert [(each.kind, each.split, each.seen) for each in report.findings] == [("check", "val", "This one is refused.")]
    assert report.splits["train"]["classes"] == dict.fromkeys(CLASSES, 1) and report.splits["train"]["mean"]


def test_a_gray_border_is_no_truncation(tmp_path):
    arguments = image_folder(tmp_path)
    image = photo(1)
    image[-24:] = 128
    save(tmp_path / FIRST, image, quality=90)
    assert {finding.kind for finding in examined(arguments).findings} <= {"near_duplicates_inside"}
    for share in (0.35, 0.6, 0.65):
        save(tmp_path / FIRST, photo(7, (200, 320)), quality=95)
        cut(tmp_path / FIRST, share)
        (tmp_path / FIRST).write_bytes((tmp_path / FIRST).read_bytes() + b"\xff\xd9")
        assert [finding.kind for finding in examined(arguments).findings] == ["truncated"]


# ---- causes, duplicates, figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stored", "classes", "cause", "todo"),
    [
        ([0, 255], 2, "0 and 255 for two classes", "dataset.label_map={0: 0, 255: 1}"),
        ([0, 1, 2, 255], 3, "255 for unlabeled", "dataset.ignore_index=255"),
        ([1, 2, 3], 3, "1-based: 1 for the first", "dataset.label_map={1: 0, 2: 1, 3: 2}"),
        ([1, 2, 3, 255], 3, "1-based: 1 for the first", "and dataset.ignore_index=255"),
        ([0, 1, 2, 3], 3, "1-based: 0 for unlabeled", "dataset.reduce_zero_label=true"),
        ([0, 1, 2], 3, "0-based", "dataset.reduce_zero_label"),
        ([0, 7, 90], 3, "3 values, 0, 7, 90", "dataset.classes"),
    ],
)
def test_the_cause_of_values_without_a_class(stored, classes, cause, todo):
    found = masks.likely_cause(stored, classes)
    assert cause in found[0] and todo in found[1]


def test_near_duplicates_are_found_among_many_as_by_comparing_all():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, np.uint64)
    thumbs = rng.integers(0, 256, (3000, 12, 12), np.uint8)
    bits = [int(rng.integers(0, 5)) for _ in range(300)]
    for i, count in enumerate(bits):  # the pairs 0, 1500; 1, 1501; ... differ in 0 to 4 bits
        flips = np.uint64(sum(1 << int(bit) for bit in rng.choice(64, count, replace=False)))
        hashes[1500 + i], thumbs[1500 + i] = hashes[i] ^ flips, thumbs[i] ^ 1
    thumbs[1500] = 255 - thumbs[1500]  # an equal hash, and another picture
    found = {tuple(group.tolist()) for group in duplicates.near_groups(hashes, thumbs)}
    assert found == {(i, 1500 + i) for i, count in enumerate(bits) if count <= duplicates.DISTANCE and i}
    assert duplicates.near_groups(hashes[:0], thumbs[:0]) == []


def test_groups_of_equal_images():
    digests = np.array([[1, 2], [3, 4], [1, 2], [1, 5], [1, 2]], np.uint64)
    assert [group.tolist() for group in duplicates.equal_groups(digests)] == [[0, 2, 4]]
    assert duplicates.equal_groups(digests[:0]) == []


def test_mean_and_standard_deviation_are_those_of_all_pixels(tmp_path):
    report = examined(image_folder(tmp_path))
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted((tmp_path / "train").rglob("*.jpg"))]) / 255
    assert report.splits["train"]["mean"] == pytest.approx(pixels.mean((0, 1, 2)), abs=0.002)
    assert report.splits["train"]["std"] == pytest.approx(pixels.std((0, 1, 2)), abs=0.002)
    assert report.splits["train"]["classes"] == dict.fromkeys(CLASSES, 3)
    assert report.splits["val"]["sizes"] == {name: [96, 72] for name in ("smallest", "median", "largest")}


def test_faults_still_end_a_training(tmp_path):
    """What the doctor collects is raised otherwise."""
    arguments = mask_folder(tmp_path)
    one_based(tmp_path)
    data = build_data(composed(*arguments)).split("train")
    with pytest.raises(InputError, match="holds the value 3, which none of the 3 classes has"):
        data.load(0)
    (tmp_path / "masks/train/0.png").unlink()
    with pytest.raises(InputError, match="1 of 3 images have no mask"):
        build_data(composed(*arguments)).split("train")


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path, monkeypatch):
    arguments = image_folder(tmp_path)
    many_of_one_class(tmp_path)
    cut(tmp_path / FIRST)
    monkeypatch.setattr(scan, "FEW", 0)
    monkeypatch.setattr(scan, "CHUNK", 4)
    one, two = examined(arguments), examined(arguments, workers=2)
    assert one == two and one.errors == 1


# ---- before a training -----------------------------------------------------------------------------------------------


def test_a_training_is_warned_of_what_a_sample_shows(tmp_path, caplog):
    arguments = image_folder(tmp_path)
    gray_below(tmp_path / FIRST)
    save(tmp_path / "val/cat/0.jpg", photo(1)[..., 0])  # a note, which is not worth a warning
    data = build_data(composed(*arguments))
    warn_of_faults({split: data.split(split) for split in ("train", "val")})
    (message,) = caplog.messages
    assert message.startswith("Truncated files in split 'train', found among 9 of 9 samples: ") and FIRST in message
    caplog.clear()
    warn_of_faults(data.opened, seconds=0)  # the first sample only
    assert "among 1 of 9 samples" in caplog.messages[0]
    warn_of_faults({"train": Rendered("train")})
    assert len(caplog.messages) == 1


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_writes_its_findings_and_exits_with_1_for_errors(tmp_path):
    arguments = image_folder(tmp_path / "data")
    (tmp_path / "data" / FIRST).write_bytes(b"")
    save(tmp_path / "data/train/cat/1.jpg", photo(1)[..., 0])
    done = run_command("doctor.py", *arguments, "num_workers=1", "hydra.run.dir=out", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "1 error, 1 note" in done.stdout and "Files of zero bytes" in done.stdout and "'train/cat/0.jpg' has" in done.stdout
    content = json.loads((tmp_path / "out/doctor.json").read_text())
    assert [row["kind"] for row in content["findings"]] == ["empty_file", "grayscale"] and content["errors"] == 1
    assert content["findings"][0]["files"] == [str(tmp_path / "data" / FIRST)]
    page = (tmp_path / "out/doctor.html").read_text()
    assert (
        page.count("data:image/webp") == 1
        and "http" not in page.replace("http-equiv", "").split("</style>")[1].split("<script")[0]
    )
    if BROWSER is not None:
        document, complaints = open_page(tmp_path / "out/doctor.html")
        assert "Files of zero bytes" in document and not complaints


@pytest.mark.parametrize("mistake", ["num_workers=-1", "-m"])
def test_mistakes_of_the_command(tmp_path, mistake):
    done = run_command("doctor.py", mistake, folder=tmp_path)
    assert done.returncode == 1 and ("num_workers is -1" in done.stderr or "leave out -m" in done.stderr)


# ---- real data sets --------------------------------------------------------------------------------------------------


@needs_shared
def test_the_equal_faces_are_found():
    root = SHARED / "face_landmarks"
    report = examined(
        ["dataset=coco_keypoints", f"dataset.root={root}", "dataset.images='images/{split}'",
         "dataset.annotations='annotations/face5_{split}.json'", "dataset.sigmas=0.05"]
    )  # fmt: skip
    found = {finding.kind: finding for finding in report.findings if finding.split == "train"}
    assert report.errors == 0 and set(found) == {"duplicates_inside", "near_duplicates_inside"}
    assert [Path(file).name for file in found["duplicates_inside"].examples[0].files] == ["000285.jpg", "000286.jpg"]


@needs_shared
def test_the_grayscale_photos_are_found():
    report = examined(["dataset=image_folder", f"dataset.root={SHARED / 'caltech10'}"])
    gray = {file for finding in report.findings if finding.kind == "grayscale" for file in finding.files}
    stored = {str(path) for path in (SHARED / "caltech10").rglob("*.jpg") if Image.open(path).mode == "L"}
    assert stored <= gray and report.errors == 0
    assert {finding.kind for finding in report.findings} == {"grayscale", "near_duplicates_inside"}
