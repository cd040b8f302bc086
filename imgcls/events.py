"""What a training run reports while it runs: frozen events of plain numbers.

Knows neither tensors nor terminals; the engine emits these, the command line draws them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imgcls.schema import Choice, Finding, ModelCard

REPORT_SECONDS = 0.2  # between two `Stepped`


@dataclass(frozen=True)
class Started:
    """Everything is built; training is about to begin."""

    device: Choice
    card: ModelCard
    parameters: int
    trainable: int
    images: dict[str, int]  # split -> number of images
    validation: str  # where those of "val" come from, with their number; "" without any
    source: str
    recipe: str
    choices: tuple[Choice, ...]
    out: str | None  # None with --dry-run
    first_epoch: int  # counts from 1; above 1 when resuming
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
    """The run is over; also what `train` returns."""

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


Event = Started | Found | Said | Stepped | EpochEnded | Finished
Report = Callable[[Event], None]
