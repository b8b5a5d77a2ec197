"""The kinds of findings of `spine doctor`: what they are called, why they matter, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spine.data.faults import Fault


@dataclass(frozen=True)
class Kind:
    """One kind of finding. Errors give exit code 1."""

    severity: Literal["error", "note"]
    title: str
    why: str
    todo: str


def _error(title: str, why: str, todo: str) -> Kind:
    return Kind("error", title, why, todo)


def _note(title: str, why: str, todo: str) -> Kind:
    return Kind("note", title, why, todo)


KINDS: dict[str, Kind] = {
    # ---- files
    "cannot_open": _error(
        "Split cannot be opened", "No training can use this split.", "Follow the message; dataset.* keys say where the files are."
    ),
    "missing_file": _error(
        "Missing files", "Training ends when it reads them.", "Restore the files, or remove them from the list or annotations."
    ),
    "empty_file": _error("Files of zero bytes", "They hold nothing, and training ends when it reads them.", "Copy them again."),
    "unreadable": _error(
        "Unreadable files", "They cannot be decoded, and training ends when it reads them.", "Replace or remove them."
    ),
    "truncated": _error(
        "Truncated files",
        "The end of the file is missing. A JPEG is still decoded, and its lower part is gray: training uses it silently.",
        "Copy or download them again.",
    ),
    "float_image": _error(
        "Images of floating-point numbers", "Their range is not known, and they are not read.", "Convert them to 8 or 16 bits."
    ),
    "dark_16_bit": _error(
        "Dark 16-bit images",
        "No image reaches a quarter of the 16-bit range: they hold 10 to 14 bits (X-rays, microscopes), and are read almost black.",
        "Multiply the pixels so that they use all 16 bits (12-bit data: times 16), or save them with 8 bits.",
    ),
    "file_size": _error(
        "Files of the wrong size", "They are truncated or were changed: samples are lost.", "Copy or download them again."
    ),
    "changed_shard": _error(
        "Shards that differ from their index", "Their samples cannot be read, or are not those that were packed.",
        "Copy them again, or pack the data set again.",
    ),
    "without_image": _error(
        "Samples without an image", "Training ends when it opens or reads them.", "Add the images, or remove the samples."
    ),
    "row_values": _error(
        "Rows of another number of values", "It is not known which column a value belongs to.",
        "Correct the rows; put values that contain the delimiter in quotation marks.",
    ),
    "repeated_rows": _note("Images in several rows of a list", "They count several times.", "Remove the other rows."),
    "unknown_split": _note(
        "Rows of a split that is not used", "They are left out.",
        "Nothing, if it is meant; otherwise correct the names of the splits, or set dataset.splits.",
    ),
    "weight": _error("Weights that are not numbers of at least 0", "No sample can be drawn with them.", "Correct the weights."),
    "sample": _error("Samples that cannot be loaded", "Training ends when it reads them.", "Follow the message."),
    "check": _error("Refused before training", "Training ends with this message.", "Follow the message."),
    # ---- labels
    "unknown_label": _error(
        "Labels without a class", "They are the name or the number of no class, and training does not begin.",
        "Correct the labels, or add the classes to dataset.classes.",
    ),
    "missing_label": _error("Samples without a label", "Training does not begin.", "Add the labels, or remove the samples."),
    "label_count": _error(
        "Not as many labels as images", "It is not known which label belongs to which image.", "Copy or download both files again."
    ),
    "missing_annotation": _error(
        "Samples without an annotation that others have", "Training ends when it reads them.",
        "Pack the data set again, or remove the samples.",
    ),
    # ---- masks
    "unknown_values": _error(
        "Mask values without a class", "The number is the index of no class, and training ends when it reads them.", ""
    ),
    "unknown_colors": _error(
        "Mask colors without a class", "Training ends when it reads them.", "Add the colors to dataset.color_map, or correct the masks."
    ),
    "mask_size": _error(
        "Masks of another size than their image",
        "It is not known which pixel a label belongs to.",
        "Save image and mask at the same size; resize masks with nearest neighbors only.",
    ),
    "jpeg_mask": _error(
        "Masks saved as JPEG", "JPEG changes the values of pixels, so that labels are wrong.", "Save masks as PNG, from the original."
    ),
    "empty_mask": _note(
        "Empty masks",
        "Every pixel is of class 0 or unlabeled. It may be right, or an annotation is missing.",
        "Look at the pictures; remove the pairs that were never annotated.",
    ),
    "image_without_mask": _error("Images without a mask", "They are not used.", "Add the masks, or remove the images."),
    "mask_without_image": _error(
        "Masks without an image", "They are not used; an image is missing or has another name.", "Add the images, or remove the masks."
    ),
    "class_without_pixels": _note(
        "Classes without a pixel", "The network cannot learn them.", "Check the list of classes and the masks."
    ),
    # ---- keypoints
    "annotation": _error("Broken annotations", "They cannot be used.", "Correct or remove them."),
    "keypoints_outside_image": _error(
        "Keypoints outside of their image",
        "They are trained on only where a crop contains them, and they are evaluated. Often the image was resized and its annotations "
        "were not.",
        "Correct the annotations, or set the visibility of these keypoints to 0.",
    ),
    "keypoints_near_image": _note(
        "Keypoints a little outside of their image",
        "They are trained on only where a crop contains them, and they are evaluated.",
        "Nothing, if objects are cut by the border; otherwise set their visibility to 0.",
    ),
    "keypoints_outside_box": _note(
        "Keypoints far outside of their box",
        "The crop by the box leaves them out. Often the box is of another object, or not x, y, width, height.",
        "Look at the pictures; correct the boxes.",
    ),
    "flip_pairs": _error(
        "Flip pairs do not mirror left and right",
        "A flipped image gets wrong keypoints.",
        "Set dataset.flip_pairs so that every left keypoint is paired with its right one.",
    ),
    # ---- folders
    "class_folders": _error(
        "Class folders differ between splits", "Outputs and labels would not fit, or a class is not evaluated.",
        "Rename, add or remove the folders, or name the classes in dataset.classes.",
    ),
    "empty_class": _error("Empty class folders", "The class has no image.", "Add images, or remove the folder."),
    "nested_images": _note(
        "Images in folders inside of class folders", "They are not read.", "Move the images into the class folder."
    ),
    "unread_files": _note("Files in formats that are not read", "They are left out.", "Convert them to JPEG or PNG."),
    # ---- duplicates
    "duplicates_between": _error(
        "The same image in two splits", "The evaluation is too good: the network has seen the image.", "Remove it from one split."
    ),
    "contradicting": _error(
        "The same image with different classes", "One of the labels is wrong.", "Remove the wrong one."
    ),
    "duplicates_inside": _note("The same image twice in a split", "It counts twice.", "Remove one of them."),
    "near_duplicates_between": _error(
        "Nearly the same image in two splits",
        "The evaluation may be too good: copies, other sizes, frames of one video.",
        "Look at the pictures; keep copies and videos in one split.",
    ),
    "near_duplicates_inside": _note(
        "Nearly the same image twice in a split", "They count twice.", "Look at the pictures; remove copies."
    ),
    # ---- what files store
    "grayscale": _note("Grayscale images", "They become three equal channels.", "Nothing, if it is meant."),
    "alpha": _note("Images with transparency", "They are read on a white background.", "Save them as they should look."),
    "cmyk": _note("CMYK images", "They are converted without a color profile: colors differ a little.", "Convert them to RGB."),
    "sixteen_bit": _note("16-bit images", "They are read with 8 bits.", "Nothing, if they use the full range."),
    "palette": _note("Palette images", "They have 256 colors at most.", "Use the originals, if there are any."),
    "exif_rotation": _note(
        "Images turned by EXIF",
        "They are stored in another direction than viewers show. Annotations may belong to either.",
        "Look at the annotations of one of them.",
    ),
    # ---- statistics
    "odd_size": _note("Images of an unusual size or shape", "A crop shows little of them, or few pixels.", "Look at the pictures."),
    "imbalance": _note(
        "Unequal classes", "Rare classes are learned less.",
        "Judge by the table of classes; collect more of them, or draw them more often: dataset.sampling=class_balanced.",
    ),
}  # fmt: skip


@dataclass
class Finding:
    """All faults of one kind in a split, or between splits."""

    kind: str
    split: str  # such as train, or "train, val"
    count: int
    seen: str  # what was seen, in a sentence
    files: list[str] = field(default_factory=list)
    todo: str = ""  # replaces that of the kind
    examples: list[Fault] = field(default_factory=list)  # for pictures

    @property
    def severity(self) -> str:
        """Returns error or note."""
        return KINDS[self.kind].severity


def counted(count: int, noun: str) -> str:
    """Returns `1 mask` or `2 masks`."""
    return f"{count} {noun}{'s' * (count != 1)}"
