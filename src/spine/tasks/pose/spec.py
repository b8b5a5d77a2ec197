"""What is known about keypoint detection before torch is imported."""

from typing import Annotated, Literal

from pydantic import Field

from spine.option_types import OPTIONAL_SWITCH, SWITCH, AboveZero, Allowed, NotNegative, Positive
from spine.pixel_grids import GRIDS
from spine.task_spec import TaskSpec

CODEC_NAMES = tuple(GRIDS)

SPEC = TaskSpec(
    name="pose",
    head_input="maps",
    default_head="heatmap",
    needs=frozenset({"image", "keypoints"}),
    labels="keypoints",
    options={
        "codec": Allowed(Literal[CODEC_NAMES], f"one of {', '.join(CODEC_NAMES)}"),
        "sigma": Allowed(AboveZero | None, "a number of heatmap pixels (of bins with head=simcc) above 0, or null for 2 (6)"),
        "flip_test": SWITCH,
        "flip_shift": OPTIONAL_SWITCH,
        "hard_keypoints": Allowed(Positive | None, "a whole number of keypoints, 1 or more, or null for all"),
        "keypoint_weights": Allowed(
            Annotated[list[NotNegative], Field(min_length=1)] | None, "a list of factors, 0 or more, one per keypoint, or null"
        ),
    },
)
