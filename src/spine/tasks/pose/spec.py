"""What is known about keypoint detection before torch is imported."""

from typing import Annotated

from pydantic import Field

from spine.option_types import SWITCH, AboveZero, Allowed, Fraction, Text
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="pose",
    head_input="maps",
    default_head="heatmap",
    needs=frozenset({"image", "keypoints"}),
    labels="keypoints",
    data_options={
        "bbox_file": Allowed(Text | None, "the path of a JSON file of detections, or null for the boxes of the data set"),
        "bbox_threshold": Allowed(float, "the lowest score of a detection that is used"),
    },
    options={
        "sigma": Allowed(AboveZero, "a number of heatmap pixels above 0"),
        "flip_test": SWITCH,
        "rescore": Allowed(Fraction | None, "a score of keypoints, 0 to 1, or null to keep the scores of the boxes"),
        "oks_nms": Allowed(
            Annotated[float, Field(gt=0, le=1)] | None,
            "an object keypoint similarity, above 0 and at most 1, or null to keep all objects",
        ),
        "soft_oks_nms": SWITCH,
        "nme_threshold": Allowed(AboveZero, "a normalized mean error above 0"),
    },
)
