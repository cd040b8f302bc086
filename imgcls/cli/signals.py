"""SIGINT and SIGTERM as an exception, and a second chance where that exception was swallowed.

Python drops an exception that a handler raises inside a destructor or a library's callback; then the signal would be
forgotten, and a command would go on to its end and exit 0.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from imgcls.errors import Interrupted

_caught: list[int] = []


def catch() -> dict[int, Any]:
    """Turn SIGINT and SIGTERM into `Interrupted`; a second one ends the process at once. Returns the old handlers."""
    _caught.clear()

    def interrupt(signum: int, frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        _caught.append(signum)
        raise Interrupted(signum)

    try:
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        return {number: signal.signal(number, interrupt) for number in numbers}
    except ValueError:  # not the main thread
        return {}


def caught() -> int | None:
    """Return the signal that arrived, or None."""
    return _caught[0] if _caught else None


def check() -> None:
    """Raise `Interrupted` again when a signal has arrived; called wherever progress is shown."""
    if _caught:
        raise Interrupted(_caught[0])
