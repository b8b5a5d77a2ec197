"""Folders of images and masks: their pairs, and the class of a stored value."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from data_files import write_image, write_mask
from PIL import Image

from spine.data.formats.mask_folder import MaskFolder
from spine.data.image_files import decode
from spine.data.masks import read_mask
from spine.errors import InputError

NEEDS = frozenset({"image", "mask"})


# ---- masks: stored values --------------------------------------------------------------------------------------------

VALUES = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def save(path, values, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.frombytes("P", values.shape[::-1], values.tobytes())
        image.putpalette(options.pop("palette"))
    image.save(path, **options)


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0]
GRAY = [level for i in (0, 100, 200) for level in (i, i, i)]


@pytest.mark.parametrize("palette", [VOC, GRAY], ids=["colors", "grays"])
@pytest.mark.parametrize("bits", [2, 8])
def test_palette_masks_are_read_as_indices(tmp_path, palette, bits):
    save(tmp_path / "a.png", VALUES, "P", palette=palette, bits=bits)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), VALUES)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit_masks_are_zero_and_one(tmp_path, suffix):
    save(tmp_path / f"a.{suffix}", VALUES > 0)
    np.testing.assert_array_equal(read_mask(tmp_path / f"a.{suffix}"), VALUES > 0)


def test_gray_masks_of_two_bits_keep_their_values(tmp_path):
    """Neither library writes such files, so the test writes header and rows itself."""
    rows = b"".join(b"\0" + bytes([(int(r[0]) << 6) | (int(r[1]) << 4) | (int(r[2]) << 2)]) for r in VALUES)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 3, 2, 2, 0, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), VALUES)


def test_sixteen_bits_and_equal_channels_are_read(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), VALUES.astype(np.uint16) * 1000)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), VALUES.astype(int) * 1000)
    for channels in (3, 4):
        layers = VALUES[..., None].repeat(channels, 2)
        layers[..., 3:] = 255
        cv2.imwrite(str(tmp_path / "b.png"), layers)
        np.testing.assert_array_equal(read_mask(tmp_path / "b.png"), VALUES)


def test_masks_without_one_integer_per_pixel_are_refused(tmp_path):
    save(tmp_path / "a.jpg", VALUES)
    (tmp_path / "a.jpg").rename(tmp_path / "hidden.png")
    with pytest.raises(InputError, match="hidden.png' is a JPEG. JPEG changes the values of pixels"):
        read_mask(tmp_path / "hidden.png")
    layers = VALUES[..., None].repeat(4, 2)
    cv2.imwrite(str(tmp_path / "b.png"), layers)
    with pytest.raises(InputError, match="holds colors|has transparent pixels"):
        read_mask(tmp_path / "b.png")
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(InputError, match="c.tif' holds float32 numbers"):
        read_mask(tmp_path / "c.tif")


# ---- mask_folder: classes of values ----------------------------------------------------------------------------------


def write_pairs(root, values, names=("one",), splits=("train", "val"), suffix=""):
    for split in splits:
        for name in names:
            write_image(root / "images" / split / f"{name}.jpg", size=np.shape(values))
            write_mask(root / "masks" / split / f"{name}{suffix}.png", values)
    (root / "classes.txt").write_text("ground\nroad\n")
    return root


def test_255_is_foreground_or_refused_before_training(tmp_path):
    root = str(write_pairs(tmp_path, [[0, 255]] * 4))
    data = MaskFolder("train", root=root)
    with pytest.raises(InputError, match=r"holds the value 255, .*label_map=\{0: 0, 255: 1\}.* set dataset.ignore_index=255"):
        data.check(NEEDS)
    assert MaskFolder("train", root=root, label_map={0: 0, 255: 1}).load(0)["mask"][0].tolist() == [0, 1]
    assert MaskFolder("train", root=root, label_map={"0": 0, "255": None}).load(0)["mask"][0].tolist() == [0, 255]
    assert MaskFolder("train", root=root, ignore_index=255).load(0)["mask"][0].tolist() == [0, 255]
    assert MaskFolder("train", root=root, ignore_index=[7, 255]).load(0)["mask"][0].tolist() == [0, 255]
    data.check(frozenset({"image"}))  # a task that reads no masks


def test_one_bit_masks_train_both_classes(tmp_path, caplog):
    write_pairs(tmp_path, [[0, 1]] * 4)
    for split in ("train", "val"):
        save(tmp_path / "masks" / split / "one.png", np.array([[0, 1]] * 4) > 0)
    data = MaskFolder("train", root=str(tmp_path))
    data.check(NEEDS)
    assert data.load(0)["mask"][0].tolist() == [0, 1] and not caplog.messages


def test_all_values_without_a_class_are_reported(tmp_path):
    root = str(write_pairs(tmp_path, [[0, 5, 7, 9, 1, 5]] * 3))
    with pytest.raises(InputError, match="holds the values 5, 7, 9, which none of the 2 classes has"):
        MaskFolder("train", root=root).load(0)
    with pytest.raises(InputError, match="holds the values 1, 7, 9, which"):
        MaskFolder("train", root=root, label_map={0: 0, 5: 1}).load(0)


def test_values_of_sixteen_bits_are_mapped(tmp_path):
    write_pairs(tmp_path, [[0, 1]] * 4)
    cv2.imwrite(str(tmp_path / "masks/train/one.png"), np.array([[100, 40000]] * 4, np.uint16))
    data = MaskFolder("train", root=str(tmp_path), label_map={100: 1, 40000: 0})
    assert data.load(0)["mask"][0].tolist() == [1, 0]


def test_broken_masks_are_named_and_broken_exif_data_is_none(tmp_path):
    data = MaskFolder("train", root=str(write_pairs(tmp_path, [[0, 1]] * 4)))
    image, mask = tmp_path / "images/train/one.jpg", tmp_path / "masks/train/one.png"
    content = image.read_bytes()
    image.write_bytes(content[:2] + b"\xff\xe1\x00\x10Exif\0\0garbage!" + content[2:])
    assert data.load(0)["mask"][0].tolist() == [0, 1]
    cv2.imwrite(str(mask), np.array([[0, 300]] * 4, np.uint16))
    with pytest.raises(InputError, match=r"one.png' holds the value 300, which none of the 2 classes has"):
        data.check(NEEDS)
    for content in (b"", b"no image"):
        mask.write_bytes(content)
        with pytest.raises(InputError, match=r"one.png' cannot be decoded as a mask; it is empty or corrupt"):
            data.check(NEEDS)
    mask.unlink()
    with pytest.raises(InputError, match=r"one.png' is missing; the data set lists it as a mask"):
        data.load(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_map": {0: 0, 1: 2}}, "dataset.label_map maps 1 to 2; there are 2 classes, 0 to 1"),
        ({"label_map": {0: 0}, "reduce_zero_label": True}, "exclude each other"),
        ({"ignore_index": -1}, "dataset.ignore_index has the stored value -1"),
        ({"label_map": {"road": 1}}, "dataset.label_map has the stored value road"),
        ({"label_map": {0: "grass"}}, r"dataset.label_map maps 0 to grass; there are 2 classes, 0 to 1 \(ground, road\)"),
        ({"palette": [[0, 0, 0]]}, "dataset.palette has 1 colors for 2 classes"),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, r"dataset.palette has the color \[0, 0, 256\]; .* 0 to 255"),
        ({"color_map": {"ground": [0, 0, 0]}}, "dataset.color_map has no color for the class road"),
        ({"color_map": {"ground": [0, 0, 0], "road": []}}, "dataset.color_map has no color for the class road"),
        ({"color_map": {"ground": [0, 0, 0], "road": [9, 9, 9], "car": [1, 1, 1]}}, "has the key 'car', which is no class"),
        ({"color_map": {"ground": [0, 0, 0], "road": [[9, 9, 9], [0, 0, 0]]}}, r"gives the color \[0, 0, 0\] to two classes"),
        ({"color_map": "palette"}, "reads the colors of dataset.palette, and that is not set"),
        ({"color_map": {"ground": [0, 0, 0], "road": [9, 9, 9]}, "ignore_index": 0}, "are for masks that store numbers"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        MaskFolder("train", root=str(write_pairs(tmp_path, [[0, 1]] * 4)), **options)


def test_a_class_that_never_occurs_is_reported(tmp_path, caplog):
    write_pairs(tmp_path, [[0, 0]] * 4, names=("one", "two"))
    MaskFolder("val", root=str(tmp_path)).check(NEEDS)
    assert "There is no pixel of class road in any of the 2 masks of split 'val'." in caplog.text


def test_a_limited_scan_reports_the_number_of_masks_it_read(tmp_path, caplog, monkeypatch):
    write_pairs(tmp_path, [[0, 0]] * 4, names=tuple("abcdef"))
    monkeypatch.setattr("spine.data.formats.mask_folder.MAX_SCANNED", 4)
    MaskFolder("val", root=str(tmp_path)).check(NEEDS)
    assert "There is no pixel of class road in any of 4 checked masks, of 6, of split 'val'." in caplog.text


def test_masks_can_have_a_suffix(tmp_path):
    root = str(write_pairs(tmp_path, [[0, 1]] * 4, suffix="_mask"))
    with pytest.raises(InputError, match=r"Its masks end in '_mask': set dataset.mask_suffix=_mask\."):
        MaskFolder("train", root=root)
    assert len(MaskFolder("train", root=root, mask_suffix="_mask")) == 1
    for split in ("train", "val"):  # images and masks in one folder
        for path in (tmp_path / "masks" / split).iterdir():
            path.rename(tmp_path / "images" / split / path.name)
    data = MaskFolder("train", root=root, masks="images/{split}", mask_suffix="_mask")
    assert [Path(file).name for file in data.files(0)] == ["one.jpg", "one_mask.png"]


def test_jpeg_masks_are_refused_when_they_are_listed(tmp_path):
    write_pairs(tmp_path, [[0, 1]] * 4)
    (tmp_path / "masks/train/one.png").rename(tmp_path / "masks/train/one.jpg")
    with pytest.raises(InputError, match="is a JPEG"):
        MaskFolder("train", root=str(tmp_path))


def test_pairs_without_split_folders_are_divided(tmp_path, caplog):
    for i in range(10):
        write_image(tmp_path / "images" / f"{i}.jpg", size=(4, 2))
        write_mask(tmp_path / "masks" / f"{i}.png", [[0, 1]] * 4)
    (tmp_path / "classes.txt").write_text("ground\nroad\n")
    train, val = (MaskFolder(split, root=str(tmp_path), val_fraction=0.3) for split in ("train", "val"))
    files = {data.split: [data.files(i) for i in range(len(data))] for data in (train, val)}
    assert len(train) == 7 and len(val) == 3 and not {*map(tuple, files["train"])} & {*map(tuple, files["val"])}
    assert "7 of its 10 images are for training" in caplog.text
    assert all(Path(image).stem == Path(mask).stem for image, mask in files["train"])
    assert (
        len(MaskFolder("train", root=str(tmp_path), images="images", masks="masks")) == 8
    )  # without {split}, which a shell would change


def test_split_folders_of_masks_can_have_other_names(tmp_path):
    root = str(write_pairs(tmp_path, [[0, 1]] * 4, splits=("train", "validation")))
    with pytest.raises(InputError, match="set dataset.splits.val=validation"):
        MaskFolder("val", root=root)
    assert len(MaskFolder("val", root=root, splits={"val": "validation"})) == 1
    assert len(MaskFolder("val", root=root, splits={"val": "validation"}, images="images", masks="masks")) == 1


def test_a_list_that_is_not_text_is_refused(tmp_path):
    write_pairs(tmp_path, [0, 1])
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00one")
    with pytest.raises(InputError, match=r"train.txt' is not a text file in UTF-8 \(invalid start byte at byte 0\)"):
        MaskFolder("train", root=str(tmp_path), pairs="{split}.txt", classes=["a", "b"])


def test_a_list_with_missing_files_is_refused(tmp_path):
    write_pairs(tmp_path, [[0, 1]] * 4)
    (tmp_path / "train.txt").write_text("images/train/one.jpg masks/train/one.png\nimages/train/two.jpg masks/train/two.png\n")
    with pytest.raises(InputError, match=r"2 files in the list '.*train.txt' are missing; the first is '.*two.jpg'"):
        MaskFolder("train", root=str(tmp_path), pairs="{split}.txt")


def write_turned(path, orientation, size):
    """Writes an image with a bright upper left quarter, as stored, and an EXIF orientation."""
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_image_and_mask_agree_under_an_exif_rotation(tmp_path, suffix):
    """Orientation 6: a viewer turns the stored pixels clockwise. The mask has class 1 where the image is bright."""
    stored = np.zeros((20, 40), int)
    stored[:10, :20] = 1
    for mask in (stored, np.rot90(stored, -1)):  # drawn on the stored pixels, drawn in a viewer
        write_pairs(tmp_path, mask)
        (tmp_path / "images/train/one.jpg").unlink()
        write_turned(tmp_path / f"images/train/one.{suffix}", 6, (20, 40))
        data = MaskFolder("train", root=str(tmp_path))
        sample = data.load(0)
        assert sample["image"].shape == (*mask.shape, 3)
        np.testing.assert_array_equal(decode(data.encoded_image(0)), sample["image"])
        np.testing.assert_array_equal(sample["image"][2:-2, 2:-2, 0] > 127, sample["mask"][2:-2, 2:-2] == 1)
        (tmp_path / f"images/train/one.{suffix}").unlink()


@pytest.mark.parametrize(("orientation", "size"), [(3, (20, 40)), (6, (20, 20))])
def test_an_exif_rotation_that_keeps_the_size_is_refused_until_it_is_told(tmp_path, orientation, size):
    write_pairs(tmp_path, np.eye(*size, dtype=int))
    write_turned(tmp_path / "images/train/one.jpg", orientation, size)
    data = MaskFolder("train", root=str(tmp_path))
    with pytest.raises(InputError, match=rf"'.*one.jpg' has the EXIF orientation {orientation}, .* Set dataset.exif=upright"):
        data.check(NEEDS)
    with pytest.raises(InputError, match="has the EXIF orientation"):
        data.encoded_image(0)
    for exif, bright in {"stored": True, "upright": False}.items():
        data = MaskFolder("train", root=str(tmp_path), exif=exif)
        image = data.load(0)["image"]
        assert (image[0, 0, 0] > 127) == bright
        np.testing.assert_array_equal(decode(data.encoded_image(0)), image)
    write_turned(tmp_path / "images/train/one.jpg", 1, size)
    data = MaskFolder("train", root=str(tmp_path))
    data.check(NEEDS)
    np.testing.assert_array_equal(decode(data.encoded_image(0)), data.load(0)["image"])


def test_an_encoded_image_of_another_size_than_its_mask_is_refused(tmp_path):
    write_pairs(tmp_path, np.eye(20, 40, dtype=int))
    write_image(tmp_path / "images/train/one.jpg", size=(21, 40))
    with pytest.raises(InputError, match=r"one.jpg' is 21x40, its mask '.*one.png' 20x40"):
        MaskFolder("train", root=str(tmp_path)).encoded_image(0)


# ---- mask_folder: color-coded masks ----------------------------------------------------------------------------------

ROAD = {"ground": [[0, 0, 0], [0, 0, 64]], "road": [128, 64, 128], "ignored": [255, 255, 255]}
RGB = np.array([[(0, 0, 0), (128, 64, 128), (255, 255, 255), (0, 0, 64)]] * 3, np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_color_coded_masks_are_read_by_a_color_map(tmp_path, mode):
    write_pairs(tmp_path, np.zeros((3, 4)))
    Image.fromarray(RGB).convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "masks/train/one.png")
    data = MaskFolder("train", root=str(tmp_path), color_map=ROAD)
    np.testing.assert_array_equal(data.load(0)["mask"], [[0, 1, 255, 0]] * 3)
    assert data.labels.palette == ((0, 0, 0), (128, 64, 128))


def test_a_palette_can_be_the_color_map(tmp_path):
    write_pairs(tmp_path, np.zeros((3, 2)))
    Image.fromarray(RGB[:, :2]).save(tmp_path / "masks/train/one.png")
    data = MaskFolder("train", root=str(tmp_path), palette=[[128, 64, 128], [0, 0, 0]], color_map="palette")
    np.testing.assert_array_equal(data.load(0)["mask"], [[1, 0]] * 3)


def test_colors_without_a_class_are_reported(tmp_path):
    write_pairs(tmp_path, np.zeros((3, 4)))
    Image.fromarray(RGB).save(tmp_path / "masks/train/one.png")
    with pytest.raises(InputError, match=r"'.*one.png' holds the color \[255, 255, 255\], which none of the 2 classes has"):
        MaskFolder("train", root=str(tmp_path), color_map={"ground": ROAD["ground"], "road": ROAD["road"]}).load(0)
    with pytest.raises(InputError, match=r"'.*one.png' holds colors .* Give the color of each class in dataset.color_map"):
        MaskFolder("train", root=str(tmp_path)).load(0)
    clear = Image.fromarray(RGB).convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    clear.save(tmp_path / "masks/train/one.png")
    with pytest.raises(InputError, match=r"'.*one.png' has transparent pixels"):
        MaskFolder("train", root=str(tmp_path), color_map=ROAD).load(0)


# ---- mask_folder: images that are no 8-bit RGB -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gray", "alpha", "16 bits"])
def test_images_of_other_kinds_are_read_as_rgb_next_to_their_masks(tmp_path, kind):
    """A gray image gets three equal channels, transparent pixels become white, and 16 bits become 8."""
    write_pairs(tmp_path, np.eye(6, dtype=int))
    (tmp_path / "images/train/one.jpg").unlink()
    gray = np.full((6, 6), 100, np.uint8)
    image = {
        "gray": Image.fromarray(gray),
        "alpha": Image.merge("RGBA", [Image.fromarray(layer) for layer in (gray, gray, gray, 0 * gray)]),
        "16 bits": Image.fromarray(gray.astype(np.uint16) * 257),
    }[kind]
    image.save(tmp_path / "images/train/one.png")
    data = MaskFolder("train", root=str(tmp_path))
    data.check(NEEDS)
    sample = data.load(0)
    assert sample["image"].shape == (6, 6, 3) and sample["image"].dtype == np.uint8
    assert (sample["image"] == (255 if kind == "alpha" else 100)).all() and sample["mask"].sum() == 6


def test_a_mask_of_another_size_is_found_before_training(tmp_path):
    write_pairs(tmp_path, np.eye(6, dtype=int))
    write_mask(tmp_path / "masks/train/one.png", np.eye(5, dtype=int))
    with pytest.raises(InputError, match=r"'.*images/train/one.jpg' is 6x6, its mask '.*masks/train/one.png' 5x5"):
        MaskFolder("train", root=str(tmp_path)).check(NEEDS)
