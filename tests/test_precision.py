"""Resolves trainer.precision=auto for each kind of device."""

import pytest
import torch

from spine.training import precision

NO_BF16 = {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "architecture": "x86_64"}


@pytest.fixture
def machine(monkeypatch):
    """Simulates a machine with the given CPU capabilities, and a CUDA GPU of compute capability `gpu` or an Apple GPU."""

    def build(cpu=NO_BF16, gpu=None, mps=False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
        # as in torch: with emulation every GPU supports bfloat16
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or gpu >= (8, 0)
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return build


def test_an_explicit_precision_is_not_changed(machine):
    machine(gpu=(9, 0))
    for wanted in ("32-true", "16-mixed", "bf16-true"):
        assert precision.resolve_precision(wanted, "auto") == wanted


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "16-mixed"), ((7, 0), "16-mixed"), ((6, 1), "32-true")],
)
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_bfloat16_is_not_emulated_on_gpus_without_it(machine, capability, expected, accelerator):
    machine(gpu=capability)
    assert precision.resolve_precision("auto", accelerator) == expected


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_auto_is_bfloat16_on_cpus_that_support_it(machine, name):
    machine(cpu=NO_BF16)
    assert precision.resolve_precision("auto", "auto") == "32-true"
    machine(cpu={**NO_BF16, name: True})
    assert precision.resolve_precision("auto", "auto") == "bf16-mixed"


def test_auto_depends_on_the_chosen_accelerator(machine):
    machine(cpu=NO_BF16, gpu=(9, 0))
    assert precision.resolve_precision("auto", "cpu") == "32-true"
    machine(cpu={**NO_BF16, "avx512_bf16": True}, gpu=(6, 1))
    assert precision.resolve_precision("auto", "cpu") == "bf16-mixed"
    assert precision.resolve_precision("auto", "gpu") == "32-true"


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "mps"])
def test_auto_is_float32_on_apple_gpus(machine, accelerator):
    machine(cpu={**NO_BF16, "bf16": True}, mps=True)
    assert precision.resolve_precision("auto", accelerator) == "32-true"


def test_auto_is_resolved_on_this_machine():
    assert precision.resolve_precision("auto", "cpu") in ("bf16-mixed", "32-true")


@pytest.mark.parametrize(("resolved", "expected"), [("bf16-mixed", "high"), ("16-mixed", "high"), ("32-true", "highest")])
def test_tf32_is_allowed_in_mixed_precision_only(resolved, expected):
    before = torch.get_float32_matmul_precision()
    try:
        precision.set_float32_precision(resolved)
        assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)
