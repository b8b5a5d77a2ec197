"""Resolves `trainer.precision=auto`, and sets the precision of float32 matrix products."""

from __future__ import annotations

import torch

BFLOAT16_ON_CPU = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # torch's names of capabilities of x86 and ARM CPUs
TENSOR_CORES = (7, 0)  # the first compute capability with float16 faster than float32


def resolve_precision(wanted: str, accelerator: str) -> str:
    """Returns the precision for Lightning's Trainer: `wanted`, unless it is "auto".

    "auto" becomes "bf16-mixed" if the device supports bfloat16 natively, "16-mixed" on CUDA GPUs
    with tensor cores but without bfloat16 (V100, T4), otherwise "32-true". `accelerator`:
    trainer.accelerator; "auto" and "gpu" mean the device that Lightning would select.
    """
    if wanted != "auto":
        return wanted
    device = device_type(accelerator)
    if device == "cuda":
        # by default torch also reports emulated bfloat16 as supported, which is slower than float32
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed"
        return "16-mixed" if torch.cuda.get_device_capability() >= TENSOR_CORES else "32-true"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if any(capabilities.get(name, False) for name in BFLOAT16_ON_CPU) else "32-true"
    return "32-true"


def device_type(accelerator: str) -> str:
    """Returns the device type that Lightning uses for `trainer.accelerator`.

    It is cpu, cuda, mps, or the name of another accelerator.
    """
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def set_float32_precision(precision: str) -> None:
    """Allows TF32 in float32 matrix products on CUDA GPUs if the resolved `precision` is mixed.

    In a mixed run most products are computed in 16 bits anyway, and TF32 has at least as many
    mantissa bits. With "32-true", matrix products are computed in float32; convolutions follow the
    default of PyTorch, which is TF32. cudnn.benchmark stays off, because it may select other
    algorithms in the next run, so that the results would not be bit-identical;
    `+trainer.benchmark=true` turns it on.
    """
    torch.set_float32_matmul_precision("high" if precision.endswith("-mixed") else "highest")
