"""A signal ends a command; where work is to be saved first it is only noted, and never forgotten."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


@pytest.fixture
def caught() -> Iterator[None]:
    """Catch signals as the command does."""
    before = signals.catch()
    yield
    signals.release(before)
    assert signals.caught() is None
    signals.check()


@pytest.mark.usefixtures("caught")
def test_progress_is_a_second_chance() -> None:
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.caught() == signal.SIGTERM
    with pytest.raises(Interrupted):
        signals.check()


@pytest.mark.usefixtures("caught")
def test_a_signal_that_is_deferred_is_no_more_than_noted() -> None:
    with signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.caught() == signal.SIGINT
        signals.check()
    with pytest.raises(Interrupted) as raised:
        signals.check()
    assert raised.value.signum == signal.SIGINT


@pytest.mark.usefixtures("caught")
def test_a_signal_that_is_sent_twice_at_once_is_one() -> None:
    """`timeout` sends it to the process and to its group; torchrun hands on what the terminal has sent already."""
    with signals.deferred():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
    assert signals.caught() == signal.SIGTERM


SECOND = """
import os, signal, sys, time
from imgcls import signals
signals.ECHO = 0.2
signals.catch()
with signals.deferred():
    os.kill(os.getpid(), {first})
    time.sleep(0.5)
    print("saving", flush=True)
    os.kill(os.getpid(), {second})
    time.sleep(60)
"""


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(first: signal.Signals, second: signal.Signals) -> None:
    code = SECOND.format(first=int(first), second=int(second))
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-second, "saving\n")
    assert "Traceback" not in done.stderr
    assert time.monotonic() - began < 30


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As `nohup` and a shell's background jobs have it."""
    code = (
        "import os, signal; from imgcls import signals; signals.catch(); os.kill(os.getpid(), signal.SIGINT); print(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "1\n")


def test_a_process_started_while_they_are_blocked_never_hears_of_them() -> None:
    with signals.blocked():
        process = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    time.sleep(0.2)
    for signum in signals.BOTH:
        process.send_signal(signum)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    assert process.wait() == -signal.SIGKILL
