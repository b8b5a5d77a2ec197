"""What is known about keypoint detection before torch is imported."""

from spine.option_types import SWITCH, AboveZero, Allowed
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="pose",
    head_input="maps",
    default_head="heatmap",
    needs=frozenset({"image", "keypoints"}),
    labels="keypoints",
    options={"sigma": Allowed(AboveZero, "a number of heatmap pixels above 0"), "flip_test": SWITCH},
)
