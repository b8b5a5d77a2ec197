"""Rules for the layers of TF-slim, in which the authors of the MobileNets published their checkpoints."""

from __future__ import annotations

from spine.checkpoints.formats._common import CONV_KERNEL
from spine.checkpoints.mapping import Rule, TensorConversion

# TF-slim: (h, w, channels, 1); spine: (channels, 1, h, w).
DEPTHWISE_KERNEL = TensorConversion(lambda x: x.permute(2, 3, 0, 1), lambda x: (x.permute(2, 3, 0, 1),))
# TF-slim: 1x1 convolution (1, 1, in, out); spine: linear layer (out, in).
LINEAR_KERNEL = TensorConversion(lambda x: x[0, 0].T, lambda x: (x.T[None, None],))
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def conv_norm(source: str, target: str, positions: tuple[int, int] = (0, 1)) -> tuple[Rule, ...]:
    """Rules for a convolution and its norm, which have `positions` in a sequence of spine. `source`: its scope.

    The convolution of a scope with the name "depthwise" is depthwise.
    """
    conv, norm = (f"{target}.{position}" for position in positions)
    kernel = (
        Rule(f"{source}.depthwise_weights", f"{conv}.weight", DEPTHWISE_KERNEL)
        if source.endswith("depthwise")
        else Rule(f"{source}.weights", f"{conv}.weight", CONV_KERNEL)
    )
    return kernel, *(Rule(f"{source}.BatchNorm.{theirs}", f"{norm}.{ours}") for theirs, ours in NORM.items())


def biased(source: str, target: str, kernel: TensorConversion = CONV_KERNEL) -> tuple[Rule, ...]:
    """Rules for a convolution with a bias. `kernel`: LINEAR_KERNEL if it is a linear layer in spine."""
    return Rule(f"{source}.weights", f"{target}.weight", kernel), Rule(f"{source}.biases", f"{target}.bias")


def expanded_conv(scope: str, number: int) -> str:
    """The scope of a block. `number`: from 1."""
    return f"{scope}.expanded_conv_{number - 1}" if number > 1 else f"{scope}.expanded_conv"
