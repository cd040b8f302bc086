"""Reports come a few times a second and at the end, with the speed since the beginning."""

from __future__ import annotations

import pytest

from imgcls.events import REPORT_SECONDS, Pace


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_report_is_due_after_a_while_and_at_the_end() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert not pace.due()
    clock.now += REPORT_SECONDS
    assert not pace.due()
    clock.now += 0.01
    assert pace.due()
    assert not pace.due(), "the while begins anew"
    assert pace.due(done=True)


def test_every_report_can_be_asked_for() -> None:
    pace = Pace(seconds=-1)
    assert pace.due()
    assert pace.due()


def test_the_rate_is_that_since_the_beginning() -> None:
    clock = Clock()
    pace = Pace(clock=clock)
    assert pace.rate(1) == pytest.approx(1e9), "no time has passed"
    clock.now += 4
    assert pace.due()
    assert (pace.seconds, pace.rate(10)) == (4, 2.5)
