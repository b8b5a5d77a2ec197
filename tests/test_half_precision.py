"""Tests that networks have finite predictions and gradients under autocast to 16 bits, also for black images and large values."""

import itertools

import pytest
import torch

import spine
from spine.components import head_class, modules, task_spec
from spine.heads.parsenet import L2Norm
from spine.interfaces import TrainingOutputs
from spine.models.masked import MaskedModel

TASKS = {name: task_spec(name) for name in modules("task")}

HEADS = {
    "seg": ("aspp", "fcn", "hamburger", "lraspp", "ocr", "parsenet", "upernet"),
    "pose": ("heatmap", "multiscale_heatmap", "simcc"),
}
CASES = [
    *((backbone, "cls", "linear") for backbone in spine.list_backbones()),
    *((backbone, task, head) for backbone, task in itertools.product(["vgg16", "swin"], HEADS) for head in HEADS[task]),
    ("mae", "mae", "mae_decoder"),
    ("convnext", "mae", "mae_decoder"),
    ("beit", "beit", "token_classifier"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("magnitude", [0.0, 1e-7, 1e-3, 200.0])
@pytest.mark.parametrize("weights", [torch.float32, "half"])
def test_l2_norm_is_accurate_for_vectors_of_any_norm(dtype, magnitude, weights):
    """In float16, squares overflow above 256, and inverses of the norm overflow below 1.5e-5."""
    layer = L2Norm(64).to(dtype if weights == "half" else weights)
    x = (magnitude * torch.randn(2, 64, 3, 3)).to(dtype).requires_grad_()
    out = layer(x)
    assert out.dtype == (dtype if weights == "half" else torch.float32)
    expected = x.double() / (x.double().square().sum(1, keepdim=True) + 1e-10).sqrt() * 10
    torch.testing.assert_close(out.double(), expected, atol=0.03, rtol=0.02)
    out.float().square().sum().backward()
    assert layer.scale.grad.isfinite().all()
    if (
        magnitude != 1e-7
    ):  # the gradient there is 1e6, which float16 cannot represent; the gradient scaler of 16-mixed skips such steps
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])  # of a wider range
@pytest.mark.parametrize(("backbone", "task", "head"), CASES)
def test_predictions_and_gradients_are_finite(backbone, task, head, dtype):
    outputs = None if TASKS[task].head_input == "tokens" else 4
    small = {"channels": 32} if head == "upernet" else {}
    net = spine.create_model(
        backbone, variant="micro", task=task, head=head, num_outputs=outputs, image_size=32, head_options=small
    ).train()
    for image in (torch.zeros(2, 3, 32, 32), 20 * torch.randn(2, 3, 32, 32)):
        arguments = [image]
        if isinstance(net, MaskedModel):
            arguments.append(torch.arange(net.grid[0] * net.grid[1]).expand(2, -1) % 4 > 0)
        with torch.autocast("cpu", dtype):
            out = net(*arguments)
        out = TrainingOutputs.of(out).output
        assert out.isfinite().all()
    out.float().square().mean().backward()  # of the bright image; for constant inputs each norm multiplies gradients by 1 / sqrt(eps)
    assert not [name for name, p in net.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]


def test_every_head_is_tested():
    assert {head for _, _, head in CASES} == set(modules("head"))
    assert all(head_class(head).reads == TASKS[task].head_input for _, task, head in CASES)
