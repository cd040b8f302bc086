"""From alternating blocks to the rows of the benchmark's table. Knows nothing of what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

Block = Callable[[], tuple[float, ...]]
Outcome = list[tuple[float, ...]] | str  # the figures of each pair, or why there are none
Figures = list[float] | str

HEADER = ("target", "what", "ours", "theirs", "ratio", "spread", "goal", "met")


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        target: S1, G1, ….
        what: was measured: ours / theirs.
        unit: of both figures.
        ours: one figure per pair.
        theirs: likewise; None where the goal is for our figure alone.
        goal: "<= 1.08" or ">= 20"; None where a figure is only reported.
    """

    target: str
    what: str
    unit: str
    ours: Figures
    theirs: Figures | None = None
    goal: str | None = None

    def judged(self) -> list[float]:
        """Return what the goal is about: the ratio of each pair, or our figures."""
        if isinstance(self.ours, str) or isinstance(self.theirs, str):
            return []
        if self.theirs is None:
            return self.ours
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def verdict(self) -> str:
        """Whether the goal is met by the median; or why nothing can be said."""
        missing = next((side for side in (self.ours, self.theirs) if isinstance(side, str)), None)
        if missing is not None or self.goal is None:
            return missing or "-"
        sign, bound = self.goal.split()
        value = median(self.judged())
        return "yes" if (value >= float(bound) if sign == ">=" else value <= float(bound)) else "no"

    def cells(self) -> tuple[str, ...]:
        judged = self.judged()
        ratio = number(median(judged)) if judged and self.theirs is not None else "-"
        spread = f"{number(min(judged))}-{number(max(judged))}" if judged else "-"
        sides = (self._median(side) for side in (self.ours, self.theirs))
        return self.target, self.what, *sides, ratio, spread, self.goal or "-", self.verdict

    def _median(self, side: Figures | None) -> str:
        return "-" if side is None or isinstance(side, str) else f"{number(median(side))} {self.unit}".rstrip()


def alternate(blocks: Mapping[str, Block | str], pairs: int, *, warm: bool = True) -> dict[str, Outcome]:
    """Run the blocks in turn, `pairs` times; one that fails leaves the turn and the others go on.

    Args:
        blocks: what to run; a string instead says why it is not run.
        pairs: rounds.
        warm: run a round before that does not count: worker processes start, files are read once.
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


def figures(outcome: Outcome, convert: Callable[[float], float] = float, column: int = 0) -> Figures:
    """Return one of the figures that a block gives, of each pair."""
    return outcome if isinstance(outcome, str) else [convert(values[column]) for values in outcome]


def number(value: float) -> str:
    """Return three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def failure(error: BaseException) -> str:
    """Return what the table says of an error."""
    return f"failed: {' '.join(str(error).replace('|', '/').split()) or type(error).__name__}"[:200]


def markdown(rows: Sequence[Row]) -> str:
    """Return the table."""
    lines = [HEADER, ("---",) * len(HEADER), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
