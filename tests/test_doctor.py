"""spine doctor: each kind of fault is planted in a data set without any, and found, and nothing else is."""

import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import BROWSER, open_page
from command_line import run_command
from PIL import Image
from shard_files import pack
from test_configs import composed

from spine.data import build_data
from spine.data.checks import duplicates, masks, pictures, scan
from spine.data.checks.doctor import Doctor
from spine.data.checks.kinds import KINDS
from spine.data.checks.quick import warn_of_faults
from spine.data.shards.tar import END, pack_members
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


def image_list(root):
    rows = ["path,label,split,weight"]
    for number, split in enumerate(("train", "val")):
        for i in range(6):
            save(root / f"{split}{i}.jpg", photo(100 * number + i), quality=90)
            rows.append(f"{split}{i}.jpg,{CLASSES[i % 3]},{split},1")
    (root / "list.csv").write_text("\n".join(rows) + "\n")
    return ["dataset=image_list", f"dataset.root={root}"]


WNIDS = ("n01440764", "n01443537", "n02119789")
SOLUTION = "ILSVRC2012_validation_ground_truth.txt"


def imagenet(root):
    for label, wnid in enumerate(WNIDS):
        for i in range(2):
            save(root / "train" / wnid / f"{wnid}_{i}.JPEG", photo(10 * label + i), format="JPEG", quality=90)
            save(
                root / "val" / f"ILSVRC2012_val_{2 * label + i:08d}.JPEG", photo(100 + 10 * label + i), format="JPEG", quality=90
            )
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(6)]
    (root / "val.txt").write_text("".join(f"{name} {i // 2}\n" for i, name in enumerate(names)))
    return ["dataset=imagenet", f"dataset.root={root}"]


def cifar10(root):
    for number, name in enumerate(("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")):
        images = np.stack([photo(100 * number + i, (32, 32)).transpose(2, 0, 1).ravel() for i in range(40)])
        labels = (np.arange(40) % 10).astype(np.uint8)
        (root / f"{name}.bin").write_bytes(np.concatenate([labels[:, None], images], axis=1).tobytes())
    return ["dataset=cifar10", f"dataset.root={root}"]


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def mnist(root):
    for number, (part, count) in enumerate((("train", 240), ("t10k", 20))):
        images = np.stack([photo(1000 * number + i, (28, 28))[..., 0] for i in range(count)])
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(count) % 10).astype(np.uint8)))
    return ["dataset=mnist", f"dataset.root={root}"]


def write_rows(root, split="train", labels=(0, 1, 2, 0, 1, 2), images=None, stored=True):
    """A Parquet file of Hugging Face; without `stored` names, labels are values."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    pictures = [cv2.imencode(".jpg", photo(500 * (split == "val") + i))[1].tobytes() for i in range(len(labels))]
    kind = arrow.struct({"bytes": arrow.binary(), "path": arrow.string()})
    rows = [{"bytes": picture, "path": None} for picture in pictures]
    columns = {"image": arrow.array([*(images or ()), *rows[len(images or ()) :]], kind), "label": arrow.array(labels)}
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(CLASSES)}}
    text = json.dumps({"info": {"features": features if stored else {"image": features["image"]}}})
    parquet.write_table(arrow.table(columns).replace_schema_metadata({"huggingface": text}), root / f"{split}.parquet")


def huggingface(root):
    for split in ("train", "val"):
        write_rows(root, split)
    return ["dataset=huggingface", f"dataset.root={root}"]


def shards(root):
    image_folder(root / "photos")
    pack(root / "shards", "image_folder", "ImageFolder", root / "photos", shard_mb=0.03)
    return ["dataset=shards", f"dataset.root={root / 'shards'}"]


def mask_shards(root):
    mask_folder(root / "scenes")
    pack(root / "shards", "mask_folder", "MaskFolder", root / "scenes")
    return ["dataset=shards", f"dataset.root={root / 'shards'}"]


def write_tar(path, seed, classes=(0, 1, 2), masked=()):
    """A shard of another program: `classes` of the samples, None for one without; `masked`: the samples with a mask."""
    with tarfile.open(path, "w") as archive:
        for i, label in enumerate(classes):
            members = {"jpg": cv2.imencode(".jpg", photo(seed + i))[1].tobytes()}
            members |= {"cls": str(label).encode()} if label is not None else {}
            members |= {"mask.png": cv2.imencode(".png", mask_of(i))[1].tobytes()} if i in masked else {}
            for suffix, content in members.items():
                info = tarfile.TarInfo(f"{i}.{suffix}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def foreign_shards(root):
    for number, name in enumerate(("train-0", "train-1", "val-0")):
        write_tar(root / f"{name}.tar", 100 * number)
    return ["dataset=shards", f"dataset.root={root}"]


def masked_shards(root):
    """Masks instead of classes; the first training sample has none."""
    for number, name in enumerate(("train-0", "train-1", "val-0")):
        write_tar(root / f"{name}.tar", 100 * number, (None,) * 3, (0, 1, 2) if number else (1, 2))
    return ["dataset.classes=[cat,dog,owl]"]


def mpii(root):
    (root / "annotations").mkdir()
    for number, split in enumerate(("train", "val")):
        people = []
        for i in range(3):
            save(root / "images" / f"{split}{i}.jpg", photo(100 * number + i), quality=90)
            joints = [[20 + 3 * joint, 20 + 2 * joint] for joint in range(16)]
            person = {"image": f"{split}{i}.jpg", "center": [43, 29], "scale": 0.3, "joints": joints, "joints_vis": [1] * 16}
            people.append(person)
        (root / f"annotations/mpii_{split}.json").write_text(json.dumps(people))
    return ["dataset=mpii", f"dataset.root={root}"]


def joined(root):
    image_folder(root / "photos")
    return [
        "dataset=joined",
        "+dataset@dataset.parts.photos=image_folder",
        f"dataset.parts.photos.root={root / 'photos'}",
    ]


FORMATS = (
    image_folder, mask_folder, coco_keypoints, image_list, imagenet, cifar10, mnist, huggingface, shards, mask_shards, foreign_shards,
    mpii, joined,
)  # fmt: skip
MAKE = {function.__name__: function for function in FORMATS}

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


def in_list(root, row, **changes):
    """Changes values of a row of list.csv, counted from 1."""
    lines = (root / "list.csv").read_text().splitlines()
    values = dict(zip(lines[0].split(","), lines[row].split(","), strict=True)) | changes
    lines[row] = ",".join(values.values())
    (root / "list.csv").write_text("\n".join(lines) + "\n")


def add_row(root, row):
    with (root / "list.csv").open("a") as file:
        file.write(row + "\n")


def overwrite(path, place, content):
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(bytes(data))


def ground_truth(root, numbers):
    (root / "val.txt").unlink()
    (root / SOLUTION).write_text("".join(f"{number}\n" for number in numbers))
    (root / "map_clsloc.txt").write_text("".join(f"{wnid} {i + 1} name\n" for i, wnid in enumerate(WNIDS)))


def change_end(path):
    """Changes a byte after all samples, which are still read."""
    overwrite(path, path.stat().st_size - 1, b"x")


def without_member(root, suffix, content=None):
    """Takes a member from the first sample of a training shard, or replaces its content, and adapts the index."""
    folder = root / "shards"
    description = json.loads((folder / "shards.json").read_text())
    node = description["splits"]["train"]
    path = folder / node["shards"][0]["name"]
    records: dict[str, list[tuple[str, bytes]]] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key, own = member.name.split(".", 1)
            records.setdefault(key, []).append((own, archive.extractfile(member).read()))
    first = next(iter(records))
    records[first] = [
        (own, content if own == suffix else data) for own, data in records[first] if own != suffix or content is not None
    ]
    written = [pack_members(key, members) for key, members in records.items()]
    path.write_bytes(b"".join(written) + END)
    ends = np.load(folder / node["columns"]["ends"])
    ends[: len(written)] = np.cumsum([len(record) for record in written]) // 512
    np.save(folder / node["columns"]["ends"], ends)
    node["shards"][0] |= {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (folder / "shards.json").write_text(json.dumps(description))


def change_index(root, change):
    path = root / "shards/shards.json"
    content = json.loads(path.read_text())
    change(content["splits"]["train"]["shards"])
    path.write_text(json.dumps(content))


def other_counts(shards):
    shards[0]["samples"] += 1
    shards[1]["samples"] -= 1


def change_person(root, number, **changes):
    path = root / "annotations/mpii_train.json"
    people = json.loads(path.read_text())
    people[number] = people[number] | changes if changes else {"image": "only.jpg"}
    path.write_text(json.dumps(people))


def missing_part(root):
    return ["+dataset@dataset.parts.others=image_folder", f"dataset.parts.others.root={root / 'nowhere'}"]


def shard_part(root):
    (root / "more").mkdir()
    mask_shards(root / "more")
    without_member(root / "more", "mask.png")
    return [
        "~dataset.parts.photos",
        "+dataset@dataset.parts.more=shards",
        f"dataset.parts.more.root={root / 'more/shards'}",
    ]


def wrong_part(root):
    cut(root / "photos" / FIRST)


GRAY = {("grayscale", split) for split in ("train", "val", "test")}  # of all images of MNIST
SHARD = "shards/train-000000.tar"
OF_ROWS = [  # format, what is done to its folder, the findings, and the sentence with which a training ends; None: it does not
    *((name, lambda root: None, GRAY if name == "mnist" else set(), None) for name in list(MAKE)[3:]),
    ("image_list", lambda root: in_list(root, 7, label="eagle"), {("unknown_label", "val")},
     r"has the class 'eagle'; the rows of the training split have 3 classes: cat, dog, owl"),
    ("image_list", lambda root: in_list(root, 1, label="eagle") or ["dataset.classes=[cat,dog,owl]"], {("unknown_label", "train")},
     r"has the class 'eagle'; dataset.classes has 3 classes"),
    ("image_list", lambda root: in_list(root, 1, label=""), {("missing_label", "train")}, r"Row 1 of .* has no value in column 'label'"),
    ("image_list", lambda root: in_list(root, 8, label=""), {("missing_label", "val")}, r"Row 8 of .* has no value in column 'label'"),
    ("image_list", lambda root: (root / "train3.jpg").unlink(), {("missing_file", "train")}, r"train3.jpg' is missing"),
    ("image_list", lambda root: in_list(root, 2, path=""), {("without_image", "train")}, r"Row 2 of .* has no path"),
    ("image_list", lambda root: in_list(root, 2, weight="much"), {("weight", "train")}, r"Row 2 of .* has the weight 'much'"),
    ("image_list", lambda root: in_list(root, 12, weight="-1"), {("weight", "val")}, r"Row 12 of .* has the weight '-1'"),
    ("image_list", lambda root: in_list(root, 2, split="dev"), {("unknown_split", "train")}, None),
    ("image_list", lambda root: add_row(root, "train0.jpg,cat,train,1"), {("repeated_rows", "train")}, None),
    ("image_list", lambda root: add_row(root, "train0.jpg,dog,train,1"), {("contradicting", "train")}, None),
    ("image_list", lambda root: in_list(root, 1, path="more") or (root / "more").mkdir(), {("unreadable", "train")},
     r"more' cannot be read as an image \(Is a directory\)"),
    ("image_list", lambda root: add_row(root, "train0.jpg,cat"), {("row_values", "train")}, r"list.csv' .* Expected 4 columns, got 2"),
    ("imagenet", lambda root: (root / "val.txt").write_text((root / "val.txt").read_text().replace("0.JPEG 0", "0.JPEG 7")) and None,
     {("unknown_label", "val")}, r"has the number 7 of a class; numbers count the sorted wnids"),
    ("imagenet", lambda root: (root / "val.txt").write_text((root / "val.txt").read_text().replace("0.JPEG 0", "0.JPEG cat")) and None,
     {("unknown_label", "val")}, r"has the line 'ILSVRC2012_val_00000000.JPEG cat'; a line is the name of an image and its wnid"),
    ("imagenet", lambda root: (root / "val.txt").write_text((root / "val.txt").read_text()[31:]) and None, {("missing_label", "val")},
     r"val.txt' does not name 1 images of .*, such as 'ILSVRC2012_val_00000000.JPEG'"),
    ("imagenet", lambda root: (root / "val/ILSVRC2012_val_00000003.JPEG").unlink(), {("missing_file", "val")}, None),
    ("imagenet", lambda root: ground_truth(root, [1, 1, 2, 2, 3, 9]), {("unknown_label", "val")}, r"has the line '9', which is no number"),
    ("imagenet", lambda root: ground_truth(root, [1, 1, 2, 2, 3]), {("label_count", "val"), ("cannot_open", "val")},
     r"has 5 lines, and .* 6 images"),
    ("imagenet", lambda root: save(root / "train/cat/0.jpg", photo(900)), {("class_folders", "train")}, r"'cat' is not named after a wnid"),
    ("cifar10", lambda root: overwrite(root / "data_batch_2.bin", 3073, bytes([17])), {("unknown_label", "train")},
     r"data_batch_2.bin' has the label 17; there are 10 classes"),
    ("cifar10", lambda root: cut(root / "test_batch.bin", 0.99), {("file_size", "test")},
     r"test_batch.bin' has 121690 bytes, which is no multiple"),
    ("cifar10", lambda root: (root / "data_batch_4.bin").unlink(), {("missing_file", "train")}, r"has no file 'data_batch_4.bin'"),
    ("mnist", lambda root: overwrite(root / "train-labels-idx1-ubyte", 10, bytes([11])), {*GRAY, ("unknown_label", "train")},
     r"train-labels-idx1-ubyte' has the label 11; there are 10 classes"),
    ("mnist", lambda root: cut(root / "t10k-images-idx3-ubyte", 0.97),
     {*GRAY, ("file_size", "test"), ("label_count", "test")}, r"t10k-images-idx3-ubyte' is not an IDX file of bytes .* it is truncated"),
    ("mnist", lambda root: (root / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(19, dtype=np.uint8) % 10)) and None,
     {*GRAY, ("label_count", "test")}, r"has 20 test images but 19 labels"),
    ("huggingface", lambda root: write_rows(root, labels=(0, 1, 2, 0, 1, 5)), {("unknown_label", "train")},
     r"has the number 5 in column 'label', which has the 3 classes 0 to 2"),
    ("huggingface", lambda root: write_rows(root, labels=(0, 1, 2, 0, 1, None)), {("missing_label", "train")},
     r"Row 6 of .* has no value in column 'label'"),
    ("huggingface", lambda root: write_rows(root, images=[{"bytes": None, "path": None}]), {("without_image", "train")},
     r"train.parquet, row 0' has no image"),
    ("huggingface", lambda root: write_rows(root, images=[{"bytes": b"text", "path": None}]), {("unreadable", "train")},
     r"row 0' cannot be decoded as an image"),
    ("huggingface", lambda root: [write_rows(root, s, "aabbc" + t, stored=False) for s, t in (("train", "c"), ("val", "d"))] and None,
     {("unknown_label", "val")}, r"has the class 'd'; the rows of the training split have 3 classes: a, b, c"),
    ("shards", lambda root: (root / SHARD).unlink(), {("missing_file", "train")}, r"Shard '.*train-000000.tar' is missing"),
    ("shards", lambda root: cut(root / SHARD), {("changed_shard", "train")}, r"bytes, and the index was made for \d+: it is truncated or"),
    ("shards", lambda root: change_end(root / SHARD), {("changed_shard", "train")}, None),
    ("shards", lambda root: change_index(root, other_counts), {("changed_shard", "train")},
     r"is truncated: the index has|is not where the index"),
    ("shards", lambda root: without_member(root, "jpg"), {("without_image", "train")}, r"has no image; its members are cls"),
    ("shards", lambda root: without_member(root, "jpg", b"text"), {("unreadable", "train")}, r"cannot be decoded as an image"),
    ("mask_shards", lambda root: without_member(root, "mask.png"), {("missing_annotation", "train")},
     r"has no mask. Pack the data set again"),
    ("mask_shards", lambda root: without_member(root, "mask.png", b"text"), {("unreadable", "train")}, r"cannot be decoded as a mask"),
    ("foreign_shards", lambda root: write_tar(root / "train-0.tar", 0, (0, "cat", 2)), {("unknown_label", "train")},
     r"is 'cat'; a .cls member holds a number from 0"),
    ("foreign_shards", lambda root: write_tar(root / "val-0.tar", 200, (0, None, 2)), {("missing_label", "val"), ("class_folders", "val")},
     r"1 of the 3 samples of split 'val' in .* have no class"),
    ("foreign_shards", lambda root: masked_shards(root), {("image_without_mask", "train")}, None),
    ("foreign_shards", lambda root: (root / "train-1.tar").write_bytes(b"text" * 500) and None, {("unreadable", "train")},
     r"is not a readable tar archive"),
    ("foreign_shards", lambda root: cut(root / "train-1.tar", 0.35), {("truncated", "train")},
     r"train-1.tar' is (truncated|not a readable)"),
    ("mpii", lambda root: change_person(root, 1, scale=0), {("annotation", "train")}, r"and the scale 0; the center is x and y"),
    ("mpii", lambda root: change_person(root, 1, joints=[[1, 2]]), {("annotation", "train")}, r"does not have 16 keypoints"),
    ("mpii", lambda root: change_person(root, 1), {("annotation", "train")}, r"is not in the format of MPII: .* Entry 1 is no person"),
    ("mpii", lambda root: (root / "images/val1.jpg").unlink(), {("missing_file", "val")}, r"1 of 3 images in .* are not in"),
    ("joined", shard_part, {("missing_annotation", "train")}, r"has no mask. Pack the data set again"),
    ("joined", missing_part, {("cannot_open", "train")}, r"There is no folder '.*nowhere'"),
    ("joined", wrong_part, {("truncated", "train")}, r"cannot be decoded as an image"),
]  # fmt: skip


def examined(arguments, workers=0):
    examination = Doctor(build_data(composed(*arguments)).split)
    total = examination.open()
    read = []
    examination.read(workers, read.append)
    assert sum(read) == total
    return examination.judge()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_CACHE", str(tmp_path / ".cache"))


@pytest.mark.parametrize(
    ("name", "plant", "expected", "sentence"),
    [*((*fault, ...) for fault in FAULTS), *OF_ROWS],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else "",
)
def test_each_planted_fault_is_found_and_nothing_else(tmp_path, cache, name, plant, expected, sentence):
    arguments = MAKE[name](tmp_path)
    more = plant(tmp_path)
    arguments += more if isinstance(more, list) else []
    report = examined(arguments)
    assert {(finding.kind, finding.split) for finding in report.findings} == expected
    if sentence is not ...:
        splits = {*report.splits, *(finding.split for finding in report.findings)} - {"train, val"}
        check_training(arguments, sorted(splits), sentence)
    for finding in report.findings:
        assert finding.seen and KINDS[finding.kind].why and (finding.todo or KINDS[finding.kind].todo)
        for _, image in pictures.draw(finding):
            assert image.dtype == np.uint8 and image.ndim == 3 and max(image.shape) <= pictures.SIDE


def check_training(arguments, splits, sentence):
    """Opens, checks and reads what a training does. `sentence`: with which it ends; None: it does not."""

    def read():
        for split in splits:
            data = build_data(composed(*arguments)).split(split)
            data.check(data.provides)
            for index in range(len(data)):
                data.load(index)

    if sentence is None:
        read()
        return
    with pytest.raises(InputError, match=sentence) as error:
        read()
    assert "\n" not in str(error.value)


def test_all_faults_of_a_list_are_found_and_the_other_rows_are_read(tmp_path):
    arguments = image_list(tmp_path)
    in_list(tmp_path, 1, label="eagle")
    in_list(tmp_path, 2, label="")
    in_list(tmp_path, 3, weight="x")
    in_list(tmp_path, 4, path="")
    in_list(tmp_path, 8, label="eagle")
    add_row(tmp_path, "train5.jpg,owl,train,1")
    (tmp_path / "train4.jpg").write_bytes(b"")
    report = examined([*arguments, "dataset.classes=[cat,dog,owl]"])
    found = {(finding.kind, finding.split): finding for finding in report.findings}
    assert set(found) == {
        ("unknown_label", "train"), ("missing_label", "train"), ("weight", "train"), ("without_image", "train"),
        ("empty_file", "train"), ("repeated_rows", "train"), ("unknown_label", "val"), ("class_folders", "train"),
    }  # fmt: skip
    assert found["unknown_label", "train"].files == [str(tmp_path / "train0.jpg")]
    assert found["missing_label", "train"].files == [f"{tmp_path / 'list.csv'}, row 2"]
    assert "is in the rows 6, 13 of" in found["repeated_rows", "train"].seen
    assert report.splits["train"]["samples"] == 3 and report.splits["val"]["samples"] == 5


def test_a_training_after_the_doctor_still_finds_the_faults_of_shards_of_others(tmp_path, cache):
    arguments = foreign_shards(tmp_path)
    write_tar(tmp_path / "train-0.tar", 0, (0, "cat", 2))
    for _ in range(2):
        report = examined(arguments)
        assert [(each.kind, each.files) for each in report.findings] == [
            ("unknown_label", [f"'{tmp_path}/train-0.tar', sample '1'"])
        ]
        assert report.splits["train"]["samples"] == 5 and report.splits["train"]["classes"] == {"0": 2, "1": 1, "2": 2}
        check_training(arguments, ("train", "val"), r"is 'cat'; a .cls member holds a number from 0")


def test_every_kind_is_planted():
    planted = {kind for _, _, expected, *_ in (*FAULTS, *OF_ROWS) for kind, _ in expected}
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


@pytest.mark.slow
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


@pytest.mark.slow
@needs_shared
def test_the_grayscale_photos_are_found():
    report = examined(["dataset=image_folder", f"dataset.root={SHARED / 'caltech10'}"])
    gray = {file for finding in report.findings if finding.kind == "grayscale" for file in finding.files}
    stored = {str(path) for path in (SHARED / "caltech10").rglob("*.jpg") if Image.open(path).mode == "L"}
    assert stored <= gray and report.errors == 0
    assert {finding.kind for finding in report.findings} == {"grayscale", "near_duplicates_inside"}
