"""The automatic choices of a run, each typed and with its reason; the header prints them in this order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from imgcls.schema import Choice


@dataclass(frozen=True, kw_only=True)
class DecidedInputs:
    """How images become the network's input; what stands in the checkpoint of a run that is resumed is not decided."""

    size: Choice[int] | None = None
    weights: Choice[str] | None = None
    statistics: Choice[str] | None = None
    flip: Choice[bool] | None = None
    workers: Choice[int] | None = None


@dataclass(frozen=True, kw_only=True)
class Decided:
    """How the network learns."""

    device: Choice[str]
    threads: Choice[int]
    precision: Choice[str]
    inputs: DecidedInputs
    cache: Choice[str]
    stem: Choice[str]
    lr: Choice[float]
    warmup_steps: Choice[int]


def choices(decided: Decided | DecidedInputs) -> Iterator[Choice[Any]]:
    """Yield what was decided, in the order of the fields."""
    for item in fields(decided):
        value = getattr(decided, item.name)
        if isinstance(value, DecidedInputs):
            yield from choices(value)
        elif value is not None:
            yield value
