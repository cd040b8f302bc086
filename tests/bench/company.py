"""CPUs that are not ours alone: a control group with a quota of one, and a process that is always busy."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

NO_QUOTA = "no quota can be made here"
PERIOD = "100000"  # microseconds
GROUPS = Path("/sys/fs/cgroup")


@contextmanager
def one_cpu(root: Path = GROUPS) -> Iterator[Path | None]:
    """Make a control group whose processes have together the time of one CPU; None where that is not allowed."""
    is_version_1 = (root / "cpu").is_dir()
    group = root / ("cpu" if is_version_1 else "") / f"imgcls-bench-{os.getpid()}"
    try:
        if not is_version_1:
            with suppress(OSError):  # it may be on
                (root / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
    except OSError:
        yield None
        return
    try:
        yield group if _limited(group, is_version_1) else None
    finally:
        with suppress(OSError):
            time.sleep(1)  # until the loader processes have left it
            group.rmdir()


def _limited(group: Path, is_version_1: bool) -> bool:
    files = (
        {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD} if is_version_1 else {"cpu.max": f"{PERIOD} {PERIOD}"}
    )
    try:
        for name, text in files.items():
            (group / name).write_text(text)
    except OSError:
        return False
    return True


def within(group: Path) -> Sequence[object]:
    """Return the words that run the words after them in a group."""
    return "sh", "-c", 'echo $$ > "$0" && exec "$@"', group / "cgroup.procs"


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one CPU busy for the length of the block."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()
