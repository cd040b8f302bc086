"""Adds up what an epoch learns, and says a few times a second how far it is; else nothing leaves the device."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch

from imgcls.data.batch import Loader
from imgcls.engine.learn.learner import Learner
from imgcls.engine.learn.window import Window, images_of
from imgcls.engine.run.diagnosis import diverged
from imgcls.errors import DivergedError
from imgcls.events import Pace, Report, Said, Stepped

BATCHES_TO_ESTIMATE = 20  # after which the time of a run on a CPU is foreseen
SKIPPED = 20  # steps in a row that fp16's scaler leaves out are too many; a few are how it finds its scale

NEVER = 2**62  # a step that no run reaches


class Meter:
    """The sums of one epoch, of the loss and of right answers: of this process, float64, in the order of the steps.

    Attributes:
        steps: optimizer steps of the epoch done.
        clock: seconds.
    """

    def __init__(
        self,
        learner: Learner,
        loader: Loader,
        report: Report,
        within: dict[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin an epoch, or go on with one.

        Args:
            learner: whose steps are named when the loss is no number.
            loader: of the training images.
            report: receives progress.
            within: what `state_dict` gave where the epoch was stopped; None: it begins.
            clock: seconds.
        """
        self._run, self._learner, self._loader = learner.run, learner, loader
        self._batches, self._report = len(loader), report
        self.clock, self._pace = clock, Pace(clock=clock)
        before = within or {"steps": 0, "sums": None, "weight": 0.0, "images": 0, "seconds": 0.0, "waited": 0.0}
        self.steps: int = before["steps"]
        own: list[float] = before["sums"][self._run.world.rank] if before["sums"] else [0.0, 0.0]
        self._loss, self._right = own
        self._weight, self._images = before["weight"], before["images"]
        self._seconds: float = before["seconds"]
        self._waited, self._waited_now = before["waited"], 0.0
        self._skipped: int = before.get("skipped", 0)
        self._unread: list[torch.Tensor] = []
        self._bad = NEVER
        self._took: float | None = None
        self._done, self._seen, self._estimated = 0, 0, False

    def add(self, window: Window, figures: torch.Tensor) -> None:
        """Add what `Learner.learn` gave for a window, float32 [3]."""
        self._unread.append(figures)
        self._weight += window.weight
        self._images += window.images
        self._seen += window.end - window.start
        self._done, self._waited_now = window.end, window.waiting.seconds
        self.steps += 1

    def tell(self) -> None:
        """Report where the epoch is, when it is time."""
        epoch, config = self._learner.epoch, self._run.config
        if self._pace.due(self._done == self._batches):
            self.read()
            shown = self._loss * self._run.world.size / self._weight
            self._report(Stepped(epoch, "train", self._done, self._batches, shown, self._rate()))
        if self._seen >= BATCHES_TO_ESTIMATE and epoch == 1 and not self._estimated:
            self._estimated = True
            if self._run.device.type == "cpu" and not config.compile and not config.dry_run:
                seconds = self._pace.seconds / self._seen * self._batches * config.epochs
                self._report(Said(f"expected time on this CPU: {_duration(seconds)}"))

    def read(self) -> None:
        """Fetch the figures of the steps since the last call from the device."""
        if not self._unread:
            return
        first = self._learner.step - len(self._unread) + 1
        most = SKIPPED if self._learner.scaler.is_enabled() else 1
        for step, (loss, right, gradient) in enumerate(torch.stack(self._unread).tolist(), start=first):
            self._loss += loss
            self._right += right
            self._skipped = 0 if math.isfinite(gradient) else self._skipped + 1
            if not math.isfinite(loss) or self._skipped >= most:
                self._bad = min(self._bad, step)
        self._unread.clear()

    @property
    def all_steps(self) -> int:
        """How many optimizer steps the epoch has."""
        return -(-self._batches // self._run.config.accumulate)

    @property
    def is_finite(self) -> bool:
        """Whether what was read is of numbers."""
        return self._bad == NEVER

    def check(self) -> None:
        """Stop all processes, which must all call this, where the loss or the gradient of any is no number.

        Raises:
            DivergedError: naming the first such step and its images.
        """
        self.read()
        run, epoch = self._run, self._learner.epoch
        bad = -int(run.world.most(torch.tensor([-self._bad], device=run.device)).item())
        if bad == NEVER:
            return
        window = bad - 1 - (self._learner.step - self.steps)
        names = images_of(run, self._loader, epoch, window)
        raise DivergedError(diverged(run, epoch, bad, names), bad, names)

    def epoch(self) -> dict[str, Any]:
        """Return train_loss, train_acc (None when labels are mixed) and images_per_second, all of all processes.

        And data_wait, the share of the time that this process waited for images.

        Raises:
            DivergedError: as `check`.
        """
        self.check()
        self._took = self.seconds
        loss, right = (sum(values) for values in zip(*self._sums(), strict=True))
        return {
            "train_loss": loss / self._weight,
            "train_acc": None if self._run.config.mixes_labels else right / self._images,
            "images_per_second": self._rate(),
            "data_wait": (self._waited + self._waited_now) / self.seconds,
        }

    @property
    def seconds(self) -> float:
        """The time that training took in this epoch, before it was stopped too; not that of validation."""
        return self._seconds + self._pace.seconds if self._took is None else self._took

    def state_dict(self) -> dict[str, Any]:
        """Return what is needed to go on with the epoch; all processes must call this."""
        self.read()
        return {
            "epoch": self._learner.epoch,
            "steps": self.steps,
            "sums": self._sums(),
            "weight": self._weight,
            "images": self._images,
            "seconds": self.seconds,
            "waited": self._waited + self._waited_now,
            "skipped": self._skipped,
        }

    def _sums(self) -> list[list[float]]:
        """Return the loss and the right answers of each process."""
        world = self._run.world
        device = self._run.device if world.size > 1 else torch.device("cpu")  # MPS has no float64
        own = torch.tensor([self._loss, self._right], dtype=torch.float64, device=device)
        rows: list[list[float]] = world.gather(own).tolist()
        return rows

    def _rate(self) -> float:
        return float(self._images / self.seconds)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
