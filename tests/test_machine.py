"""What this process may use, on machines that are made of a few files."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import imgcls.__main__
from imgcls import machine
from imgcls.__main__ import main
from imgcls.machine import available_cpus, free_memory, keep_freed_memory

FREE = 4096 * 1024
JOB = "system.slice/job_1"
Limits = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 CPUs and 4 MiB free, without limits."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    write(tmp_path, {"proc/meminfo": "MemTotal: 9999 kB\nMemAvailable: 4096 kB\n"})
    return tmp_path


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def version_2(root: Path, group: str, name: str = JOB) -> None:
    """Set a limit in a group; this process is in one below `JOB`."""
    write(root, {"proc/self/cgroup": f"1:name=systemd:/\n0::/{JOB}/step_0\n"})
    limit, used, cached, quota = group.split()
    folder = f"sys/fs/cgroup/{name}"
    statistics = f"anon 5\nfile 7\ninactive_file {cached}\n"
    write(root, {f"{folder}/memory.max": f"{limit}\n", f"{folder}/memory.current": f"{used}\n"})
    write(root, {f"{folder}/memory.stat": statistics, f"{folder}/cpu.max": f"{quota} 100000\n"})


def version_1(root: Path, group: str, name: str = JOB) -> None:
    """Set the same limit by the files of version 1, which has a tree for each controller."""
    write(root, {"proc/self/cgroup": f"4:memory:/{JOB}/step_0\n2:cpu,cpuacct:/{JOB}/step_0\n0::/\n"})
    limit, used, cached, quota = group.replace("max", "9223372036854771712", 1).replace("max", "-1").split()
    folder = f"sys/fs/cgroup/memory/{name}"
    statistics = f"inactive_file 0\ntotal_inactive_file {cached}\n"
    write(root, {f"{folder}/memory.limit_in_bytes": limit, f"{folder}/memory.usage_in_bytes": used})
    write(root, {f"{folder}/memory.stat": statistics, f"sys/fs/cgroup/cpu/{name}/cpu.cfs_quota_us": quota})
    write(root, {f"sys/fs/cgroup/cpu/{name}/cpu.cfs_period_us": "100000"})


@pytest.mark.parametrize("limits", [version_1, version_2])
@pytest.mark.parametrize(
    ("group", "free", "cpus"),
    [
        ("300000 100000 0 200000", 200_000, 2),
        ("300000 100000 30000 250000", 230_000, 3),  # file cache makes room for whoever needs it
        ("100000 300000 0 1000", 0, 1),
        ("max 100000 0 max", FREE, 64),
        ("99999999 0 0 9900000", FREE, 64),  # more than there is
    ],
)
def test_no_more_is_used_than_the_groups_allow(root: Path, limits: Limits, group: str, free: int, cpus: int) -> None:
    limits(root, group)
    assert (free_memory(), available_cpus()) == (free, cpus)


@pytest.mark.parametrize("limits", [version_1, version_2])
def test_the_tightest_of_nested_groups_counts(root: Path, limits: Limits) -> None:
    limits(root, "300000 100000 0 800000", "")
    limits(root, "200000 100000 0 400000", JOB)
    limits(root, "250000 100000 0 600000", f"{JOB}/step_0")
    limits(root, "100 100 0 100000", "system.slice/another")
    assert (free_memory(), available_cpus()) == (100_000, 4)


def test_without_linux_half_of_the_memory_that_is_built_in_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert (free_memory(), available_cpus()) == (2_048_000, 8)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
@pytest.mark.parametrize(("kept", "least", "most"), [("keep_freed_memory()", 64, 80), ("", 0, 16)])
def test_freed_memory_is_kept_for_the_next_tensor(kept: str, least: int, most: int) -> None:
    program = f"""
from pathlib import Path
from imgcls.machine import keep_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
{kept}
before = resident()
bytearray(64 << 20)
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert least * 0.9 <= float(done.stdout) <= most


def test_the_command_line_keeps_freed_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(machine, "keep_freed_memory", lambda: kept.append(True))
    monkeypatch.setattr(sys, "argv", ["imgcls", "--version"])
    monkeypatch.setattr(imgcls.__main__, "_end_at_once", lambda code: None)
    with pytest.raises(SystemExit):
        main()
    assert kept


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()


def test_this_machine_has_both() -> None:
    assert free_memory() > 0
    assert available_cpus() >= 1
