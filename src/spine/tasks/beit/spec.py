"""What is known about BEiT's masked image modeling before torch is imported."""

from typing import Annotated

from pydantic import Field

from spine.option_types import Allowed
from spine.task_spec import TaskSpec

Patches = Annotated[int, Field(ge=1, le=196)]

SPEC = TaskSpec(
    name="beit",
    head_input="tokens",
    default_head="token_classifier",
    needs=frozenset({"image"}),
    num_outputs=8192,  # codes of the published tokenizer, for networks without one
    reads_tokenizer=True,
    masking=("replace",),  # the number of masked patches differs between images
    options={
        "max_masked": Allowed(Patches, "a whole number of patches of a 14x14 grid, 1 to 196"),
        "min_block": Allowed(Patches, "a whole number of patches of a 14x14 grid, 1 to 196"),
    },
)
