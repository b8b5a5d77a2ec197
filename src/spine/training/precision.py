"""Number formats of a run: what `trainer.precision=auto` stands for, and how exact float32 is on a GPU."""

from __future__ import annotations

import torch

FAST_ON_CPU = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # capabilities of x86 and ARM processors, as torch names them
TENSOR_CORES = (7, 0)  # the first compute capability whose float16 is faster than its float32


def resolve_precision(wanted: str, accelerator: str) -> str:
    """Lightning's precision for `wanted`, which is returned as it is unless it is "auto".

    `accelerator`: trainer.accelerator, where "auto" and "gpu" stand for what Lightning would pick. "auto" becomes "bf16-mixed" where
    the device computes in bfloat16 itself, "16-mixed" on CUDA GPUs with tensor cores but without bfloat16 (V100, T4), else "32-true".
    """
    if wanted != "auto":
        return wanted
    device = device_type(accelerator)
    if device == "cuda":
        # by default torch counts bfloat16 as supported where it is emulated, slower than float32
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed"
        return "16-mixed" if torch.cuda.get_device_capability() >= TENSOR_CORES else "32-true"
    if device == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return "bf16-mixed" if any(capabilities.get(name, False) for name in FAST_ON_CPU) else "32-true"
    return "32-true"


def device_type(accelerator: str) -> str:
    """The type of device (cpu, cuda, mps, or the accelerator's own name) that Lightning uses for `trainer.accelerator`."""
    if accelerator not in ("auto", "gpu"):
        return accelerator
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def set_float32_precision(precision: str) -> None:
    """Lets float32 matrix products use TF32 on CUDA GPUs where `precision` (resolved) is mixed, and nowhere else.

    In a mixed run most products are computed in 16 bits anyway, and TF32 has at least as many digits. "32-true" stays float32 in matrix
    products; convolutions follow PyTorch's own default, which is TF32. cudnn.benchmark stays off: it may choose other
    algorithms in the next run, which would then not repeat bit for bit; `+trainer.benchmark=true` turns it on.
    """
    torch.set_float32_matmul_precision("high" if precision.endswith("-mixed") else "highest")
