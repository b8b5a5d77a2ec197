"""CIFAR-100 (Krizhevsky, 2009) from cifar-100-python.tar.gz, cifar-100-binary.tar.gz or their folders."""

from __future__ import annotations

from typing import Literal

from spine.data.cifar_files import CIFARFiles, CIFARImages
from spine.data.image_files import need_root
from spine.interfaces import Labels

FILES = CIFARFiles(
    archive="cifar-100",
    python_folder="cifar-100-python",
    binary_folder="cifar-100-binary",
    train=("train",),
    test=("test",),
    label_keys=("coarse_labels", "fine_labels"),
)
CLASSES = {
    "fine": [
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
        "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
        "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
        "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster",
        "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter",
        "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon",
        "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
        "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ],
    "coarse": [
        "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
        "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
        "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people", "reptiles", "small_mammals",
        "trees", "vehicles_1", "vehicles_2",
    ],
}  # fmt: skip


class CIFAR100(CIFARImages):
    """32x32 color images of 100 classes in 20 groups: 45,000 train, 5,000 val, 10,000 test.

    The published files have no validation split. This one is fixed: the last 50 of the 500 training
    images of each class, in the order of the file; of the groups, the last 250. The test file is the
    test split only, so that no checkpoint is selected on it.
    """

    def __init__(self, split: str, *, root: str | None, level: Literal["fine", "coarse"] = "fine"):
        """`root`: folder of the archive as downloaded, or of the extracted files. `level`: 100 classes, or their 20 groups."""
        self.labels = Labels(classes=tuple(CLASSES[level]))
        self._read(split, need_root(root, "cifar100"), FILES, f"{level}_labels")
