"""What is known about keypoint detection before torch is imported."""

from typing import Annotated, Literal

from pydantic import Field

from spine.option_types import OPTIONAL_SWITCH, SWITCH, AboveZero, Allowed, Fraction, NotNegative, Positive, Text
from spine.pixel_grids import GRIDS
from spine.task_spec import TaskSpec

CODEC_NAMES = tuple(GRIDS)

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
        "codec": Allowed(Literal[CODEC_NAMES], f"one of {', '.join(CODEC_NAMES)}"),
        "sigma": Allowed(AboveZero | None, "a number of heatmap pixels (of bins with head=simcc) above 0, or null for 2 (6)"),
        "flip_test": SWITCH,
        "flip_shift": OPTIONAL_SWITCH,
        "hard_keypoints": Allowed(Positive | None, "a whole number of keypoints, 1 or more, or null for all"),
        "keypoint_weights": Allowed(
            Annotated[list[NotNegative], Field(min_length=1)] | None, "a list of factors, 0 or more, one per keypoint, or null"
        ),
        "rescore": Allowed(Fraction | None, "a score of keypoints, 0 to 1, or null to keep the scores of the boxes"),
        "oks_nms": Allowed(
            Annotated[float, Field(gt=0, le=1)] | None,
            "an object keypoint similarity, above 0 and at most 1, or null to keep all objects",
        ),
        "soft_oks_nms": SWITCH,
        "nme_threshold": Allowed(AboveZero, "a normalized mean error above 0"),
    },
)
