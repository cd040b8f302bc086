"""A window: the batches of one optimizer step, with what their loss is divided by."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from imgcls.data.batch import Batch, Loader, to_device
from imgcls.engine.run.run import Run


@dataclass(frozen=True)
class Window:
    """The batches of one optimizer step, of this process.

    Attributes:
        batches: (number in the epoch, from 1; batch), loaded when asked for, once: the sixteen batches of a step that
            accumulates so many must not be in memory at once.
        start: how many batches of the epoch come before.
        end: and with these; the number of the last one.
        weight: label weights of all their images, over all processes. The sum of the losses is divided by it, over
            accumulation and processes alike, so that a split batch equals a whole one.
        images: how many there are, over all processes.
        waiting: counts the seconds that the epoch waited for batches.
    """

    batches: Iterable[tuple[int, Batch]]
    start: int
    end: int
    weight: float
    images: int
    waiting: Waiting


class Waiting:
    """Batches, and the seconds they were waited for."""

    def __init__(self, batches: Iterator[Batch], clock: Callable[[], float]) -> None:
        self.batches, self.clock, self.seconds = batches, clock, 0.0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            began = self.clock()
            batch = next(self.batches, None)
            self.seconds += self.clock() - began
            if batch is None:
                return
            yield batch


def windows(
    run: Run, loader: Loader, epoch: int, start: int = 0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Window]:
    """Yield an epoch's windows, each to be used up before the next; what they weigh follows from the order alone.

    Args:
        run: its task says what a label weighs.
        loader: of the training images.
        epoch: counts from 1.
        start: number of the first window, from 0.
        clock: seconds.
    """
    size, bounds = run.config.accumulate, loader.order.bounds
    label_weights = run.task.label_weights(loader.labels[loader.order.of(epoch)])
    weights = np.add.reduceat(label_weights, bounds[:-1][::size])
    waiting = Waiting(loader.epoch(epoch, start * size), clock)
    batches = enumerate(to_device(waiting, run.device), start=start * size + 1)
    for number in range(start, len(weights)):
        first, end = number * size, min((number + 1) * size, len(loader))
        images = bounds[end] - bounds[first]
        yield Window(islice(batches, end - first), first, end, float(weights[number]), images, waiting)


def images_of(run: Run, loader: Loader, epoch: int, number: int) -> list[str]:
    """Return the paths of a window's images, of all processes, as the order tells.

    Args:
        run: whose training images they are.
        loader: of these images.
        epoch: counts from 1.
        number: of the window, from 0.
    """
    order, size = loader.order, run.config.accumulate
    first, end = order.bounds[number * size], order.bounds[min((number + 1) * size, len(order))]
    return [run.inputs.splits.train.images.path(int(index)) for index in order.of(epoch)[first:end]]
