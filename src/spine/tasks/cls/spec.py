"""What is known about image classification before torch is imported."""

from typing import Annotated, Literal

from pydantic import Field

from spine.option_types import SWITCH, AboveZero, Allowed, BelowOne, Fraction, NotNegative, Positive
from spine.task_spec import Protocol, TaskSpec

WEIGHTS = Annotated[list[NotNegative], Field(min_length=1)]
FACTORS = Annotated[list[AboveZero], Field(min_length=1)]

SPEC = TaskSpec(
    name="cls",
    head_input="pooled",
    default_head="linear",
    needs=frozenset({"image", "label"}),
    labels="classes",
    takes_targets=True,
    options={
        "smoothing": Allowed(BelowOne, "a fraction of probability, 0 or more and below 1"),
        "bce_loss": SWITCH,
        "bce_sum": SWITCH,
        "bce_target_thresh": Allowed(BelowOne | None, "a probability, 0 or more and below 1, or null"),
        "class_weights": Allowed(
            WEIGHTS | Literal["balanced"] | None, "a list with a factor for each class, 0 or more, balanced or null"
        ),
        "threshold": Allowed(Fraction, "a probability, 0 to 1"),
    },
    protocols={
        "linear": Protocol(
            "spine.tasks.cls.linear_probe.LinearProbe",
            {"lr_factors": Allowed(FACTORS, "a list of factors of optimizer.lr above 0, one for each classifier")},
        ),
        "knn": Protocol(
            "spine.tasks.cls.neighbors.NearestNeighbors",
            {
                "k": Allowed(Positive, "a whole number of neighbors, 1 or more"),
                "temperature": Allowed(AboveZero, "a number above 0"),
            },
            trains=False,
        ),
    },
)
