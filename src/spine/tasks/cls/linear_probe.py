"""Linear probe: classifiers on the embeddings of a frozen backbone (MAE, He et al., arXiv 2111.06377, appendix A.1)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spine.models.network import Model, Network
from spine.option_types import Config
from spine.tasks.base import Batch, MakeOptimizer
from spine.tasks.cls.task import Classification
from spine.tasks.mean_loss import MeanLoss
from spine.tasks.protocols import with_options_of_base


@with_options_of_base
class LinearProbe(Classification):
    """Trains only the head, on the embeddings of the backbone in evaluation mode.

    Several classifiers, copies of the head, are trained on the same embeddings with different
    learning rates. Each one is trained as if it were alone. After every validation, the classifier
    with the highest top-1 is chosen: `top1` and `top5` are its values, and checkpoints store it as
    the head of the network. So a checkpoint is one of an ordinary classifier. Figures drawn in
    training are of the classifier that the previous validation chose.
    """

    model: Model

    def __init__(self, *, lr_factors: Sequence[float] = (1.0,), **options: Any):
        """`lr_factors`: learning rate of each classifier, relative to that of the optimizer. `options`: of `Classification`."""
        super().__init__(**options)
        self.need_one_class("linear")
        self.lr_factors = tuple(lr_factors)
        self.model.requires_grad_(False)
        self.classifiers = nn.ModuleList(copy.deepcopy(self.model.head).requires_grad_() for _ in self.lr_factors)
        self.chosen = 0  # index of the best classifier in the last validation
        self.scores_of_each = nn.ModuleList(copy.deepcopy(self.scores) for _ in self.lr_factors)
        self.loss_of_each = [MeanLoss() for _ in self.lr_factors]

    def train(self, mode: bool = True) -> LinearProbe:
        """Sets the mode of the classifiers. The network stays in evaluation mode."""
        super().train(mode)
        self.model.eval()
        return self

    def optimizer_of(self, make: MakeOptimizer) -> Optimizer:
        """The optimizer of the classifiers, each with its own learning rate."""
        optimizer = make(Network(self.model.backbone, self.classifiers))  # type: ignore[arg-type]  # several heads
        scale_learning_rates(optimizer, self.classifiers, self.lr_factors)
        return optimizer

    @torch.no_grad()
    def embed(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, D). No gradient reaches the backbone."""
        return self.model.backbone.pool(self.model.backbone(image))

    def logits_of_each(self, embedding: Tensor) -> list[Tensor]:
        """The logits (B, classes) of each classifier for embeddings (B, D)."""
        return [classifier(embedding).float() for classifier in self.classifiers]

    # ---- training ----

    def evaluate_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss () of all classifiers, and the logits (B, classes) of the chosen one."""
        logits = self.logits_of_each(self.embed(batch["image"]))
        return torch.stack([self._loss(one, batch) for one in logits]).mean(), logits[self.chosen]

    def backward(self, loss: Tensor, *args: object, **kwargs: object) -> None:
        """The gradients of the sum of the losses: those of a classifier do not depend on the number of classifiers."""
        super().backward(loss * len(self.classifiers), *args, **kwargs)

    def on_fit_end(self) -> None:
        """Makes the chosen classifier the head of the network."""
        self.model.head.load_state_dict(self.classifiers[self.chosen].state_dict())

    # ---- evaluation ----

    @property
    def _chooses(self) -> bool:
        return self.trainer.state.fn == "fit"  # an evaluation takes the head of the network, which a validation has chosen

    def on_validation_epoch_start(self) -> None:
        """Resets the mean losses of the split."""
        super().on_validation_epoch_start()
        for loss in self.loss_of_each:
            loss.reset(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Updates the metrics of all classifiers; returns the logits (B, classes) of the chosen one."""
        embedding = self.embed(batch["image"])
        logits = self.logits_of_each(embedding)
        output = logits[self.chosen] if self._chooses else self.model.head(embedding).float()
        if "spare" not in batch:
            self.split_loss.update(self._loss(output, batch), self.loss_weight(batch))
            self.update_metrics(output, batch)
            for one, scores, loss in zip(logits, self.scores_of_each, self.loss_of_each, strict=True):
                scores.update(one, batch["label"])  # type: ignore[operator]
                loss.update(self._loss(one, batch), self.loss_weight(batch))
        return output

    def on_validation_epoch_end(self) -> None:
        """Chooses the best classifier in training, and logs its metrics and the top-1 of all."""
        self.values_of_each = [
            {name: float(value) for name, value in scores.compute().items()}  # type: ignore[operator]
            for scores in self.scores_of_each
        ]
        for scores in self.scores_of_each:
            scores.reset()  # type: ignore[operator]
        if self._chooses:
            top1 = [values["top1"] for values in self.values_of_each]
            self.chosen = top1.index(max(top1))
            self.split_loss = self.loss_of_each[self.chosen]
        super().on_validation_epoch_end()

    def compute_metrics(self) -> dict[str, float]:
        """The metrics of the chosen classifier, and top1 of each one by its learning rate factor."""
        values = super().compute_metrics()
        if self._chooses:
            values |= self.values_of_each[self.chosen]
        of_each = zip(self.lr_factors, self.values_of_each, strict=True)
        return values | {f"top1/lr_factor_{factor:g}": own["top1"] for factor, own in of_each}

    # ---- checkpoints ----

    def on_save_checkpoint(self, checkpoint: Config) -> None:
        """Adds the index of the chosen classifier, and stores it as the head of the network."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["linear_probe"] = {"chosen": self.chosen}
        state = checkpoint["state_dict"]
        prefix = f"classifiers.{self.chosen}."
        state |= {f"model.head.{name.removeprefix(prefix)}": x for name, x in state.items() if name.startswith(prefix)}

    def on_load_checkpoint(self, checkpoint: Config) -> None:
        """Restores the index of the chosen classifier, of a run that is resumed."""
        super().on_load_checkpoint(checkpoint)
        self.chosen = checkpoint.get("linear_probe", {}).get("chosen", 0)


def scale_learning_rates(optimizer: Optimizer, modules: nn.ModuleList, factors: Sequence[float]) -> None:
    """Divides the parameter groups of an optimizer, in place, so that each module has its own learning rate.

    That is the learning rate of the group times the factor of the module. Parameters that belong to
    none of the modules are dropped.
    """
    groups = []
    for group in optimizer.param_groups:
        for module, factor in zip(modules, factors, strict=True):
            own = set(module.parameters())
            scaled: Config = {key: group[key] * factor for key in ("lr", "lr_scale") if key in group}
            if parameters := [parameter for parameter in group["params"] if parameter in own]:
                groups.append({**group, **scaled, "params": parameters})
    optimizer.param_groups[:] = groups
