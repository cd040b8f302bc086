"""Which device to use, with how many threads, and what it can do. Knows no models and no data."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from imgcls.config import parse_device
from imgcls.distributed import world_from_environment
from imgcls.errors import UsageError, counted
from imgcls.machine import WAITS, asked_threads, compute_threads, free_memory
from imgcls.schema import Choice


def choose_device(asked: str, local_rank: int = 0) -> tuple[torch.device, Choice[str]]:
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
                f"--device {asked}: process {number + 1} on this machine finds only {counted(count, 'CUDA device')}; "
                f"start at most {count} processes per machine"
            )
        if number >= count:
            raise UsageError(f"--device {asked}: this machine has {counted(count, 'CUDA device')}; type --device auto")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)  # else pinning and the first collective would use cuda:0
        memory = torch.cuda.get_device_properties(device).total_memory >> 30
        return device, Choice("device", f"{device} ({torch.cuda.get_device_name(device)}, {memory} GiB)", why)
    if kind == "mps" and not has_mps:
        raise UsageError(f"--device {asked}: this machine has no Apple GPU; type --device auto")
    return torch.device(kind), Choice("device", kind, why)


def fit_threads() -> Choice[int]:
    """Let torch compute with no more threads than this process has CPUs, and return how many it has, and why.

    torch starts one for each core that it may run on, whatever share of their time the process gets. What the
    environment asks for stays, and so does a lower number that the program has set.
    """
    number, why = compute_threads(world_from_environment().local_size)
    if asked_threads() is None and number < torch.get_num_threads():
        torch.set_num_threads(number)
    if number != torch.get_num_threads():
        why = f"torch's own limit, not {why}"
    waiting = [f"{name}={os.environ[name]}" for name in WAITS if name in os.environ]
    return Choice("threads", torch.get_num_threads(), "; ".join([why, *waiting]))


def choose_amp(asked: bool | None, device: torch.device) -> tuple[torch.dtype | None, Choice[str]]:
    """Return the autocast type, None for plain float32, with the reason.

    Raises:
        UsageError: asked for on a device other than CUDA.
    """
    if asked and device.type != "cuda":
        raise UsageError(f"--amp needs CUDA, and this runs on {device.type}: drop --amp")
    if device.type != "cuda":
        why = "as asked" if asked is False else f"{device.type} trains best in it"
        return None, Choice("precision", "float32", why)
    if asked is False:
        return None, Choice("precision", "float32, TF32 in training", "as asked; --deterministic turns TF32 off")
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    why = "as asked" if asked else "CUDA"
    if bf16:
        return torch.bfloat16, Choice("precision", "bf16 mixed", why)
    return torch.float16, Choice("precision", "fp16 mixed with a gradient scaler", f"{why}; the GPU has no bf16")


def put(values: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    """Return an array on a device; from pinned memory, because any other copy waits for the GPU."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def free_device_memory(device: torch.device) -> int:
    """Return how many bytes a device has free; of the CPU, main memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()


@contextmanager
def fast_float32(device: torch.device) -> Iterator[None]:
    """Let CUDA train in TF32 and with the convolutions that are fastest when tried; both are off again afterwards."""
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        yield
        return
    _set_tf32(True)
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = False
        _set_tf32(False)


def full_float32() -> None:
    """Turn TF32 off: validation, evaluate and predict give float32 answers."""
    _set_tf32(False)


def _set_tf32(allowed: bool) -> None:
    # The newer `fp32_precision` settings are no choice: where one of cuDNN's is set, torch.export fails (torch 2.15).
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some versions call these deprecated
        torch.backends.cudnn.allow_tf32 = allowed
        torch.backends.cuda.matmul.allow_tf32 = allowed


def make_deterministic() -> None:
    """Allow deterministic algorithms only; on CUDA this needs a setting that must precede its first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
