"""Tests that compile=true compiles all layers, by counting the operations in the captured graphs."""

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode

import spine
from spine.models.masked import MaskedModel

COUNTED = ("linear", "conv2d", "scaled_dot_product_attention")


class Calls(TorchFunctionMode):
    """Counts the operations of an eager network."""

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        self.found.update([name] if name in COUNTED else [])
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("backbone", "task"),
    [
        ("mae", "mae"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("vit", "cls"), ("vit", "mae"), ("beit", "beit"), ("hrnet", "cls"), ("mobilenet_v3", "cls"))
        ),
    ],
)
def test_every_layer_is_in_a_compiled_graph(backbone, task):
    torch._dynamo.reset()
    net = spine.create_model(backbone, variant="micro", task=task, num_outputs=3 if task == "cls" else None, image_size=64)
    keys, arguments = list(net.state_dict()), [torch.randn(2, 3, 64, 64)]
    if isinstance(net, MaskedModel):
        arguments.append(torch.arange(net.grid[0] * net.grid[1]).expand(2, -1) % 4 > 0)
    net.eval()
    with Calls() as calls, torch.no_grad():
        expected = net(*arguments)
    captured = Counter()

    def count(graph, inputs):
        names = (getattr(node.target, "__name__", "") for node in graph.graph.nodes)
        captured.update(name for name in names if name in COUNTED)
        return graph

    net.compile_in_place(backend=count)
    with torch.no_grad():
        torch.testing.assert_close(net(*arguments), expected)
    assert captured == calls.found and captured["linear"] > 0
    assert list(net.state_dict()) == keys
