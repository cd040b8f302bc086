"""The learning rate as a function of the optimizer step: nothing to save or restore."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PLATEAU_PATIENCE = 3  # epochs


@dataclass(frozen=True)
class Schedule:
    """A learning rate over a whole run.

    Attributes:
        name: cosine, onecycle (the shape of torch's OneCycleLR), step, plateau or constant.
        peak: the highest learning rate.
        steps: optimizer steps of the whole run.
        warmup: steps of linear warm-up.
    """

    name: str
    peak: float
    steps: int
    warmup: int

    def lr(self, step: int, drops: int = 0) -> float:
        """Return the learning rate of an optimizer step.

        Args:
            step: counts from 0.
            drops: how often a plateau was met, for "plateau".
        """
        return self.peak * self._factor(step, drops)

    def _factor(self, step: int, drops: int) -> float:
        if self.name == "onecycle":
            return _one_cycle(step, self.steps)
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))
        if self.name == "step":
            return 1.0 if step < self.steps / 2 else 0.1 if step < self.steps * 3 / 4 else 0.01
        return 0.1**drops if self.name == "plateau" else 1.0


def plateau_drops(scores: Sequence[tuple[float, float]]) -> int:
    """Return how many plateaus these epochs met: `PLATEAU_PATIENCE` in a row without a new best (higher is better)."""
    drops, waited, best = 0, 0, (-math.inf, -math.inf)
    for score in scores:
        waited = 0 if score > best else waited + 1
        best = max(best, score)
        if waited == PLATEAU_PATIENCE:
            drops, waited = drops + 1, 0
    return drops


def _one_cycle(step: int, steps: int, start: float = 1 / 25, end: float = 1 / 25e4) -> float:
    if steps == 1:
        return 1.0
    peak = 0.3 * steps - 1
    if step <= peak:
        return _between(start, 1.0, step / peak)
    return _between(1.0, end, (step - peak) / max(1e-9, steps - 1 - peak))


def _between(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, part))))
