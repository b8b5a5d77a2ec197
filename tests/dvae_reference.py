"""Records a training step of a discrete VAE with the networks of the DALL-E package, for tests/test_dvae.py.

    PYTHONPATH=src:<folder with the package dall_e> python tests/dvae_reference.py

The weights depend only on the names of their tensors, so the record contains none. The package has no
loss: it is written here from the paper, without code of spine.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from recording import RECORDS, State, draw, to_json
from torch import Tensor

RECORD = RECORDS / "dvae-official.json"
SIZES = {"codes": 512, "width": 64, "decoder_input": 8, "blocks": 2}  # the smallest network that the package can build
TEMPERATURE, BETA = 0.5, 6.6
IMAGE_SIZE = (16, 24)


def inputs() -> tuple[Tensor, Tensor]:
    """Returns pixels (2, 3, H, W) in 0..1, and samples of the exponential distribution for the noise (2, codes, h, w)."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(2, 3, *IMAGE_SIZE, generator=generator, dtype=torch.float64)
    noise = torch.empty(2, SIZES["codes"], 2, 3, dtype=torch.float64).exponential_(generator=generator)
    return image, noise


def gradients(parameters: State) -> dict[str, tuple[float, float]]:
    """Returns the norm of each gradient and its inner product with a random direction, by name."""
    found = {name: parameter.grad for name, parameter in sorted(parameters.items())}
    directions = draw({f"direction of {name}": tuple(grad.shape) for name, grad in found.items() if grad is not None})
    return {
        name: (grad.norm().item(), (grad * directions[f"direction of {name}"]).sum().item())
        for name, grad in found.items()
        if grad is not None
    }


def networks() -> dict[str, torch.nn.Module]:
    """Returns the encoder and the decoder of the package, in float64."""
    from dall_e import Decoder, Encoder
    from dall_e.utils import Conv2d

    def convolve(self: Any, x: Tensor) -> Tensor:  # the package's converts everything to float32
        return F.conv2d(x, self.w, self.b, padding=(self.kw - 1) // 2)

    Conv2d.forward = convolve
    common = {"n_hid": SIZES["width"], "vocab_size": SIZES["codes"], "n_blk_per_group": SIZES["blocks"]}
    nets = {"encoder": Encoder(**common), "decoder": Decoder(n_init=SIZES["decoder_input"], **common)}
    for part, net in nets.items():
        shapes = {our_name(part, name): tuple(value.shape) for name, value in net.state_dict().items()}
        weights = draw(shapes)
        net.double().load_state_dict({name: weights[our_name(part, name)] for name in net.state_dict()})
    return nets


def our_name(part: str, name: str) -> str:
    """Returns spine's name of a tensor of the package."""
    return f"{part}.{name.removesuffix('.w').removesuffix('.b')}.{ {'w': 'weight', 'b': 'bias'}[name[-1]] }"


def record() -> dict[str, Any]:
    """Returns outputs, loss and gradients."""
    nets, (image, noise) = networks(), inputs()
    mapped = 0.8 * image + 0.1
    logits = nets["encoder"].blocks(mapped)
    codes = torch.softmax((logits - noise.log()) / TEMPERATURE, 1)
    output = nets["decoder"].blocks(codes)
    mean, scale = output[:, :3], output[:, 3:].exp()
    density = (-(torch.log(mapped / (1 - mapped)) - mean).abs() / scale).exp() / (2 * scale * mapped * (1 - mapped))
    probability = torch.softmax(logits, 1)
    divergence = (probability * (probability * SIZES["codes"]).log()).sum()  # over all positions of all images
    loss = (-density.log().sum() + BETA * divergence) / mapped.numel()
    assert math.isfinite(loss.item())
    loss.backward()
    parameters = {our_name(part, name): p for part, net in nets.items() for name, p in net.named_parameters()}
    return {
        "source": "openai/DALL-E dall_e 0.1",
        "logits": logits.flatten()[::97].tolist(),
        "output": output.flatten()[::23].tolist(),
        "loss": loss.item(),
        "step": gradients(parameters),
    }


if __name__ == "__main__":
    RECORD.write_text(to_json(record()) + "\n")
