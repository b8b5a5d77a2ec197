"""What is known about semantic segmentation before torch is imported."""

from typing import Annotated, Literal

from pydantic import Field

from spine.option_types import SWITCH, AboveZero, Allowed, Fraction, Size
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="seg",
    head_input="maps",
    default_head="fcn",
    needs=frozenset({"image", "mask"}),
    labels="mask_classes",
    pads_images=True,
    auxiliary_losses=True,
    options={
        "resolution": Allowed(Literal["original", "input"], "original or input"),
        "inference": Allowed(Literal["whole", "slide"], "whole or slide"),
        "crop_size": Allowed(Size | None, "two numbers of pixels, [height, width], or null for the image size of the network"),
        "crop_stride": Allowed(Size | None, "two numbers of pixels, [down, across], or null for two thirds of task.crop_size"),
        "scales": Allowed(
            Annotated[list[AboveZero], Field(min_length=1)],
            "a list of factors of the image size above 0, such as [0.5, 1.0, 2.0]",
        ),
        "flip_test": SWITCH,
        "threshold": Allowed(Fraction, "a probability, 0 to 1"),
        "boundary_width": Allowed(Fraction, "a fraction of the diagonal of the image, 0 to 1"),
    },
)
