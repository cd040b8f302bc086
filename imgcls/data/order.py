"""In which order an epoch visits the images, and how it is cut into batches: values and functions, nothing to save.

Knows neither pictures nor loaders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from imgcls.data import draws
from imgcls.data.draws import Integers


class Selection(NamedTuple):
    """The images of one batch in one process.

    Attributes:
        epoch: counts from 1.
        positions: in the order of the epoch, int64 [B]; -1 for a filler.
        indices: of the images, int64 [B].
    """

    epoch: int
    positions: Integers
    indices: Integers


@dataclass(frozen=True)
class Order:
    """The batches of every epoch, for all processes together.

    Training cuts the shuffled order into global batches of `batch_size * ranks` and each of them into near-equal
    parts; a rank left without an image gets a filler, so that all ranks take the same steps and none counts
    twice. Where the last global batch would have fewer than `smallest` images, as BatchNorm needs them, the last two
    are cut evenly, or are one if these are too few for two. All others depend on the global batch size alone, so
    two ranks make those of one. (A run of a version that cut otherwise goes on with these last two batches.)

    Attributes:
        count: images.
        batch_size: images per batch of one process.
        seed: of the run.
        shuffle: another order in each epoch, as for training; else as they are listed, and no batch is recut.
        ranks: processes.
        smallest: images in a training batch of all processes.
    """

    count: int
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    ranks: int = 1
    smallest: int = 2

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self.bounds) - 1

    @cached_property
    def bounds(self) -> tuple[int, ...]:
        """Where the batches of all processes begin in the order, and where the last one ends."""
        step = self.batch_size * self.ranks
        bounds = [*range(0, self.count, step), self.count]
        rest = self.count % step
        if self.shuffle and 0 < rest < self.smallest and 1 < step < self.count:
            if step + rest >= 2 * self.smallest:
                bounds[-2] -= (step - rest) // 2
            else:
                del bounds[-2]
        return tuple(bounds)

    def of(self, epoch: int) -> Integers:
        """Return the indices of the images in the order of an epoch, int64 [count]."""
        return draws.order(self.seed, epoch, self.count) if self.shuffle else np.arange(self.count)

    def batches(self, epoch: int, rank: int = 0, start: int = 0) -> Iterator[Selection]:
        """Yield the batches of one process in an epoch, from batch number `start` on (counts from 0)."""
        order, positions = self.of(epoch), np.arange(self.count)
        for begin, end in zip(self.bounds[start:], self.bounds[start + 1 :], strict=False):
            first, last = (begin + (end - begin) * part // self.ranks for part in (rank, rank + 1))
            if first < last:
                yield Selection(epoch, positions[first:last], order[first:last])
            else:
                yield Selection(epoch, np.array([-1]), order[begin : begin + 1])
