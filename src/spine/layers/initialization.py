"""Initialization schemes, as functions for `nn.Module.apply`."""

from __future__ import annotations

from torch import nn


def truncated_normal(module: nn.Module) -> None:
    """Linear and convolutional layers: truncated normal of std 0.02, biases zero (ConvNeXt, BEiT)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        zero_bias(module)


def kaiming_fan_out(module: nn.Module) -> None:
    """Convolutions: normal of std sqrt(2 / fan out), with the fan out of all groups together."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def dense_head_init(head: nn.Module, *classifiers: nn.Conv2d) -> None:
    """Convolutions: `kaiming_fan_out`; classifiers: normal of std 0.01, biases zero (OpenMMLab's decode heads)."""
    head.apply(kaiming_fan_out)
    for classifier in classifiers:
        nn.init.normal_(classifier.weight, std=0.01)
        zero_bias(classifier)


def xavier_linear(module: nn.Module) -> None:
    """Linear layers: Xavier-uniform weights, biases zero (ViT, MAE)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        zero_bias(module)


def zero_bias(module: nn.Module) -> None:
    """Linear and convolutional layers: biases zero."""
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def shufflenet_init(module: nn.Module) -> None:
    """Convolutions: normal of std 1 / (input channels per group); batch norms: biases 0.0001.

    The initialization of the authors' ShuffleNets.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=1.0 / module.weight.shape[1])
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.constant_(module.bias, 0.0001)


def shufflenet_stem_init(module: nn.Module) -> None:
    """Convolutions: normal of std 0.01 (the first layers of the authors' ShuffleNets)."""
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.01)
