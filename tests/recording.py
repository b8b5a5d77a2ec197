"""What a reference implementation computes, written down small: how outputs equal to 1e-9 are proved where it cannot be installed.

    python tests/recording.py [convnext swin ...]        (in an environment with timm, torchvision and transformers)

Each file of tests/references names networks of other publishers. Their weights are drawn from the names of their tensors, so that a
record holds no weights: names and shapes, the outputs at two image sizes, and of one training step the loss and, for every tensor, the
norm of its gradient and its product with a random direction. Tests draw the same weights, push them through our names, and compare.
The authors' own code is read from checkouts in the folder that SPINE_CHECKOUTS names.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spine.checkpoints.formats import layouts_of

RECORDS = Path(__file__).with_name("records")
CLASSES = 10
State = dict[str, Tensor]
CONSTANT = re.compile(r"(num_batches_tracked|relative_position_index|attn_mask)$")  # not weights, whatever their type


@dataclass(frozen=True)
class Case:
    """A network of another publisher with 10 classes, and ours that must equal it."""

    name: str  # of the record: the backbone, the publisher's layout, and what else tells it apart
    source: str  # who wrote it, and what it is called there
    build: Callable[[], nn.Module]  # dropout and drop path at zero; ImportError or FileNotFoundError where it is not at hand
    variant: str
    options: dict[str, Any] = field(default_factory=dict)  # of our create_model
    told: str | None = None  # the layout's name, where the file cannot tell
    sizes: tuple[tuple[int, int], ...] = ((224, 224), (160, 192))
    train_size: tuple[int, int] | None = (96, 128)  # None: no training step is recorded
    slow: bool = False  # hundreds of millions of numbers are drawn
    theirs: Callable[[nn.Module, Tensor], Any] = lambda net, image: net(image)  # the answer to an image
    ours: Callable[[nn.Module, Tensor], Any] = lambda net, image: net(image)

    @property
    def backbone(self) -> str:
        """Our name of the system."""
        return self.name.partition("-")[0]

    @property
    def publisher(self) -> str:
        """Whose layout it is."""
        return self.told or self.name.split("-")[1]

    def names(self, state: State) -> State:
        """Tensors under our names, strictly."""
        layouts = layouts_of(self.backbone)
        own = (layout for layout in layouts if layout.publisher == self.publisher)
        layout = max(own, key=lambda layout: layout.match_fraction(state))  # the first of equals
        found, unknown = layout.to_spine(state)
        assert not unknown, unknown
        return found


def backbones() -> list[str]:
    """Backbones for which there are references."""
    names = sorted(path.stem for path in Path(__file__).with_name("references").glob("[a-z]*.py"))
    return [name for name in names if name in os.environ.get("SPINE_REFERENCES", name)]


def cases(names: list[str] | None = None) -> list[Case]:
    """Every reference of the named backbones, or of all."""
    return [case for name in names or backbones() for case in importlib.import_module(f"references.{name}").CASES]


def checkout(repository: str, file: str, name: str | None = None) -> Any:
    """A module of the authors' code: `file` of a checkout of `repository` (its name without the owner), imported as `name`."""
    path = Path(os.environ.get("SPINE_CHECKOUTS", "checkouts"), repository, file)
    if not path.is_file():
        raise FileNotFoundError(path)
    name = name or f"{repository}_{path.stem}".replace("-", "_").replace(".", "_")
    spec: Any = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:  # where timm is at hand: its register would take the authors' networks for its own
        from timm.models import registry
    except (ImportError, RuntimeError):
        spec.loader.exec_module(module)
    else:
        with mock.patch.object(registry, "register_model", lambda function: function):
            spec.loader.exec_module(module)
    return module


def draw(shapes: dict[str, tuple[int, ...]]) -> State:
    """Weights under which every tensor matters, in float64: each a function of its name and shape alone."""
    state = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        vector = noise.numel() == max(shape, default=1)  # norms, biases, layer scales, class tokens
        if name.endswith("running_var"):
            state[name] = 0.5 + noise.abs()
        elif not vector and not re.search(r"pos|token", name):
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
        else:
            centre = 0.0 if re.search(r"bias|mean|token|pos", name) else 0.7
            state[name] = centre + 0.2 * noise
    return state


def image_of(size: tuple[int, int], count: int) -> Tensor:
    """Random images (count, 3, H, W) in float64, always the same."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all weights and statistics."""
    tensors = net.state_dict().items()
    return {key: tuple(value.shape) for key, value in tensors if value.is_floating_point() and not CONSTANT.search(key)}


def measure(net: nn.Module, case: Case, answer: Callable, names: Callable[[State], State]) -> dict[str, Any]:
    """Outputs at each size, and one training step, of a network that holds its weights; tensors under our names."""
    net = net.double().eval()

    def logits(size: tuple[int, int], count: int) -> Tensor:
        out = answer(net, image_of(size, count))
        return getattr(out, "logits", out).flatten(0, -2)  # tokens count as images

    outputs = {}
    with torch.no_grad():
        for size in case.sizes:
            outputs[f"{size[0]}x{size[1]}"] = logits(size, 1).flatten().tolist()
    if case.train_size is None:
        return {"outputs": outputs}
    net.train()
    out = logits(case.train_size, 3)
    loss = F.cross_entropy(out, torch.arange(len(out)) % CLASSES)
    loss.backward()
    after = {key: value for key, value in net.state_dict().items() if key in shapes_of(net)}  # statistics have moved
    parameters = dict(net.named_parameters())
    for key, parameter in parameters.items():
        after[key] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    after = names({key: value.detach() for key, value in after.items()})
    directions = draw({f"direction of {key}": tuple(value.shape) for key, value in after.items()})
    step = {
        key: (value.norm().item(), (value * directions[f"direction of {key}"]).sum().item())
        for key, value in sorted(after.items())
    }
    return {"outputs": outputs, "train_size": case.train_size, "loss": loss.item(), "step": step}


def record(case: Case) -> dict[str, Any]:
    """What the reference computes."""
    net = case.build()
    shapes = shapes_of(net)
    net.double().load_state_dict(draw(shapes), strict=False)
    return {"source": case.source, "keys": shapes, **measure(net, case, case.theirs, case.names)}


def written(value: Any, depth: int = 2) -> str:
    """JSON with a line for each tensor."""
    if not depth or not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {written(item, depth - 1)}" for key, item in value.items()) + "\n}"


if __name__ == "__main__":
    for case in cases(sys.argv[1:]):
        try:
            found = record(case)
        except (ImportError, FileNotFoundError) as error:
            print(f"{case.name}: not at hand ({error})")
            continue
        RECORDS.joinpath(f"{case.name}.json").write_text(written(found) + "\n")
        print(f"{case.name}: {len(found['keys'])} tensors of {case.source}")
