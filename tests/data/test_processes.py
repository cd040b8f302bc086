"""Loader processes that die, hang, or find no room: one line soon, and none of them is left."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loading import STANDARD, listing, loader

from imgcls.data import processes
from imgcls.data.batch import Batch
from imgcls.data.files import FileLoader
from imgcls.data.images import ArrayImages
from imgcls.errors import TOO_MANY_FILES, ResourceError
from imgcls.pixels.decode import Pixels


class Reluctant(ArrayImages):
    """Pictures of which each takes its time, and one all time."""

    slow, stuck_at = 0.0, -1

    def load(self, index: int, shorter: int | None = None) -> Pixels:
        time.sleep(1000 if index == self.stuck_at else self.slow)
        return super().load(index, shorter)


class Slow(Reluctant):
    slow = 0.3


class Stuck(Reluctant):
    stuck_at = 5


def of(kind: type[ArrayImages], workers: int = 2, count: int = 8, batch_size: int = 4) -> FileLoader:
    """Return batches of such pictures."""
    images = kind.of("drawn", np.zeros((count, 16, 16, 3), dtype=np.uint8))
    return loader(replace(listing(count), images=images), batch_size, STANDARD, workers=workers)


# torch's iterator complains when it goes and had been made in part only.
PARTLY_MADE = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Started = Callable[[], list[BaseProcess]]


@pytest.fixture(autouse=True)
def started() -> Iterator[Started]:
    """Tell which processes the test has started, of which none may be left; loaders of other tests may rest."""
    before = set(multiprocessing.active_children())
    yield lambda: [process for process in multiprocessing.active_children() if process not in before]
    deadline = time.monotonic() + 10
    while (left := set(multiprocessing.active_children()) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOOK_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_process_that_hangs_is_noticed_and_the_image_is_named() -> None:
    """Within 30 s, in a test within 1 s."""
    batches = of(Stuck)
    began = time.monotonic()
    with pytest.raises(
        ResourceError, match=r"^a loader process hangs at drawn/000005 \(no sign of life for 1 s\): look"
    ):
        list(batches.epoch(1))
    assert time.monotonic() - began < 8


@pytest.mark.usefixtures("impatient")
def test_a_process_that_is_slow_does_not_hang() -> None:
    """A batch of it takes twice as long as one may go without a sign of life; then nobody waits for one for longer."""
    batches = of(Slow, count=16, batch_size=8)
    found = batches.epoch(1)
    sizes = [len(next(found).labels)]
    time.sleep(2.5)
    assert [*sizes, *(len(batch.labels) for batch in found)] == [8, 8]


@pytest.mark.usefixtures("impatient")
def test_a_process_that_is_stopped_between_two_epochs_is_noticed(started: Started) -> None:
    batches = of(ArrayImages, workers=1)
    list(batches.epoch(1))
    (process,) = started()
    os.kill(process.pid or 0, signal.SIGSTOP)
    with pytest.raises(ResourceError, match=r"^a loader process hangs"):
        list(batches.epoch(2))


@pytest.mark.usefixtures("impatient")
def test_a_process_that_is_stopped_is_noticed(started: Started) -> None:
    found = of(Slow, workers=1, count=40).epoch(1)
    next(found)
    (process,) = started()
    os.kill(process.pid or 0, signal.SIGSTOP)
    with pytest.raises(ResourceError, match=r"^a loader process hangs"):
        list(found)


def test_a_process_that_is_killed_is_noticed_where_its_batch_is_waited_for(started: Started) -> None:
    """And nowhere else: torch would raise in the middle of a step."""
    found = of(Slow, workers=1, count=40).epoch(1)
    next(found)
    (process,) = started()
    process.kill()
    process.join()
    time.sleep(0.1)
    with pytest.raises(ResourceError, match=r"^a loader process died \(.*\): memory may be short; lower --workers"):
        list(found)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_reaches_a_loader_process_changes_nothing(started: Started, signum: signal.Signals) -> None:
    found = of(Slow).epoch(1)
    first = next(found)
    for process in started():
        os.kill(process.pid or 0, signum)
    assert len(first.labels) + sum(len(batch.labels) for batch in found) == 8


def test_an_epoch_that_is_left_in_the_middle_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = of(Stuck, count=40)
    monkeypatch.setattr(Stuck, "stuck_at", int(batches.order.of(1)[5]))
    found = batches.epoch(1)
    next(found)
    time.sleep(0.3)  # the second batch is in hand now
    began = time.monotonic()
    found.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 2, "nobody waits for the image that hangs"


PROGRAM = """
import multiprocessing, sys
from test_processes import Slow, of
found = of(Slow, count=400).epoch(1)
next(found)
print(*(process.pid for process in multiprocessing.active_children()), flush=True)
list(found)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch looks every five seconds")
def test_processes_never_outlive_their_parent() -> None:
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    parent = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": folders}
    )
    assert parent.stdout is not None
    children = [int(word) for word in parent.stdout.readline().split()]
    assert len(children) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 2
    while (left := [pid for pid in children if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left
    parent.stdout.close()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def raising(error: Exception) -> Callable[[Any], Any]:
    def call(_: Any) -> Any:
        raise error

    return call


def test_no_room_to_hand_a_batch_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch says it where /dev/shm is too small; its own thread would say it to nobody, and all would wait."""
    problem = "unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)"
    monkeypatch.setattr(Batch, "share_memory", raising(RuntimeError(problem)))
    with pytest.raises(ResourceError, match=r"^no room in /dev/shm .* docker run --shm-size 1g$"):
        list(of(ArrayImages).epoch(1))


@PARTLY_MADE
def test_too_many_open_files() -> None:
    """Of this process, where the second loader process cannot be started any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = {int(name) for name in os.listdir("/proc/self/fd")}
    limit = [number for number in range(soft) if number not in opened][10]  # so that ten are left
    batches = of(ArrayImages, workers=4, count=16)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        with pytest.raises(ResourceError) as caught:
            list(batches.epoch(1))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert str(caught.value) == TOO_MANY_FILES
    del caught
    gc.collect()


@PARTLY_MADE
def test_no_more_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fork)
    with pytest.raises(ResourceError, match=r"^no loader process can be started \(.*\): lower --workers$") as caught:
        list(of(ArrayImages).epoch(1))
    del caught
    gc.collect()


@pytest.mark.parametrize("error", [RuntimeError("a bug"), EOFError("a bug")], ids=["RuntimeError", "EOFError"])
def test_a_mistake_of_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(Batch, "share_memory", raising(error))
    with pytest.raises(type(error), match="a bug"):
        list(of(ArrayImages).epoch(1))
