"""What is known about masked autoencoding before torch is imported."""

from typing import Annotated

from pydantic import Field

from spine.option_types import SWITCH, Allowed
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="mae",
    head_input="tokens",
    default_head="mae_decoder",
    needs=frozenset({"image"}),
    options={
        "mask_ratio": Allowed(Annotated[float, Field(gt=0, lt=1)], "the fraction of masked patches, above 0 and below 1"),
        "norm_pix_loss": SWITCH,
    },
)
