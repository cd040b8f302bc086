"""From alternating blocks to the rows of the benchmark's table. Knows nothing of what is measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Block = Callable[[], tuple[float, ...]]
Outcome = list[tuple[float, ...]] | str  # the figures of each pair, or why there are none

HEADER = ("target", "what", "ours", "theirs", "ratio", "spread", "goal", "met")


@dataclass(frozen=True)
class Goal:
    """What the ratio, or our figure where there is nothing to compare it with, must be."""

    sign: Literal["<=", ">="]
    value: float

    def is_met(self, value: float) -> bool:
        return value <= self.value if self.sign == "<=" else value >= self.value

    def __str__(self) -> str:
        return f"{self.sign} {number(self.value)}"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        target: S1, G1, ….
        what: was measured, in words.
        unit: of both figures.
        ours: one figure per pair.
        theirs: likewise; None where the goal is for our figure alone.
        goal: None where a figure is only reported.
    """

    target: str
    what: str
    unit: str
    ours: Sequence[float] | str
    theirs: Sequence[float] | str | None = None
    goal: Goal | None = None

    @property
    def missing(self) -> str | None:
        """Why there is nothing to judge."""
        return next((side for side in (self.ours, self.theirs) if isinstance(side, str)), None)

    def judged(self) -> list[float]:
        """Return what the goal is about: the ratio of each pair, or our figures."""
        if isinstance(self.ours, str) or isinstance(self.theirs, str):
            return []
        if self.theirs is None:
            return list(self.ours)
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        judged = self.judged()
        if not judged:
            return self.missing or "failed: nothing was measured"
        if self.goal is None:
            return "-"
        return "yes" if self.goal.is_met(statistics.median(judged)) else "no"

    @property
    def failed(self) -> bool:
        return self.verdict.startswith("failed")

    def cells(self) -> tuple[str, ...]:
        judged = self.judged()
        is_ratio = bool(judged) and self.theirs is not None
        ratio = f"{statistics.median(judged):.3g}" if is_ratio else "-"
        spread = f"{min(judged):.3g}-{max(judged):.3g}" if judged else "-"
        goal = "-" if self.goal is None else str(self.goal)
        ours, theirs = (_figure(side, self.unit) for side in (self.ours, self.theirs))
        return self.target, self.what, ours, theirs, ratio, spread, goal, self.verdict


def alternate(blocks: Mapping[str, Block | str], pairs: int, *, warm: bool = True) -> dict[str, Outcome]:
    """Run the blocks in turn, again and again; one that fails leaves the turn and the others go on.

    Args:
        blocks: what to run; a string instead says why it is not run.
        pairs: rounds.
        warm: run a round first that does not count: worker processes start, files are read once.
    """
    outcomes: dict[str, Outcome] = {}
    for turn in range(-1 if warm else 0, pairs):
        for name, block in blocks.items():
            outcome = outcomes.setdefault(name, block if isinstance(block, str) else [])
            if isinstance(outcome, str) or isinstance(block, str):
                continue
            try:
                figures = block()
            except Exception as error:
                outcomes[name] = failure(error)
            else:
                outcome += [figures] if turn >= 0 else []
    return outcomes


def figure(outcome: Outcome, column: int = 0) -> list[float] | str:
    """Return one of the figures that a block gives."""
    return outcome if isinstance(outcome, str) else [figures[column] for figures in outcome]


def failure(error: BaseException) -> str:
    reason = " ".join(str(error).replace("|", "/").split())
    return f"failed: {type(error).__name__}: {reason}"[:200]


def markdown(rows: Sequence[Row]) -> str:
    lines = [HEADER, ("---",) * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _figure(side: Sequence[float] | str | None, unit: str) -> str:
    if side is None or isinstance(side, str) or not side:
        return "-"
    return f"{number(statistics.median(side))} {unit}"
