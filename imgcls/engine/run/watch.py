"""After each step: is it time to save, or to stop? All processes decide it together.

Signals are only noted while training goes on (`signals.deferred`), so that they are answered here, between two steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from imgcls import signals
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.meter import Meter
from imgcls.engine.run.history import Row
from imgcls.engine.run.run import Run
from imgcls.engine.run.saving import NoSaver, Saver
from imgcls.errors import ImgclsError, Interrupted, TimeLimitError
from imgcls.events import Report, Said

LOOK_SECONDS = 1.0  # between two agreements of several processes; each costs them a small exchange
MOST_APART = 1000  # steps between two of them

Item = TypeVar("Item")


@dataclass(frozen=True)
class Verdict:
    """What all processes agree on.

    Attributes:
        signum: of a signal that any of them got; 0: none.
        time_is_up: `--time-limit` is over.
        save: `--save-every` is over.
        diverged: a loss or a gradient of any is no number.
    """

    signum: int = 0
    time_is_up: bool = False
    save: bool = False
    diverged: bool = False


class Watch:
    """Watches the clock and the signals of a run."""

    def __init__(
        self,
        run: Run,
        saver: Saver | NoSaver,
        report: Report,
        began: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to watch.

        Args:
            run: its limits and processes.
            saver: of this process.
            report: is told what was saved.
            began: when the command began, by `clock`.
            clock: seconds.
        """
        self._run, self._saver, self._report, self._clock = run, saver, report, clock
        limit = run.config.time_limit
        self._end = began + 60 * limit if limit is not None else float("inf")
        self._saved = clock()
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Agree at the next call: what comes now takes another time for each step than what was before."""
        self._looked, self._since, self._apart = self._clock(), 0, 1  # calls since the last agreement, and between two

    def begin(self, learner: Learner, history: Sequence[Row], meter: Meter) -> None:
        """Watch an epoch.

        Args:
            learner: whose weights are saved.
            history: the epochs before.
            meter: of this one.
        """
        self._learner, self._history, self._meter = learner, history, meter
        self._begin_anew()

    def after_step(self) -> None:
        """Save or stop, if it is time.

        Raises:
            Interrupted, TimeLimitError: everything is saved.
            DivergedError: nothing of it is saved.
        """
        verdict = self._agreed(self._meter)
        if verdict.diverged:
            self._meter.check()
        if verdict.save or verdict.time_is_up or verdict.signum:
            self._save()
        if verdict.time_is_up or verdict.signum:
            self._say_saved(f"after step {self._meter.steps} of {self._meter.all_steps}")
        self._stop(verdict)

    def after_epoch(self) -> None:
        """Stop, if it is time, where the epoch was saved just now.

        Raises:
            Interrupted, TimeLimitError: everything is saved.
        """
        self._saved = self._clock()
        self._begin_anew()
        self._stop(self._agreed())

    def rescue(self) -> None:
        """Save what was learnt before the images failed, if no step was broken off.

        Of one process: others may be in the middle of an exchange, and know nothing of it.
        """
        if self._run.world.size == 1 and self._meter.steps and self._learner.is_between_steps:
            with suppress(ImgclsError):  # what is said is why the run failed
                self._save()
                self._say_saved(f"after step {self._meter.steps} of {self._meter.all_steps}")

    def over(self, batches: Iterable[Item]) -> Iterator[Item]:
        """Yield the batches of a validation; a signal ends it, and it is repeated when the run goes on.

        Raises:
            Interrupted: the epoch is saved.
        """
        self._begin_anew()
        for batch in batches:
            yield batch
            verdict = self._agreed()
            if verdict.signum:
                self._save()
                self._say_saved("and not yet validated")
                raise Interrupted(verdict.signum)

    def _agreed(self, meter: Meter | None = None) -> Verdict:
        """Return what is to be done now, in all processes the same."""
        now, world, config = self._clock(), self._run.world, self._run.config
        self._since += 1
        if self._since < self._apart:
            return Verdict()
        if world.size > 1 and meter is not None:
            meter.read()
        values = [
            signals.caught() or 0,
            int(world.is_main and now >= self._end),
            int(world.is_main and now >= self._saved + 60 * config.save_every),
            int(meter is not None and not meter.is_finite),
        ]
        if world.size > 1:
            apart = round(self._since * LOOK_SECONDS / max(now - self._looked, 1e-3))
            values.append(max(1, min(MOST_APART, apart)) if world.is_main else 0)
            *values, self._apart = world.most(torch.tensor(values, device=self._run.device)).tolist()
        self._since, self._looked = 0, now
        return Verdict(values[0], *map(bool, values[1:]))

    def _save(self) -> None:
        self._meter.check()
        self._saver.save_within(self._learner, self._history, self._meter.state_dict())
        self._run.world.wait()  # for the first: torchrun ends all as soon as one of them is gone
        self._saved = self._clock()

    def _say_saved(self, how_far: str) -> None:
        self._report(Said(f"epoch {self._learner.epoch}: saved {how_far}"))

    def _stop(self, verdict: Verdict) -> None:
        if verdict.signum:
            raise Interrupted(verdict.signum)
        if verdict.time_is_up:
            limit = self._run.config.time_limit
            raise TimeLimitError(f"--time-limit {limit:g}: the time is up")
