"""Images of every format are read as a viewer shows them. Files that cannot be read are reported with the reason."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from spine.data.image_files import PackedNames, check_images, image_names, read_image
from spine.errors import InputError

ROTATED = 6  # EXIF orientation: rotate the stored image by 90 degrees


def rotated(path, size=(20, 40)):
    """A JPEG of stored `size` (height, width) with an EXIF rotation by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    Image.new("RGB", size[::-1], (200, 100, 50)).save(path, exif=exif)
    return path


def test_exif_is_applied_unless_annotations_are_in_stored_pixels(tmp_path):
    path = rotated(tmp_path / "a.jpg")
    assert read_image(path).shape == (40, 20, 3)
    assert read_image(path, upright=False).shape == (20, 40, 3)
    assert read_image(path, (20, 40)).shape == (20, 40, 3)
    assert read_image(path, (40, 20)).shape == (40, 20, 3)
    with pytest.raises(InputError, match=r"a.jpg' is 20x40 .*, but its annotations were made for 30x30"):
        read_image(path, (30, 30))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(tmp_path, mode):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (10, 10, 10, 255)  # the lower row is black and transparent
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.quantize(4)
    image.convert(mode).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[:, 0].tolist() == [[10, 10, 10], [255, 255, 255]]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".gif", ".avif", ".jp2", ".ppm", ".webp", ".tif", ".bmp"])
def test_every_listed_suffix_is_read(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (64, 48), (200, 100, 50)).save(path, format="JPEG" if suffix in (".jfif", ".jpe") else None)
    assert image_names(tmp_path) == [path.name]
    image = read_image(path)
    assert image.shape == (48, 64, 3) and abs(image[5, 5].astype(int) - (200, 100, 50)).max() < 12


def test_hidden_files_are_not_images(tmp_path):
    for name in ("._a.jpg", ".b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    assert image_names(tmp_path) == ["c.jpg"]


def test_a_float_image_is_not_reported_as_corrupt(tmp_path):
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif' cannot be decoded as an image: its pixels are float32 numbers"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(("brightest", "reported"), [(16000, True), (60000, False)])
def test_16_bit_images_with_14_bits_are_reported(tmp_path, caplog, brightest, reported):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), brightest, np.uint16))
    check_images([(tmp_path / "a.png", None)])
    assert any("reach only 16000 of 65535" in message for message in caplog.messages) == reported


def test_16_bit_images_with_12_bits_are_refused_as_they_would_be_black(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8), 4095, np.uint16))
    with pytest.raises(InputError, match=r"reach only 4095 of 65535 .* Scale them to the full 16 bits \(12-bit data: times 16\)"):
        check_images([(tmp_path / "a.png", None)])
    cv2.imwrite(str(tmp_path / "b.png"), np.full((8, 8), 65535, np.uint16))
    check_images([(tmp_path / name, None) for name in ("a.png", "b.png")])  # the first one is dark


def test_broken_files_are_found_before_training(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8), np.uint8))
    (tmp_path / "b.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"b.jpg' cannot be decoded"):
        check_images([(tmp_path / "a.png", None), (tmp_path / "b.jpg", None)])


def test_packed_names_equal_the_names():
    names = ["a.jpg", "", "\u732b.png", "x" * 300]
    packed = PackedNames(names)
    assert len(packed) == 4 and [packed[i] for i in range(4)] == names
    with pytest.raises(IndexError):
        packed[4]


def test_class_names_in_any_script_draw_without_warnings(tmp_path):
    code = (
        "import warnings; warnings.simplefilter('error'); import numpy as np; from spine.reporting import figures\n"
        "figures.confusion(np.eye(2), (chr(0x732b), chr(0x10900))).savefig('a.png')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
