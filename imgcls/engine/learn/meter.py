"""Adds up what an epoch learns, and says a few times a second how far it is; else nothing leaves the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.window import Window
from imgcls.engine.run.diagnosis import diverged
from imgcls.errors import DivergedError
from imgcls.events import Pace, Report, Said, Stepped

BATCHES_TO_ESTIMATE = 20  # after which the time of a run on a CPU is foreseen


class Meter:
    """The sums of one epoch: of the loss and of right answers, on the device."""

    def __init__(
        self, learner: Learner, batches: int, report: Report, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin an epoch.

        Args:
            learner: whose steps are named when the loss is no number.
            batches: of this epoch.
            report: receives progress.
            clock: seconds.
        """
        self._run, self._learner = learner.run, learner
        self._batches, self._report = batches, report
        self.clock, self._pace = clock, Pace(clock=clock)
        self._sums = torch.zeros(2, device=learner.run.device)
        self._weight, self._images, self._waited = 0.0, 0, 0.0
        self._done, self._seen, self._estimated = 0, 0, False
        self._checked_step = learner.step

    def add(self, window: Window, sums: torch.Tensor) -> None:
        """Add what `Learner.learn` gave for a window, float32 [2]."""
        self._sums += sums
        self._weight += window.weight
        self._images += window.images
        self._seen += window.end - window.start
        self._done, self._waited = window.end, window.waiting.seconds

    def tell(self) -> None:
        """Report where the epoch is, when it is time.

        Raises:
            DivergedError: the loss is NaN or infinite.
        """
        epoch, config = self._learner.epoch, self._run.config
        if self._pace.due(self._done == self._batches):
            loss: float = self._sums[0].item()
            self._check(loss)
            rate = self._pace.rate(self._images)
            shown = loss * self._run.world.size / self._weight
            self._report(Stepped(epoch, "train", self._done, self._batches, shown, rate))
        if self._seen >= BATCHES_TO_ESTIMATE and epoch == 1 and not self._estimated:
            self._estimated = True
            if self._run.device.type == "cpu" and not config.compile and not config.dry_run:
                seconds = self._pace.seconds / self._seen * self._batches * config.epochs
                self._report(Said(f"expected time on this CPU: {_duration(seconds)}"))

    def epoch(self) -> dict[str, Any]:
        """Return train_loss, train_acc (None when labels are mixed) and images_per_second, all of all processes.

        And data_wait, the share of the time that this process waited for images.

        Raises:
            DivergedError: the loss of any process is NaN or infinite; all raise it, and none waits for another.
        """
        loss, right = self._run.world.sum(self._sums).tolist()
        self._check(loss)
        return {
            "train_loss": loss / self._weight,
            "train_acc": None if self._run.config.mixes_labels else right / self._images,
            "images_per_second": self._pace.rate(self._images),
            "data_wait": self._waited / self._pace.seconds,
        }

    def _check(self, loss: float) -> None:
        """Refuse a sum of losses that is no number; the step that made it so is one of those since the last call."""
        if not math.isfinite(loss):
            steps = self._checked_step + 1, self._learner.step
            raise DivergedError(diverged(self._run, self._learner.epoch, *steps))
        self._checked_step = self._learner.step


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
