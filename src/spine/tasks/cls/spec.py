"""What is known about image classification before torch is imported."""

from spine.option_types import Allowed, BelowOne
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="cls",
    head_input="pooled",
    default_head="linear",
    needs=frozenset({"image", "label"}),
    target="spine.tasks.cls.task.Classification",
    labels="classes",
    options={"smoothing": Allowed(BelowOne, "a fraction of probability, 0 or more and below 1")},
)
