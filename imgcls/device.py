"""Which device to use, and what it can do. Knows no models and no data."""

from __future__ import annotations

import os
import warnings

import torch

from imgcls.config import parse_device
from imgcls.errors import UsageError
from imgcls.schema import Choice


def choose_device(asked: str, local_rank: int = 0) -> tuple[torch.device, Choice]:
    """Return the device for `--device`, with the reason; `auto` is cuda, then mps, then cpu.

    Args:
        asked: auto, cpu, cuda, cuda:N or mps.
        local_rank: number of this process on its machine; `auto` and `cuda` give each process its own GPU.

    Raises:
        UsageError: an unknown device, or one this machine has not.
    """
    kind, index = parse_device(asked)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    why = "as asked"
    if kind == "auto":
        kind = "cuda" if has_cuda else "mps" if has_mps else "cpu"
        why = {"cuda": "CUDA found", "mps": "no CUDA, Apple GPU found", "cpu": "no CUDA or Apple GPU found"}[kind]
    if kind == "cuda":
        count = torch.cuda.device_count() if has_cuda else 0
        number = local_rank if index is None else index
        if number >= count > 0 and index is None:
            raise UsageError(
                f"--device {asked}: process {number + 1} on this machine finds only {count} CUDA devices; "
                f"start at most {count} processes per machine"
            )
        if number >= count:
            raise UsageError(f"--device {asked}: this machine has {count} CUDA devices; type --device auto")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)  # else pinning and the first collective would use cuda:0
        memory = torch.cuda.get_device_properties(device).total_memory >> 30
        return device, Choice("device", f"{device} ({torch.cuda.get_device_name(device)}, {memory} GiB)", why)
    if kind == "mps" and not has_mps:
        raise UsageError(f"--device {asked}: this machine has no Apple GPU; type --device auto")
    label = f"cpu ({torch.get_num_threads()} threads)" if kind == "cpu" else kind
    return torch.device(kind), Choice("device", label, why)


def choose_amp(asked: bool | None, device: torch.device) -> tuple[torch.dtype | None, Choice]:
    """Return the autocast type, None for plain float32, with the reason.

    Raises:
        UsageError: asked for on a device other than CUDA.
    """
    if asked and device.type != "cuda":
        raise UsageError(f"--amp needs CUDA, and this runs on {device.type}: drop --amp")
    if device.type != "cuda" or asked is False:
        why = "as asked" if asked is False else f"{device.type} trains best in it"
        return None, Choice("precision", "float32", why)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    why = "as asked" if asked else "CUDA"
    if bf16:
        return torch.bfloat16, Choice("precision", "bf16 mixed", why)
    return torch.float16, Choice("precision", "fp16 mixed with a gradient scaler", f"{why}; the GPU has no bf16")


def full_float32() -> None:
    """Turn TF32 off: validation, evaluate and predict give float32 answers."""
    # The newer `fp32_precision` settings are no choice: where one of cuDNN's is set, torch.export fails (torch 2.15).
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions call these deprecated
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False


def make_deterministic() -> None:
    """Allow deterministic algorithms only; on CUDA this needs a setting that must precede its first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
