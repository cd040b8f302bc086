"""SIGINT and SIGTERM: an exception at once; or a note, where the work at hand is to be saved first.

Python drops an exception that a handler raises inside a destructor or a library's callback; then the signal would be
forgotten, and a command would go on to its end and exit 0. So it is asked for again wherever progress is shown.
"""

from __future__ import annotations

import _thread
import ctypes
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from imgcls.errors import Interrupted

BOTH = (signal.SIGINT, signal.SIGTERM)
# Seconds in which a second signal is the same one again: `timeout` sends it to the process and to its group, torchrun
# hands on to its processes the Ctrl-C that the terminal has sent them already.
ECHO = 1.0

_caught: list[int] = []
_deferring: list[None] = []


def catch() -> dict[int, Any]:
    """Turn SIGINT and SIGTERM into `Interrupted`; a second one ends the process at once. Returns the old handlers."""
    _caught.clear()
    numbers = [number for number in BOTH if signal.getsignal(number) is not signal.SIG_IGN]  # as `nohup` sets it

    def interrupt(signum: int, frame: FrameType | None) -> None:
        _caught.append(signum)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        with suppress(RuntimeError):  # no thread can be started any more
            _thread.start_new_thread(_stop_at_the_next, (numbers,))  # `threading` has locks, perhaps held just now
        if not _deferring:
            raise Interrupted(signum)

    try:
        return {number: signal.signal(number, interrupt) for number in numbers}
    except ValueError:  # not the main thread
        return {}


def _stop_at_the_next(numbers: list[signal.Signals]) -> None:
    """Give the signals their own effect again, after a moment; Python lets none but the main thread do so."""
    time.sleep(ECHO)
    with suppress(AttributeError, OSError, TypeError):
        for number in numbers if _caught else ():
            ctypes.CDLL(None).signal(int(number), int(signal.SIG_DFL))


def release(handlers: dict[int, Any]) -> None:
    """Undo `catch`, with what it returned."""
    _caught.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def caught() -> int | None:
    """Return the signal that arrived, or None."""
    return _caught[0] if _caught else None


def check() -> None:
    """Raise `Interrupted` again when a signal has arrived, unless it is deferred."""
    if _caught and not _deferring:
        raise Interrupted(_caught[0])


@contextmanager
def deferred() -> Iterator[None]:
    """Let a signal that arrives within the block be no more than noted; `caught` tells of it."""
    _deferring.append(None)
    try:
        yield
    finally:
        _deferring.pop()


@contextmanager
def blocked() -> Iterator[None]:
    """Keep both signals from this thread, and for good from the processes that are started within the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
