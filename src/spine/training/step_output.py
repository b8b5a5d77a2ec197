"""The loss in the outputs that Lightning passes to `on_train_batch_end`."""

from __future__ import annotations

from collections.abc import Mapping

from pytorch_lightning.utilities.types import STEP_OUTPUT
from torch import Tensor


def step_loss(outputs: STEP_OUTPUT) -> Tensor:
    """Returns the loss (), detached."""
    loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
    assert loss is not None
    return loss.detach()
