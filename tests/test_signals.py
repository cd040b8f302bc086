"""A signal ends a command even where Python drops the exception that its handler raised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from imgcls import signals
from imgcls.errors import Interrupted

SWALLOWED = """
import os, signal
from imgcls.cli import info
from imgcls.cli.app import app

class Careless:
    def __del__(self):
        os.kill(os.getpid(), {signum})
        for _ in range(100):
            pass

def percent(share):
    Careless()
    return "1 %"

info.percent = percent
app(["info", {best!r}])
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_destructor_still_ends_the_process(best: Path, signum: signal.Signals) -> None:
    code = SWALLOWED.format(signum=int(signum), best=str(best))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Exception ignored" in done.stderr, "else this test shows nothing"
    assert done.returncode == -signum


def test_progress_is_a_second_chance() -> None:
    before = signals.catch()
    try:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGTERM)
        assert signals.caught() == signal.SIGTERM
        with pytest.raises(Interrupted):
            signals.check()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signals.catch()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert signals.caught() is None
    signals.check()
