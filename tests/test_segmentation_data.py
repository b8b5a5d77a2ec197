"""Data sets of segmentation in the layout that users have on disk: each is written tiny and opened as on the command line."""

import re

import numpy as np
import pytest
from data_files import write_image
from PIL import Image
from test_configs import choices, composed

from spine.config.values import check_values
from spine.data import build_data
from spine.data.data_module import collate
from spine.data.sampler import Draw
from spine.errors import InputError
from spine.reporting.figures import palette


def write_pair(root, image, mask, row, colors=None):
    """Writes an image and a mask whose rows are `row`: values, or RGB colors. `colors`: of a palette PNG."""
    write_image(root / image, size=(8, len(row)))
    (root / mask).parent.mkdir(parents=True, exist_ok=True)
    values = np.array([row] * 8, np.uint8)
    picture = Image.fromarray(values)
    if colors is not None:
        picture = Image.frombytes("P", values.shape[::-1], values.tobytes())
        picture.putpalette(list(colors))
    picture.save(root / mask)


def split_of(choice, root, split="train", *overrides):
    return build_data(composed("task=seg", f"dataset={choice}", f"dataset.root={root}", *overrides)).split(split)


def rows(data):
    """The first row of each mask."""
    data.check(frozenset({"image", "mask"}))
    return [data.load(i)["mask"][0].tolist() for i in range(len(data))]


# ---- Pascal VOC ------------------------------------------------------------------------------------------------------


def voc_colors():
    """Returns the colors (256, 3) of VOC's palette: bit i of a class index is one bit of red, green or blue."""
    index = np.arange(256)
    colors = np.zeros((256, 3), int)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return colors


def write_voc(root):
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, row in (("2007_000032", [0, 1, 255, 20]), ("2007_000042", [0, 19, 19, 255])):
        write_pair(root, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png", row, voc_colors().ravel())
    write_pair(root, "JPEGImages/2008_000002.jpg", "SegmentationClassAug/2008_000002.png", [0, 20, 20, 20])
    write_pair(root, "JPEGImages/2007_000032.jpg", "SegmentationClassAug/2007_000032.png", [0, 0, 0, 0])  # less exact than VOC's
    write_image(root / "JPEGImages/2007_000027.jpg")  # an image for other tasks, without a mask
    (lists / "train.txt").write_text("2007_000032\n")
    (lists / "val.txt").write_text("2007_000042\n")
    (lists / "trainaug.txt").write_text("2008_000002\n2007_000032\n")


def test_pascal_voc_opens_with_palette_masks_and_its_border_ignored(tmp_path):
    write_voc(tmp_path)
    assert rows(split_of("voc", tmp_path)) == [[0, 1, 255, 20]]
    data = split_of("voc", tmp_path, "val")
    assert rows(data) == [[0, 19, 19, 255]] and data.labels.mask_classes[20] == "tvmonitor"
    assert data.labels.palette == tuple(map(tuple, voc_colors()[:21].tolist()))


def test_the_augmented_list_reads_the_masks_of_voc_first(tmp_path):
    write_voc(tmp_path)
    assert rows(split_of("voc_aug", tmp_path)) == [[0, 20, 20, 20], [0, 1, 255, 20]]
    assert rows(split_of("voc_aug", tmp_path, "val")) == [[0, 19, 19, 255]]
    with pytest.raises(InputError, match=r"no file '.*Segmentation/test.txt', where the list of test pairs should be"):
        split_of("voc_aug", tmp_path, "test")
    (tmp_path / "SegmentationClassAug/2008_000002.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 images have no mask in '.*SegmentationClass' or '.*SegmentationClassAug'"):
        split_of("voc_aug", tmp_path)


# ---- ADE20K, Cityscapes, COCO-Stuff ----------------------------------------------------------------------------------


def test_ade20k_opens_without_its_zero_label(tmp_path):
    for split in ("training", "validation"):
        write_pair(tmp_path, f"images/{split}/ADE_1.jpg", f"annotations/{split}/ADE_1.png", [0, 1, 2, 150])
    assert rows(split_of("ade20k", tmp_path)) == rows(split_of("ade20k", tmp_path, "val")) == [[255, 0, 1, 149]]


def write_cityscapes(root):
    for split, city in (("train", "aachen"), ("train", "zurich"), ("val", "lindau")):
        name = f"{city}/{city}_000000_000019"
        write_image(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", size=(8, 5))
        for kind, row in (("labelIds", [7, 3, 33, 29, 11]), ("labelTrainIds", [0, 255, 18, 255, 2]), ("instanceIds", [9] * 5)):
            write_pair(root, f"leftImg8bit/{split}/{name}_leftImg8bit.png", f"gtFine/{split}/{name}_gtFine_{kind}.png", row)


def test_cityscapes_opens_with_label_ids_and_with_train_ids(tmp_path):
    write_cityscapes(tmp_path)
    expected = [[0, 255, 18, 255, 2]]
    assert rows(split_of("cityscapes", tmp_path)) == expected * 2 and rows(split_of("cityscapes", tmp_path, "val")) == expected
    converted = ["dataset.mask_suffix=_gtFine_labelTrainIds", "dataset.label_map=null", "dataset.ignore_index=255"]
    assert rows(split_of("cityscapes", tmp_path, "train", *converted)) == expected * 2
    (tmp_path / "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(InputError, match=r"no mask with a name that ends in '_gtFine_labelIds' in .* is '.*_leftImg8bit.png'"):
        split_of("cityscapes", tmp_path, "val")


def test_coco_stuff_opens_with_category_ids_and_with_train_ids(tmp_path):
    for split in ("train2017", "val2017"):
        write_pair(tmp_path, f"images/{split}/000009.jpg", f"annotations/{split}/000009.png", [0, 12, 181, 255])
        write_pair(tmp_path, f"images/{split}/000009.jpg", f"annotations/{split}/000009_labelTrainIds.png", [0, 11, 170, 255])
    expected = [[0, 11, 170, 255]]
    assert rows(split_of("coco_stuff164k", tmp_path)) == rows(split_of("coco_stuff164k", tmp_path, "val")) == expected
    converted = ["dataset.mask_suffix=_labelTrainIds", "dataset.label_map=null", "dataset.ignore_index=255"]
    assert rows(split_of("coco_stuff164k", tmp_path, "train", *converted)) == expected


def test_coco_stuff_10k_opens_without_its_zero_label(tmp_path):
    for split in ("train2014", "test2014"):
        write_pair(tmp_path, f"images/{split}/a.jpg", f"annotations/{split}/a_labelTrainIds.png", [0, 1, 171, 12])
    assert rows(split_of("coco_stuff10k", tmp_path)) == rows(split_of("coco_stuff10k", tmp_path, "val")) == [[255, 0, 170, 11]]


# ---- CamVid ----------------------------------------------------------------------------------------------------------


def test_camvid_opens_from_its_lists_and_from_its_original_colors(tmp_path):
    for split in ("train", "val"):
        write_pair(tmp_path, f"{split}/1.png", f"{split}annot/1.png", [0, 10, 11, 3])
        (tmp_path / f"{split}.txt").write_text(f"{split}/1.png {split}annot/1.png\n")
        colors = [(128, 128, 128), (192, 0, 192), (0, 0, 0), (192, 0, 64)]  # Sky, MotorcycleScooter, Void, LaneMkgsNonDriv
        write_pair(tmp_path, f"{split}/1.png", f"{split}_labels/1_L.png", colors)
    listed, colored = split_of("camvid", tmp_path), split_of("camvid_colors", tmp_path, "val")
    assert rows(listed) == rows(colored) == [[0, 10, 255, 3]]
    assert listed.labels == colored.labels and listed.labels.palette[4] == (60, 40, 222)


def test_real_camvid_is_cropped_by_the_recipe_of_the_papers(shared_data):
    data = build_data(
        composed(
            "task=seg", "dataset=camvid", f"dataset.root={shared_data / 'camvid'}", "augment=resize_crop", "image_size=[256,320]"
        )
    )
    batch = collate([data.transformed("train", training=True)[Draw(0, i)] for i in range(4)])
    assert batch["image"].shape == (4, 3, 256, 320) and set(np.unique(batch["mask"])) <= {*range(11), 255}
    sample = data.transformed("val")[Draw(0, 0)]
    assert sample["image"].shape == (3, 360, 480)  # its own size


# ---- every data set of masks -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_class_of_every_data_set_has_a_name_and_a_color():
    nodes = {choice: composed(f"dataset={choice}")["dataset"] for choice in choices("dataset")}
    checked = [node for node in nodes.values() if isinstance(node.get("classes"), list)]
    assert len(checked) >= 8
    for node in checked:
        names = node["classes"]
        assert len(names) == len(set(names)) == len(node["palette"]) and all(name == name.strip() for name in names)
        if node["label_map"] is not None:  # every class is the goal of one stored value, in order
            goals = [names.index(goal) if goal in names else goal for goal in node["label_map"].values()]
            assert [goal for goal in goals if goal is not None] == [*range(len(names))]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.color_map=3", "it must be a dictionary from classes to a color [red, green, blue] or several"),
        ("dataset.color_map={road: [1, 2]}", "such as {road: [128, 64, 128]}, palette, or null"),
        ("dataset.palette=[[0,0,256]]", "it must be a list with a color [red, green, blue], 0 to 255, for each class"),
        ("dataset.label_map={road: 1}", "it must be a dictionary from stored values to indices or names of classes"),
    ],
)
def test_labels_of_another_type_are_refused(override, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_values(composed("task=seg", "dataset=mask_folder", override))


def test_figures_have_the_colors_of_the_data_set():
    colors = palette(2, ((255, 0, 0), (0, 51, 255)))
    np.testing.assert_allclose(colors[[0, 1, 255]], [[1, 0, 0], [0, 0.2, 1], [1, 1, 1]])
