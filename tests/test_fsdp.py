"""Sharded networks (trainer=fsdp) compute what others compute, and write the same checkpoints."""

import copy

import pytest
import torch
import torch.distributed as dist
from test_configs import composed
from torch.distributed.device_mesh import init_device_mesh

from spine.components import modules
from spine.config.building import build_run
from spine.config.completion import complete
from spine.errors import InputError
from spine.models.sharding import blocks, full_tensor, is_sharded, load_full_state, shard
from spine.training.fsdp import FullySharded
from spine.training.trainer import _strategy


@pytest.fixture
def mesh(tmp_path):
    """A group of one process: parameters are DTensors as in a larger one."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def network(backbone, *overrides):
    image_size = "image_size=[64,64]"
    small = ("dataset.length={train: 8, val: 4, test: 4}", "dataset.num_workers=0", "trainer.accelerator=cpu")
    return build_run(complete(composed(f"backbone={backbone}", image_size, *small, *overrides))).task


@pytest.mark.parametrize(
    ("task", "backbone"), [("cls", name) for name in modules("backbone")] + [("mae", "mae"), ("seg", "swin")]
)
def test_a_sharded_network_computes_the_same(mesh, task, backbone):
    plain = network(backbone, f"task={task}").eval()
    sharded = copy.deepcopy(plain)
    shard(sharded.model, mesh)
    shard(sharded.model, mesh)  # a second time: nothing
    assert is_sharded(sharded.model) and not is_sharded(plain.model)
    assert len(list(blocks(plain.model))) >= 3
    inputs = [torch.randn(2, 3, 64, 64)]
    if task == "mae":
        inputs.append(torch.rand(2, plain.model.grid[0] * plain.model.grid[1]).argsort(1) < 6)
    expected, found = plain(*inputs), sharded(*inputs)
    torch.testing.assert_close(found, expected)
    for output in (expected, found):
        output.square().mean().backward()
    for (name, a), b in zip(plain.model.named_parameters(), sharded.model.parameters(), strict=True):
        if a.grad is not None:
            assert (full_tensor(b.grad) - a.grad).norm() <= 1e-4 * a.grad.norm() + 1e-7, name  # another memory format


def test_whole_weights_are_loaded_into_a_sharded_network(mesh):
    task = network("vit", "task=cls")
    state = {name: torch.rand_like(tensor) for name, tensor in task.state_dict().items()}
    shard(task.model, mesh)
    load_full_state(task, state)
    for name, tensor in task.state_dict().items():
        assert torch.equal(full_tensor(tensor), state[name]), name


def test_optimizer_states_have_the_format_of_torch_optim(mesh, tmp_path):
    """The parameter groups order parameters differently from the network."""
    plain = network("vit", "task=cls")
    sharded = copy.deepcopy(plain)
    shard(sharded.model, mesh)
    strategy = FullySharded()
    optimizers = [task.make_optimizer(task.model) for task in (plain, sharded)]
    for task, optimizer in zip((plain, sharded), optimizers, strict=True):
        task.eval()
        task(torch.ones(2, 3, 64, 64)).square().mean().backward()
        optimizer.step()
    strategy._model, strategy.optimizers = sharded, [optimizers[1]]
    expected, found = optimizers[0].state_dict(), strategy.optimizer_state(optimizers[1])
    assert [group["params"] for group in found["param_groups"]] == [group["params"] for group in expected["param_groups"]]
    for number, state in expected["state"].items():
        torch.testing.assert_close(found["state"][number]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-7)

    class Reader:
        def load_checkpoint(self, path, weights_only=None):
            return {"state_dict": plain.state_dict(), "optimizer_states": [expected]}

    strategy._checkpoint_io = Reader()
    strategy.load_checkpoint(tmp_path)
    again = strategy.optimizer_state(optimizers[1])
    for number, state in expected["state"].items():
        assert torch.equal(again["state"][number]["exp_avg"], state["exp_avg"])
        assert float(again["state"][number]["step"]) == float(state["step"])


def test_float16_is_refused():
    with pytest.raises(InputError, match="is fsdp, which does not train with trainer.precision=16-mixed"):
        _strategy({"strategy": "fsdp", "precision": "16-mixed"})
