"""Small data files for tests."""

import cv2
import numpy as np


def write_image(path, color=(200, 100, 50), size=(20, 30)):
    """Writes an RGB image of one color, without loss if the suffix allows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((*size, 3), color[::-1], np.uint8))


def write_mask(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.asarray(values, np.uint8))


def coco_annotations(**changes):
    """Content of an annotation file with one labeled object, one without labels and one crowd."""
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
