"""Records outputs of reference implementations, for parity tests in environments without them.

    python tests/recording.py [convnext swin ...]        (in an environment with timm, torchvision and transformers)

Each file of tests/references defines networks of other publishers. Their random weights depend only
on the names of their tensors, so a record contains no weights. It contains names and shapes, the
outputs at two image sizes, and for one training step the loss and, for each tensor, the norm of its
gradient and its inner product with a random direction. Tests draw the same weights, convert them to
our names, and compare to 1e-9. The authors' code is read from checkouts in the folder SPINE_CHECKOUTS.
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
CONSTANT = re.compile(r"(num_batches_tracked|relative_position_index|attn_mask)$")  # not weights


@dataclass(frozen=True)
class Case:
    """A network of another publisher with 10 classes, and our network that must be equal."""

    name: str  # of the record: backbone, layout of the publisher, and further distinctions
    source: str  # publisher and name of the network
    build: Callable[[], nn.Module]  # without dropout and drop path; ImportError or FileNotFoundError if not available
    variant: str
    options: dict[str, Any] = field(default_factory=dict)  # of create_model
    layout: str | None = None  # name of the layout, if the file does not determine it
    sizes: tuple[tuple[int, int], ...] = ((224, 224), (160, 192))
    train_size: tuple[int, int] | None = (96, 128)  # None: no training step is recorded
    slow: bool = False  # draws hundreds of millions of random numbers
    theirs: Callable[[nn.Module, Tensor], Any] = lambda net, image: net(image)  # output for an image
    ours: Callable[[nn.Module, Tensor], Any] = lambda net, image: net(image)
    their_loss: Callable[[nn.Module, Tensor], Tensor] | None = None  # of images; None: cross entropy of the output
    our_loss: Callable[[nn.Module, Tensor], Tensor] | None = None

    @property
    def backbone(self) -> str:
        """Our name of the backbone."""
        return self.name.partition("-")[0]

    @property
    def publisher(self) -> str:
        """Publisher of the layout."""
        return self.layout or self.name.split("-")[1]

    def names(self, state: State) -> State:
        """Returns the tensors under our names. All names must be known."""
        layouts = layouts_of(self.backbone)
        candidates = (layout for layout in layouts if layout.publisher == self.publisher)
        layout = max(candidates, key=lambda layout: layout.match_fraction(state))  # the first one, if several are equal
        found, unknown = layout.to_spine(state)
        assert not unknown, unknown
        return found


def backbones() -> list[str]:
    """Returns the backbones that have references."""
    names = sorted(path.stem for path in Path(__file__).with_name("references").glob("[a-z]*.py"))
    return [name for name in names if name in os.environ.get("SPINE_REFERENCES", name)]


def cases(names: list[str] | None = None) -> list[Case]:
    """Returns all references of the named backbones, or of all backbones."""
    return [case for name in names or backbones() for case in importlib.import_module(f"references.{name}").CASES]


def checkout(repository: str, file: str, name: str | None = None) -> Any:
    """Imports `file` of a checkout of `repository` (name without owner) as module `name`."""
    path = Path(os.environ.get("SPINE_CHECKOUTS", "checkouts"), repository, file)
    if not path.is_file():
        raise FileNotFoundError(path)
    name = name or f"{repository}_{path.stem}".replace("-", "_").replace(".", "_")
    spec: Any = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    try:  # the authors' networks must not be added to timm's registry
        from timm.models import registry
    except (ImportError, RuntimeError):
        spec.loader.exec_module(module)
    else:
        with mock.patch.object(registry, "register_model", lambda function: function):
            spec.loader.exec_module(module)
    return module


def draw(shapes: dict[str, tuple[int, ...]]) -> State:
    """Draws float64 weights with which every tensor has an effect.

    Each depends only on its name and shape.
    """
    state = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        vector = noise.numel() == max(shape, default=1)  # norms, biases, layer scales, class tokens
        if name.endswith(("running_var", "moving_variance")):
            state[name] = 0.5 + noise.abs()
        elif not vector and not re.search(r"pos|token", name):
            state[name] = noise * (2 / noise[0].numel()) ** 0.5
        else:
            center = 0.0 if re.search(r"bias|mean|token|pos", name) else 0.7
            state[name] = center + 0.2 * noise
    return state


def image_of(size: tuple[int, int], count: int) -> Tensor:
    """Returns random images (count, 3, H, W) in float64, the same for each call."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def shapes_of(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of all weights and running statistics."""
    tensors = net.state_dict().items()
    return {key: tuple(value.shape) for key, value in tensors if value.is_floating_point() and not CONSTANT.search(key)}


def measure(
    net: nn.Module,
    case: Case,
    output: Callable,
    names: Callable[[State], State],
    loss_of: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """Returns the outputs at each size and the values of one training step of a network.

    `names` converts to our tensor names. `loss_of`: the loss of the step for images; None: cross entropy of the output.
    """
    net = net.double().eval()

    def logits(size: tuple[int, int], count: int) -> Tensor:
        out = output(net, image_of(size, count))
        return getattr(out, "logits", out).flatten(0, -2)  # one row per token

    outputs = {}
    with torch.no_grad():
        for size in case.sizes:
            outputs[f"{size[0]}x{size[1]}"] = logits(size, 1).flatten().tolist()
    if case.train_size is None:
        return {"outputs": outputs}
    net.train()
    if loss_of is None:
        out = logits(case.train_size, 3)
        loss = F.cross_entropy(out, torch.arange(len(out)) % CLASSES)
    else:
        loss = loss_of(net, image_of(case.train_size, 3))
    loss.backward()
    return {"outputs": outputs, "train_size": case.train_size, "loss": loss.item(), "step": gradients(net, names)}


def gradients(net: nn.Module, names: Callable[[State], State]) -> dict[str, tuple[float, float]]:
    """Returns, for each gradient and each running statistic of a network, its norm and its inner product with a random direction.

    `names` converts to our tensor names.
    """
    after = {key: value for key, value in net.state_dict().items() if key in shapes_of(net)}  # with updated running statistics
    for key, parameter in net.named_parameters():
        after[key] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    after = names({key: value.detach() for key, value in after.items()})
    directions = draw({f"direction of {key}": tuple(value.shape) for key, value in after.items()})
    return {
        key: (value.norm().item(), (value * directions[f"direction of {key}"]).sum().item())
        for key, value in sorted(after.items())
    }


def record(case: Case) -> dict[str, Any]:
    """Returns the record of a reference."""
    net = case.build()
    shapes = shapes_of(net)
    net.double().load_state_dict(draw(shapes), strict=False)
    return {"source": case.source, "keys": shapes, **measure(net, case, case.theirs, case.names, case.their_loss)}


def to_json(value: Any, depth: int = 2) -> str:
    """Returns JSON with one line per tensor."""
    if not depth or not isinstance(value, dict):
        return json.dumps(value)
    return "{\n" + ",\n".join(f"{json.dumps(key)}: {to_json(item, depth - 1)}" for key, item in value.items()) + "\n}"


if __name__ == "__main__":
    for case in cases(sys.argv[1:]):
        try:
            found = record(case)
        except (ImportError, FileNotFoundError) as error:
            print(f"{case.name}: not available ({error})")
            continue
        RECORDS.joinpath(f"{case.name}.json").write_text(to_json(found) + "\n")
        print(f"{case.name}: {len(found['keys'])} tensors of {case.source}")
