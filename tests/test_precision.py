"""What trainer.precision=auto stands for on each kind of device."""

import pytest
import torch

from spine.training import precision

NO_BF16 = {"avx2": True, "avx512_bf16": False, "amx_bf16": False, "architecture": "x86_64"}


@pytest.fixture
def machine(monkeypatch):
    """A machine with the given CPU capabilities and, where `gpu` is a compute capability, such a GPU; or Apple's."""

    def build(cpu=NO_BF16, gpu=None, mps=False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
        # as torch answers: with emulation every GPU supports bfloat16
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or gpu >= (8, 0)
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return build


def test_a_precision_that_is_named_stays(machine):
    machine(gpu=(9, 0))
    for wanted in ("32-true", "16-mixed", "bf16-true"):
        assert precision.resolve_precision(wanted, "auto") == wanted


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((9, 0), "bf16-mixed"), ((8, 0), "bf16-mixed"), ((7, 5), "16-mixed"), ((7, 0), "16-mixed"), ((6, 1), "32-true")],
)
@pytest.mark.parametrize("accelerator", ["auto", "gpu", "cuda"])
def test_gpus_without_bfloat16_do_not_emulate_it(machine, capability, expected, accelerator):
    machine(gpu=capability)
    assert precision.resolve_precision("auto", accelerator) == expected


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_processors_are_asked_for_bfloat16(machine, name):
    machine(cpu=NO_BF16)
    assert precision.resolve_precision("auto", "auto") == "32-true"
    machine(cpu={**NO_BF16, name: True})
    assert precision.resolve_precision("auto", "auto") == "bf16-mixed"


def test_the_accelerator_in_use_decides_not_the_best_one_there_is(machine):
    machine(cpu=NO_BF16, gpu=(9, 0))
    assert precision.resolve_precision("auto", "cpu") == "32-true"
    machine(cpu={**NO_BF16, "avx512_bf16": True}, gpu=(6, 1))
    assert precision.resolve_precision("auto", "cpu") == "bf16-mixed"
    assert precision.resolve_precision("auto", "gpu") == "32-true"


@pytest.mark.parametrize("accelerator", ["auto", "gpu", "mps"])
def test_apple_gpus_compute_in_float32(machine, accelerator):
    machine(cpu={**NO_BF16, "bf16": True}, mps=True)
    assert precision.resolve_precision("auto", accelerator) == "32-true"


def test_this_machine_has_an_answer():
    assert precision.resolve_precision("auto", "cpu") in ("bf16-mixed", "32-true")


@pytest.mark.parametrize(("resolved", "expected"), [("bf16-mixed", "high"), ("16-mixed", "high"), ("32-true", "highest")])
def test_float32_products_use_tf32_in_mixed_runs_alone(resolved, expected):
    before = torch.get_float32_matmul_precision()
    try:
        precision.set_float32_precision(resolved)
        assert torch.get_float32_matmul_precision() == expected
    finally:
        torch.set_float32_matmul_precision(before)
