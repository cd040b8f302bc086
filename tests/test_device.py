"""Which device is taken, with how many threads, and what is refused; a GPU is imitated where a rule needs one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from imgcls import device as device_module
from imgcls import machine
from imgcls.device import (
    choose_amp,
    choose_device,
    fast_float32,
    fit_threads,
    free_device_memory,
    full_float32,
    make_deterministic,
)
from imgcls.distributed import World
from imgcls.errors import Exit, UsageError
from imgcls.machine import THREAD_NUMBERS, WAITS
from imgcls.schema import Choice

BACKENDS: Any = torch.backends  # whose settings mypy does not know


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "Example GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(total_memory=8 << 30))


def refused(asked: str, local_rank: int = 0) -> str:
    with pytest.raises(UsageError) as caught:
        choose_device(asked, local_rank)
    assert caught.value.exit_code == Exit.USAGE
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_auto_takes_what_this_machine_has() -> None:
    device, choice = choose_device("auto")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device.type == best
    assert str(choice.value).startswith(best)
    assert choice.reason


@pytest.mark.usefixtures("no_gpu")
def test_auto_without_a_gpu_is_the_cpu_and_says_why() -> None:
    device, choice = choose_device("auto")
    assert device == torch.device("cpu")
    assert (choice.value, choice.reason) == ("cpu", "no CUDA or Apple GPU found")


def test_the_cpu_can_be_asked_for() -> None:
    device, choice = choose_device("cpu")
    assert (device, choice.reason) == (torch.device("cpu"), "as asked")


@pytest.mark.usefixtures("two_gpus")
def test_auto_prefers_cuda_and_gives_each_process_its_own() -> None:
    device, choice = choose_device("auto", local_rank=1)
    assert device == torch.device("cuda", 1)
    assert (choice.value, choice.reason) == ("cuda:1 (Example GPU, 8 GiB)", "CUDA found")
    assert choose_device("cuda:1")[0] == torch.device("cuda", 1)


def test_an_apple_gpu_comes_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device, choice = choose_device("auto")
    assert (device.type, choice.reason) == ("mps", "no CUDA, Apple GPU found")


@pytest.mark.parametrize("asked", ["gpu", "", "CPU", "cpu:0", "cuda:x", "cuda:-1", "cuda:²", "auto:1", "mps:0"])
def test_an_unknown_device_is_refused(asked: str) -> None:
    assert refused(asked).startswith(f"--device {asked}: not known")


def test_a_typo_gets_the_nearest_name() -> None:
    assert "did you mean 'cuda'" in refused("cude")


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("asked", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there_is_refused_and_says_what_to_type(asked: str) -> None:
    message = refused(asked)
    assert message.startswith(f"--device {asked}: this machine has")
    assert message.endswith("type --device auto")


@pytest.mark.usefixtures("two_gpus")
def test_a_third_gpu_and_a_third_process_are_refused() -> None:
    assert "this machine has 2 CUDA devices" in refused("cuda:2")
    for asked in ("auto", "cuda"):
        assert "start at most 2 processes per machine" in refused(asked, local_rank=2)


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torch would have by itself on four cores, where nobody set anything."""
    for name in (*THREAD_NUMBERS, *WAITS, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("cpus", "processes", "threads", "why"),
    [
        (1, 1, 1, "1 CPU"),
        (3, 1, 3, "3 CPUs"),
        (4, 1, 4, "4 CPUs"),
        (8, 1, 4, "torch's own limit, not 8 CPUs"),  # one for each core; or the program set it
        (4, 2, 2, "4 CPUs for 2 processes"),
        (1, 2, 1, "1 CPU for 2 processes"),
    ],
)
def test_torch_has_no_more_threads_than_cpus(
    monkeypatch: pytest.MonkeyPatch, cpus: int, processes: int, threads: int, why: str
) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: cpus)
    monkeypatch.setattr(device_module, "world_from_environment", lambda: World(local_size=processes))
    for _ in range(2):
        assert fit_threads() == Choice("threads", threads, why)
        assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("four_threads")
def test_the_number_that_the_environment_asks_for_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_cpus", lambda: 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert fit_threads() == Choice("threads", 4, "OMP_NUM_THREADS=4; OMP_WAIT_POLICY=ACTIVE")
    assert torch.get_num_threads() == 4


# Precision -----------------------------------------------------------------------------------------------------------


def test_mixed_precision_needs_cuda() -> None:
    with pytest.raises(UsageError, match="--amp needs CUDA, and this runs on cpu: drop --amp"):
        choose_amp(True, torch.device("cpu"))


def test_without_cuda_training_is_float32_and_says_why() -> None:
    for asked in (None, False):
        kind, choice = choose_amp(asked, torch.device("cpu"))
        assert (kind, choice.value) == (None, "float32")
    assert choice.reason == "as asked"


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_cuda_trains_in_bf16_where_it_has_it(
    has_bf16: bool, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    kind, choice = choose_amp(None, torch.device("cuda"))
    assert kind == expected
    assert ("no bf16" in choice.reason) is not has_bf16
    assert choose_amp(False, torch.device("cuda"))[0] is None


@pytest.fixture
def precision_restored() -> Iterator[None]:
    owners = (BACKENDS.cudnn, BACKENDS.cuda.matmul)
    before, tried = [owner.allow_tf32 for owner in owners], BACKENDS.cudnn.benchmark
    yield
    BACKENDS.cudnn.benchmark = tried
    for owner, value in zip(owners, before, strict=True):
        owner.allow_tf32 = value


@pytest.mark.usefixtures("precision_restored")
def test_full_float32_turns_tf32_off_in_convolutions_too() -> None:
    """Convolutions have a setting of their own, and another part of the program may have set it before."""
    BACKENDS.cudnn.conv.fp32_precision = "tf32"
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    full_float32()
    assert BACKENDS.cudnn.conv.fp32_precision in ("ieee", "none")
    assert BACKENDS.cuda.matmul.fp32_precision in ("ieee", "none")


@pytest.mark.usefixtures("precision_restored")
def test_a_model_can_be_exported_after_an_evaluation() -> None:
    """torch.export refuses a program that has used the newer settings for cuDNN."""
    full_float32()
    torch.export.export(torch.nn.Conv2d(3, 4, 3), (torch.zeros(2, 3, 8, 8),))


CUDA = torch.device("cuda", 0)


def fast() -> tuple[bool, bool, bool]:
    """Return whether TF32 is on in convolutions and in products, and whether convolutions are tried."""
    return BACKENDS.cudnn.allow_tf32, BACKENDS.cuda.matmul.allow_tf32, BACKENDS.cudnn.benchmark


@pytest.mark.usefixtures("precision_restored")
def test_tf32_is_for_training_on_cuda_only() -> None:
    """Off again afterwards, also when training fails: validation is in float32."""
    full_float32()
    for _ in range(2):
        with fast_float32(CUDA):
            assert fast() == (True, True, True)
        assert fast() == (False, False, False)
    with pytest.raises(KeyError), fast_float32(CUDA):
        raise KeyError
    assert fast() == (False, False, False)


@pytest.mark.usefixtures("precision_restored")
def test_other_devices_and_deterministic_training_do_without_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    full_float32()
    with fast_float32(torch.device("cpu")):
        assert fast() == (False, False, False)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    with fast_float32(CUDA):
        assert fast() == (False, False, False)


def test_deterministic_refuses_other_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    try:
        make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cudnn.benchmark
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


# Memory --------------------------------------------------------------------------------------------------------------


def test_the_memory_of_a_gpu_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 8))
    assert free_device_memory(CUDA) == 5
