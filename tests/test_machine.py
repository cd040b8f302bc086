"""What this process may use, and how many threads that is worth, on machines that are made of a few files."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import imgcls.__main__
from imgcls import machine
from imgcls.__main__ import main
from imgcls.machine import (
    SPINS,
    THREAD_NUMBERS,
    WAITS,
    asked_threads,
    available_cpus,
    compute_threads,
    free_memory,
    keep_freed_memory,
    tune_openmp,
)

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


# Threads -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*THREAD_NUMBERS, *WAITS, "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "")  # restores the variable, too, where there was none and `tune_openmp` sets it
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize("limits", [version_1, version_2])
@pytest.mark.parametrize(
    ("quota", "processes", "threads", "why"),
    [
        ("100000", 1, 1, "1 CPU"),
        ("250000", 1, 3, "3 CPUs"),
        ("max", 1, 64, "64 CPUs"),
        ("max", 4, 16, "64 CPUs for 4 processes"),
        ("300000", 2, 1, "3 CPUs for 2 processes"),
        ("100000", 8, 1, "1 CPU for 8 processes"),
    ],
)
def test_there_is_a_thread_for_each_cpu_that_the_process_has(
    root: Path, limits: Limits, quota: str, processes: int, threads: int, why: str
) -> None:
    limits(root, f"300000 100000 0 {quota}")
    assert compute_threads(processes) == (threads, why)


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"OMP_NUM_THREADS": "3"}, (3, "OMP_NUM_THREADS=3")),
        ({"MKL_NUM_THREADS": "5"}, (5, "MKL_NUM_THREADS=5")),
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "5"}, (3, "OMP_NUM_THREADS=3")),
        ({"OMP_NUM_THREADS": "4,2"}, (4, "OMP_NUM_THREADS=4")),
        ({"OMP_NUM_THREADS": ""}, None),
        ({"OMP_NUM_THREADS": "many", "MKL_NUM_THREADS": "0"}, None),
    ],
    ids=str,
)
def test_the_number_of_threads_that_the_user_set_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], found: tuple[int, str] | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert asked_threads() == found
    assert compute_threads(2) == (found or (32, "64 CPUs for 2 processes"))


TORCH = find_spec("torch")
LIBGOMP = Path(str(TORCH.origin if TORCH else ""), "../lib/libgomp.so.1").resolve()


@pytest.mark.skipif(not LIBGOMP.is_file(), reason="torch brings no libgomp")
@pytest.mark.parametrize(
    ("environment", "spins"),
    [
        ({}, SPINS),
        ({"GOMP_SPINCOUNT": "123"}, "123"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "0"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("nothing_set")
def test_torchs_openmp_reads_how_long_to_spin(environment: dict[str, str], spins: str) -> None:
    """What the library says of itself, and what the user set stays."""
    program = f"import ctypes; from imgcls.machine import tune_openmp; tune_openmp(); ctypes.CDLL({str(LIBGOMP)!r})"
    asked = os.environ | environment | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr


@pytest.mark.usefixtures("nothing_set")
@pytest.mark.parametrize(
    ("started_with", "number", "left"),
    [
        ("HOME=/\0", "1", None),
        ("HOME=/\0OMP_NUM_THREADS=1\0", "1", "1"),  # the user's
        ("HOME=/\0", "2", "2"),  # not torchrun's
        (None, "1", "1"),  # cannot be told
    ],
)
def test_the_one_thread_that_torchrun_sets_is_not_the_users(
    root: Path, monkeypatch: pytest.MonkeyPatch, started_with: str | None, number: str, left: str | None
) -> None:
    if started_with is not None:
        write(root, {f"proc/{os.getppid()}/environ": started_with})
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    tune_openmp()
    assert os.environ["OMP_NUM_THREADS"] == number, "not under torchrun"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    tune_openmp()
    assert os.environ.get("OMP_NUM_THREADS") == left


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


@pytest.mark.parametrize("name", ["keep_freed_memory", "tune_openmp"])
def test_the_command_line_tunes_its_process(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    kept: list[bool] = []
    for each in ("keep_freed_memory", "tune_openmp"):
        monkeypatch.setattr(machine, each, (lambda: kept.append(True)) if each == name else (lambda: None))
    monkeypatch.setattr(sys, "argv", ["imgcls", "--version"])
    monkeypatch.setattr(imgcls.__main__, "_end_at_once", lambda code: None)
    with pytest.raises(SystemExit):
        main()
    assert kept


@pytest.mark.parametrize("library", [object(), None])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    keep_freed_memory()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_this_machine_gives_what_it_has() -> None:
    """A process that may run on one CPU alone has one, and no more memory than is built in."""
    program = """
import os
from imgcls.machine import available_cpus, free_memory
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
print(available_cpus(), free_memory())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    cpus, free = map(int, done.stdout.split())
    assert cpus == 1
    assert free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert free > 2**26, "the tests themselves need more"
