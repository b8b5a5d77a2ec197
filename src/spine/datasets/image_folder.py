"""Image classification from folders: root/split/class/picture."""

from __future__ import annotations

from typing import ClassVar

from spine.datasets.files import list_images, need_folder, need_root, read_image
from spine.errors import InputError
from spine.interfaces import DataSet, Labels


class ImageFolder(DataSet):
    """One class a folder; the classes are the folders of the training split, in alphabetical order."""

    provides: ClassVar[frozenset[str]] = frozenset({"image", "label"})

    def __init__(self, split: str, *, root: str | None, train: str = "train"):
        """`train`: the split whose folders name the classes."""
        base = need_root(root, "image_folder")
        classes = sorted(path.name for path in need_folder(base / train, f"the {train} images").iterdir() if path.is_dir())
        if not classes:
            raise InputError(f"Folder '{base / train}' is empty; it should hold one folder of pictures a class.")
        folder = need_folder(base / split, f"the {split} images")
        if strange := sorted({path.name for path in folder.iterdir() if path.is_dir()} - set(classes)):
            raise InputError(
                f"Folder '{folder}' holds class '{strange[0]}', which '{base / train}' does not know "
                f"({len(classes)} classes: {', '.join(classes[:5])}{', ...' if len(classes) > 5 else ''})."
            )
        self.labels = Labels(classes=tuple(classes))
        self.items = [
            (path, number)
            for number, name in enumerate(classes)
            if (folder / name).is_dir()
            for path in list_images(folder / name)
        ]
        if not self.items:
            raise InputError(f"The class folders of '{folder}' hold no pictures.")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.items)

    def load(self, index: int) -> dict:
        """image (H, W, 3) uint8, label."""
        path, label = self.items[index]
        return {"image": read_image(path), "label": label}
