"""The strategy of trainer=fsdp: fully sharded data parallelism (FSDP2) with ordinary checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict, set_optimizer_state_dict
from torch.optim import Optimizer

from spine.models.sharding import load_full_state
from spine.training.checkpoints import CheckpointContent

OptimizerState = dict[str, Any]  # "state" by parameter and "param_groups"


class FullySharded(ModelParallelStrategy):
    """Shards parameters, gradients and optimizer states over all processes. `Task.configure_model` shards the network.

    A checkpoint is a single file with whole tensors, the same as with any other strategy.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Starts the process group, in which all processes divide the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's default is the number of nodes
        super().setup_environment()

    def optimizer_state(self, optimizer: Optimizer) -> OptimizerState:
        """Returns the state of an optimizer in the format of torch.optim. All processes must call this; it is empty on all but one.

        Lightning numbers parameters in the order of the network, torch.optim in the order of the
        parameter groups.
        """
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        assert self.model is not None
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        saved = cast(OptimizerState, get_optimizer_state_dict(self.model, inner, options=options))
        if not saved:
            return {}
        numbers = {name: number for number, name in enumerate(self._parameter_names(inner))}
        return {
            "state": {numbers[name]: state for name, state in saved["state"].items()},
            "param_groups": [{**group, "params": [numbers[name] for name in group["params"]]} for group in saved["param_groups"]],
        }

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> CheckpointContent:
        """Reads a checkpoint on every process, and loads its weights and the states of the optimizers."""
        content = self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)
        assert self.model is not None
        load_full_state(self.model, content["state_dict"])
        for optimizer, saved in zip(self.optimizers, content.get("optimizer_states", []), strict=False):
            names = self._parameter_names(optimizer)
            state: OptimizerState = {
                "state": {names[number]: value for number, value in saved["state"].items()},
                "param_groups": [
                    {**group, "params": [names[number] for number in group["params"]]} for group in saved["param_groups"]
                ],
            }
            set_optimizer_state_dict(self.model, optimizer, state, options=StateDictOptions(full_state_dict=True))
        return content

    def _parameter_names(self, optimizer: Optimizer) -> list[str]:
        """Returns the names of an optimizer's parameters in the order of its groups."""
        assert self.model is not None
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
