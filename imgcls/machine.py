"""What this process may use of the machine: processors, main memory, and how its threads share both with others.

Slurm, systemd and containers set their limits by control groups (https://docs.kernel.org/admin-guide/cgroup-v2.html).
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from imgcls.errors import counted

ROOT = Path("/")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc

THREAD_NUMBERS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
WAITS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # how libgomp's threads wait: the number rules where both are set
SPINS = "10000"


def available_cpus() -> int:
    """Return how many CPUs this process may use: those it may run on, or as many as its quota of time is worth."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups("cpu"):
        with suppress(OSError, ValueError):  # no quota: no such file, the word "max", or -1
            if (group / "cpu.max").exists():
                quota, period = (group / "cpu.max").read_text().split()
            else:
                quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if int(quota) > 0:
                cpus = min(cpus, math.ceil(int(quota) / int(period)))
    return cpus


def asked_threads() -> tuple[int, str] | None:
    """Return how many threads the environment asks for, and in which words; None where it does not."""
    for name in THREAD_NUMBERS:
        number = os.environ.get(name, "").partition(",")[0].strip()  # of OpenMP's levels of nesting the first
        if number.isdecimal() and int(number) > 0:
            return int(number), f"{name}={number}"
    return None


def compute_threads(processes: int = 1) -> tuple[int, str]:
    """Return how many threads to compute with, and why: as the environment asks, else one for each CPU.

    Args:
        processes: on this machine that share its CPUs.
    """
    cpus = available_cpus()
    among = f" for {processes} processes" if processes > 1 else ""
    return asked_threads() or (max(1, cpus // processes), f"{counted(cpus, 'CPU')}{among}")


def free_memory() -> int:
    """Return how many bytes of main memory this process may still take: what is free, and what its groups leave."""
    try:
        lines = (ROOT / "proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):  # not Linux
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for group in _groups("memory"):
        for limit, used in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            with suppress(OSError, ValueError, KeyError):  # no limit: no such file, or the word "max"
                room = int((group / limit).read_text()) - int((group / used).read_text())
                free = min(free, room + _file_cache(group))
    return max(0, free)


def keep_freed_memory() -> None:
    """Let glibc's `malloc` keep up to 2 GiB of freed memory, and large blocks too, instead of giving all back.

    A network's activations are freed in each step, and fresh pages are dear. On two virtual cores, float32: training
    of resnet9-half became 1.2 times as fast, of small-cnn 1.6 times, prediction with resnet18 at 224 px 1.3 times.
    Peak memory grew by at most a sixth.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def tune_openmp() -> None:
    """Set for torch, before it is imported, how OpenMP's threads wait; what the user set stays.

    libgomp's threads spin 300,000 times, some 8 ms, before they sleep, on CPUs that others could use. On two cores,
    with its own number and with 10,000 (images/s, medians of 4 to 9), alone and beside two busy processes: steps of
    small-cnn at 32 px 1,619 and 1,771, busy 435 and 691; of resnet18 at 32 px 51 and 53, busy 19 and 24; inference of
    one image at a time by resnet18 at 224 px 36 and 37, busy 4 and 14; of 32 at a time 45 and 44, busy 19 and 23.
    """
    if not any(name in os.environ for name in WAITS):
        os.environ["GOMP_SPINCOUNT"] = SPINS
    if _torchrun_set_one_thread():
        del os.environ["OMP_NUM_THREADS"]  # then each process takes its part of the CPUs


def _torchrun_set_one_thread() -> bool:
    """Tell the OMP_NUM_THREADS=1 of torchrun, which it gives its processes where it was given none, from the user's."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("OMP_NUM_THREADS") != "1":
        return False
    with suppress(OSError):  # not Linux
        given = (ROOT / f"proc/{os.getppid()}/environ").read_bytes()  # as torchrun was started
        return not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in given.split(b"\0"))
    return False


def _file_cache(group: Path) -> int:
    """Return how many of the bytes that a group uses make room for whoever needs them."""
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(counts.get("total_inactive_file", counts["inactive_file"]))  # version 1 counts the groups below apart


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups (versions 2 and 1) that this process is in, innermost first."""
    with suppress(OSError):  # not Linux
        for line in (ROOT / "proc/self/cgroup").read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            top = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
            own = top / name.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))
