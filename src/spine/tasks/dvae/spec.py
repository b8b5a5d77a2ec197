"""What is known about the training of discrete VAEs before torch is imported."""

from typing import Literal

from spine.option_types import AboveZero, Allowed, Fraction, NotNegative, Text
from spine.task_spec import TaskSpec

SPEC = TaskSpec(
    name="dvae",
    needs=frozenset({"image"}),
    network="spine.tokenizers.dvae.TokenizerConfig",
    network_options={"variant": Allowed(Text, "the name of a variant: small or dalle")},
    reads_pixels=True,
    options={
        "reconstruction": Allowed(Literal["logit_laplace", "mse"], "logit_laplace or mse"),
        "kl_weight": Allowed(NotNegative | None, "a weight, 0 or more, or null for the default of the reconstruction loss"),
        "kl_warmup": Allowed(Fraction, "a fraction of all steps, 0 to 1"),
        "start_temperature": Allowed(AboveZero, "a temperature above 0"),
        "end_temperature": Allowed(AboveZero, "a temperature above 0"),
        "annealing": Allowed(Fraction, "a fraction of all steps, 0 to 1"),
    },
)
