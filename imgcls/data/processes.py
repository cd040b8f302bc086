"""Loader processes: deaf to signals, gone when their parent is gone, and watched for signs of life.

torch's DataLoader starts and feeds them, and waits for them without an end: one that is stopped, or that hangs in a
decoder or on a network disk, is noticed here. Knows nothing of images.
"""

from __future__ import annotations

import ctypes
import errno
import signal
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_start_method, resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from imgcls import signals
from imgcls.data.order import Selection
from imgcls.errors import TOO_MANY_FILES, ResourceError

# Looks in a row without a sign of life from any, while a batch is waited for, and seconds between two. They are counted
# because the clock goes on while this process is stopped. torch needs five seconds more; the import of torch, which
# precedes the first sign where processes are not forked, takes minutes on some disks.
SILENT, SILENT_AT_FIRST = 10, 150
LOOK_SECONDS = 2.0
PR_SET_PDEATHSIG = 1  # of Linux's prctl
IDLE = -1


class Signs:
    """What loader processes say of themselves, in memory that all share."""

    def __init__(self, count: int) -> None:
        self._images, self._counts = RawArray("q", [IDLE] * count), RawArray("q", count)

    def at(self, worker: int, index: int) -> None:
        """Say which image is in hand; `IDLE`: none."""
        self._images[worker] = index
        self._counts[worker] += 1

    @property
    def in_hand(self) -> list[int]:
        """The images that they are at."""
        return [index for index in self._images if index != IDLE]

    @property
    def pulse(self) -> int:
        """A number that grows as long as anything is done."""
        return sum(self._counts)


class Signing(Dataset[Any]):
    """A data set that gives signs of life.

    Attributes:
        signs: to be set before the processes start; None: it runs in the main process.
    """

    signs: Signs | None = None

    def at(self, index: int) -> None:
        """Say which image is in hand; `IDLE`: none."""
        info = get_worker_info()
        if self.signs is not None and info is not None:
            self.signs.at(info.id, index)


class EpochSampler(Sampler[Selection]):
    """Whatever selections a DataLoader is to ask for: it keeps its sampler, and asks it anew when an epoch begins."""

    def __init__(self) -> None:
        self.selections: Callable[[], Iterator[Selection]] = lambda: iter(())

    def __iter__(self) -> Iterator[Selection]:
        return self.selections()


class Processes:
    """Loader processes that live on from epoch to epoch, for one epoch at a time."""

    def __init__(
        self, dataset: Signing, count: int, pin_memory: bool, name: Callable[[int], str], fork: bool = False
    ) -> None:
        """Prepare them; they start with the first epoch.

        Args:
            dataset: what they run: a selection in, one batch out.
            count: how many.
            pin_memory: for a CUDA device.
            name: of an image, by its index.
            fork: start them as copies of this process, whose memory they then share.
        """
        self._signs = dataset.signs = Signs(count)
        self._sampler, self._name = EpochSampler(), name
        self._iterator: Any = None
        self._started: list[BaseProcess] = []
        weakref.finalize(self, _kill, self._started)  # Python's own way at its end, SIGTERM, they never hear of
        with _without_advice():
            self._loader = DataLoader(
                dataset,
                sampler=self._sampler,
                batch_size=None,  # a selection is a whole batch
                num_workers=count,
                pin_memory=pin_memory,
                persistent_workers=True,
                worker_init_fn=_begin,
                multiprocessing_context="fork" if fork else None,
                generator=torch.Generator(),  # else every iterator draws from the global generator
            )

    def batches(self, selections: Callable[[], Iterator[Selection]]) -> Iterator[Any]:
        """Yield what they make of selections, in order.

        Raises:
            ResourceError: one died or hangs, or there is no memory or file left to hand a batch over.
        """
        self._sampler.selections = selections
        guard = Guard(self._signs, self._name, self._started)
        try:
            guard.start()
            self._start()
            while True:
                guard.waits = True
                batch = next(self._iterator, None)
                guard.waits = False
                if batch is None:
                    return
                yield batch
        except (RuntimeError, OSError, EOFError) as error:
            if (problem := guard.hangs or _explained(error)) is None:
                raise
            raise ResourceError(problem) from error
        finally:
            guard.over.set()

    def _start(self) -> None:
        """Begin an epoch, and the processes if they are not there yet: none of them ever hears of a signal."""
        before = set(active_children())
        if self._loader.multiprocessing_context is None and get_start_method() != "fork":
            resource_tracker.ensure_running()  # which would undo the blocking
        try:
            with _without_advice(), signals.blocked(), _without_handler():
                self._iterator = iter(self._loader)
        finally:
            self._started += [process for process in active_children() if process not in before]

    def kill(self) -> None:
        """End them at once, in whatever they are doing, and keep torch from waiting for them."""
        iterator, self._iterator = self._iterator, None
        if hasattr(iterator, "_pin_memory_thread"):  # which may be fetching from them just now
            iterator._pin_memory_thread_done_event.set()
            iterator._worker_result_queue.put((None, None))
            iterator._pin_memory_thread.join(6)
        _kill(self._started)
        if iterator is not None:
            iterator._shutdown = True
            torch._C._remove_worker_pids(id(iterator))


class Guard(threading.Thread):
    """Kills loader processes that gave no sign of life for too long; whoever waits for a batch then hears of it.

    Attributes:
        waits: whether a batch, or the processes themselves, are waited for.
        hangs: what is wrong, where it had to kill them.
        over: to be set when the epoch is over.
    """

    def __init__(self, signs: Signs, name: Callable[[int], str], processes: list[BaseProcess]) -> None:
        """Watch processes that give these signs."""
        super().__init__(daemon=True)
        self._signs, self._name_of, self._processes = signs, name, processes
        self.waits, self.hangs, self.over = True, "", threading.Event()

    def run(self) -> None:
        """Look now and then."""
        pulse, silent = -1, 0
        while not self.over.wait(LOOK_SECONDS):
            before, pulse = pulse, self._signs.pulse
            silent = silent + 1 if self.waits and pulse == before else 0
            if silent >= (SILENT if pulse else SILENT_AT_FIRST):
                at = ", ".join(self._name_of(index) for index in self._signs.in_hand[:3])
                where = f" at {at}" if at else ""
                self.hangs = (
                    f"a loader process hangs{where} (no sign of life for {silent * LOOK_SECONDS:g} s): look at the "
                    "disk, and repeat the line, or type --workers 0"
                )
                _kill(self._processes)
                return


def _begin(worker: int) -> None:
    """Have a loader process hear of no signal, and be killed when its parent ends, in whatever way."""
    for number in signals.BOTH:  # blocked already where it was forked; other ways to start it undo that
        signal.signal(number, signal.SIG_IGN)
    with suppress(AttributeError, OSError):  # not Linux: torch looks every five seconds whether the parent lives
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill(processes: list[BaseProcess]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join(5)  # one that waits for a disk cannot be ended at all


def _explained(error: Exception) -> str | None:
    """Return what to say of an error that came in the place of a batch; None: it is of another kind."""
    text = " ".join(str(error).split())
    if "ancdata" in text or "Too many open files" in text:
        return TOO_MANY_FILES
    if "shared memory" in text:
        return (
            "no room in /dev/shm to hand a batch over: lower --workers or --batch-size, or give the container more, "
            "for example by docker run --shm-size 1g"
        )
    if (isinstance(error, OSError) and error.errno in (errno.EAGAIN, errno.ENOMEM)) or "start new thread" in text:
        return f"no loader process can be started ({text}): lower --workers"
    is_theirs = text.startswith("Caught ")  # what one of them raised, and torch raises again here
    if (
        "DataLoader worker (pid" in text
        or "Pin memory thread" in text
        or (isinstance(error, ConnectionError | EOFError) and not is_theirs)
    ):
        return f"a loader process died ({text or type(error).__name__}): memory may be short; lower --workers"
    return None


@contextmanager
def _without_handler() -> Iterator[None]:
    """Keep torch from raising an error wherever the main process is when a loader process dies.

    It would end a step in the middle. Where a batch is waited for, torch looks every five seconds whether all live.
    """
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        with suppress(ValueError):  # not the main thread, where torch has set none
            signal.signal(signal.SIGCHLD, before)


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence torch about more workers than CPUs; `choose_workers` says it in our words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield
