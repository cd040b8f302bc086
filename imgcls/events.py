"""What a training run reports while it runs: frozen events of plain numbers, and how often.

Knows neither tensors nor terminals; the engine emits these, the command line draws them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imgcls.schema import Choice, Finding, ModelCard

REPORT_SECONDS = 0.2  # between two `Stepped`


@dataclass(frozen=True)
class Started:
    """Everything is built; training is about to begin."""

    device: Choice[str]
    card: ModelCard
    parameters: int
    trainable: int
    images: dict[str, int]  # split -> number of images
    validation: str  # where those of "val" come from, with their number; "" without any
    source: str
    recipe: str
    choices: tuple[Choice[Any], ...]
    out: str | None  # None with --dry-run
    first_epoch: int  # counts from 1; above 1 when resuming
    steps_done: int  # optimizer steps of that epoch; above 0 when it was stopped in the middle
    epochs: int


@dataclass(frozen=True)
class Found:
    """A finding about the data or the run."""

    finding: Finding


@dataclass(frozen=True)
class Said:
    """A sentence the user should see."""

    text: str
    warning: bool = False


@dataclass(frozen=True)
class Stepped:
    """Progress within an epoch; emitted a few times a second at most."""

    epoch: int
    phase: str  # "decoding" or "features" (epoch 0), "train" or "val"
    batch: int  # batches done
    batches: int
    loss: float | None  # mean since the epoch began
    images_per_second: float


@dataclass(frozen=True)
class EpochEnded:
    """One line of `metrics.jsonl`."""

    metrics: dict[str, Any]
    epochs: int
    best: bool
    weights_missing: bool  # pretrained weights were wanted and could not be had


@dataclass(frozen=True)
class Finished:
    """How a run ended: what `train` returns."""

    card: ModelCard  # of the best checkpoint
    out: str | None
    best: str | None  # path of best.pt
    linked: str | None  # ./best.pt when it was pointed at the run
    epochs_run: int
    seconds: float
    reason: str  # why it ended: "all epochs", "early stop", "already finished" or "dry run"
    epochs: int = 0  # of the run so far
    best_epoch: int = 0  # of these; another than the card's where its checkpoint was lost
    stopped_early: bool = False  # now, or when it finished


Event = Started | Found | Said | Stepped | EpochEnded
Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """Report to nobody."""


class Pace:
    """When a loop should report again, and how fast it is.

    Args:
        seconds: between two reports; below 0 each is due.
        clock: gives seconds.
    """

    def __init__(self, seconds: float = REPORT_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._began = self._reported = clock()

    def due(self, done: bool = False) -> bool:
        """Tell whether to report now: `REPORT_SECONDS` after the last time, and when all is done."""
        now = self._clock()
        if not done and now - self._reported <= self._seconds:
            return False
        self._reported = now
        return True

    @property
    def seconds(self) -> float:
        """The time since the beginning; more than 0, to be divided by."""
        return max(1e-9, self._clock() - self._began)

    def rate(self, images: int) -> float:
        """Return images per second since the beginning."""
        return images / self.seconds
