"""Update rules that torch.optim does not have, with the values of the authors' code.

`pytorch_optimizer` differs: its LAMB limits the norm of the weights to 10, and
it has no RMSprop with TensorFlow's epsilon.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Group = dict[str, Any]  # "params" and options of torch.optim


class UpdateRule(Optimizer):
    """Updates the parameters of each group that have a gradient."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters. Returns the loss of `closure`, which computes the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if parameters := [parameter for parameter in group["params"] if parameter.grad is not None]:
                self.update(parameters, [parameter.grad for parameter in parameters], group)
        return loss

    @abstractmethod
    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: Group) -> None:
        """Updates the parameters of a group."""

    def stored(self, parameters: list[Tensor], name: str, initial: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Returns the state `name` of each parameter, and creates it the first time."""
        for parameter in parameters:
            if name not in self.state[parameter]:
                self.state[parameter][name] = initial(parameter)
        return [self.state[parameter][name] for parameter in parameters]


class TensorFlowRMSprop(UpdateRule):
    """RMSprop as in TensorFlow.

    The epsilon is inside the square root, the mean square starts at 1, and the momentum accumulates
    steps that include the learning rate. The weight decay is added to the gradient.
    """

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: Group) -> None:
        """Updates the parameters of a group."""
        squares = self.stored(parameters, "square_avg", torch.ones_like)
        if group["weight_decay"] != 0:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - group["alpha"])
        roots = torch._foreach_sqrt(torch._foreach_add(squares, group["eps"]))
        if group["momentum"] == 0:
            torch._foreach_addcdiv_(parameters, gradients, roots, value=-group["lr"])
            return
        steps = self.stored(parameters, "momentum_buffer", torch.zeros_like)
        torch._foreach_mul_(steps, group["momentum"])
        torch._foreach_addcdiv_(steps, gradients, roots, value=group["lr"])
        torch._foreach_sub_(parameters, steps)


class LARS(UpdateRule):
    """Momentum SGD whose steps are proportional to the norm of the weights (You et al., arXiv 1708.03888).

    Vectors, such as biases, are updated as in SGD without weight decay (MAE's code, `util/lars.py`).
    """

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: Group) -> None:
        """Updates the parameters of a group."""
        averages = self.stored(parameters, "momentum_buffer", torch.zeros_like)
        for parameter, gradient, average in zip(parameters, gradients, averages, strict=True):
            if parameter.ndim > 1:
                gradient = gradient.add(parameter, alpha=group["weight_decay"])
                gradient = gradient * _ratio(parameter, gradient, group["trust_coefficient"])
            average.mul_(group["momentum"]).add_(gradient)
            parameter.add_(average, alpha=-group["lr"])


class LAMB(UpdateRule):
    """Adam whose steps are proportional to the norm of the weights (You et al., arXiv 1904.00962).

    Parameters without weight decay are updated as in Adam, as in timm's code. The recipes of "ResNet
    strikes back" (arXiv 2110.00476) clip the norm of the gradients at 1: trainer.gradient_clip_val=1.
    """

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: Group) -> None:
        """Updates the parameters of a group."""
        beta1, beta2 = group["betas"]
        means = self.stored(parameters, "exp_avg", torch.zeros_like)
        squares = self.stored(parameters, "exp_avg_sq", torch.zeros_like)
        counts = self.stored(parameters, "step", lambda _: torch.tensor(0.0))
        for parameter, gradient, mean, square, count in zip(parameters, gradients, means, squares, counts, strict=True):
            count += 1
            step = count.item()
            mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
            square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (square.sqrt() / (1 - beta2**step) ** 0.5).add_(group["eps"])
            update = (mean / (1 - beta1**step)).div_(root)
            if group["weight_decay"] != 0:
                update.add_(parameter, alpha=group["weight_decay"])
                update.mul_(_ratio(parameter, update))
            parameter.add_(update, alpha=-group["lr"])


class Lion(UpdateRule):
    """Steps of the sign of the momentum (Chen et al., arXiv 2302.06675)."""

    def update(self, parameters: list[Tensor], gradients: list[Tensor], group: Group) -> None:
        """Updates the parameters of a group."""
        beta1, beta2 = group["betas"]
        means = self.stored(parameters, "exp_avg", torch.zeros_like)
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        directions = torch._foreach_sign(torch._foreach_lerp(means, gradients, 1 - beta1))
        torch._foreach_add_(parameters, directions, alpha=-group["lr"])
        torch._foreach_lerp_(means, gradients, 1 - beta2)


def _ratio(parameter: Tensor, update: Tensor, factor: float = 1.0) -> Tensor:
    """Returns `factor` times the norm of a parameter divided by that of its update, or 1 if one of them is 0."""
    weight, step = torch.linalg.vector_norm(parameter), torch.linalg.vector_norm(update)
    return torch.where((weight > 0) & (step > 0), factor * weight / step, torch.ones_like(weight))
