"""Batches from image files, or from a store of what was decoded of them, made by loader processes.

What runs in a loader process is `BatchDataset`. Each is handed selections (epoch, positions, indices), so worker
count, restarts and processes that live on change nothing. Knows no devices and no models.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch.utils.data import get_worker_info

from imgcls.data.augment.recipe import Augmentation
from imgcls.data.batch import Batch
from imgcls.data.cache import Store
from imgcls.data.draws import Integers
from imgcls.data.order import Order, Selection
from imgcls.data.pictures import Pictures, unreadable
from imgcls.data.processes import IDLE, Processes, Signing
from imgcls.errors import ImageError, counted
from imgcls.machine import available_cpus
from imgcls.schema import Choice

MOST_WORKERS = 8


class BatchDataset(Signing):
    """What runs in a loader process: a selection in, one whole batch out, or the message of the image that failed.

    Args:
        pictures: of a split, which know the transform and the augmentation.
        store: the same, decoded; None: they are decoded when asked for.
        labels: int64 [n].
        seed: of the run.
    """

    def __init__(self, pictures: Pictures, store: Store | None, labels: Integers, seed: int) -> None:
        self.source = pictures if store is None else store
        self.preprocess = pictures.preprocess
        self.augmentation = pictures.augmentation
        self.labels = labels
        self.seed = seed

    def __getitem__(self, selection: Selection) -> Batch | str:
        """Make one batch."""
        epoch, positions, indices = selection
        size, augmentation = self.preprocess.size, self.augmentation
        draws = augmentation.draw(self.seed, epoch, positions, indices) if augmentation else {}
        images = torch.empty((len(indices), size, size, 3), dtype=torch.uint8)
        rows = images.numpy()
        for row, index in enumerate(indices.tolist()):
            self.at(index)
            try:
                pixels = self.source[index]
            except ImageError as error:
                return str(error)
            rows[row] = augmentation.frame(pixels, draws, row) if augmentation else pixels
        if augmentation:
            images = augmentation.vary(images, draws)
        self.at(IDLE)
        labels, real = torch.from_numpy(self.labels[indices]), torch.from_numpy(positions >= 0)
        batch = Batch(images.permute(0, 3, 1, 2), labels, real)
        return batch if get_worker_info() is None else batch.share_memory()


@dataclass(frozen=True, eq=False)
class FileLoader:
    """Batches of a split's pictures.

    Attributes:
        pictures: of the split, as they are decoded in each epoch.
        labels: int64 [n].
        order: of the images.
        rank: of this process.
        workers: loader processes at most; 0: this process makes the batches.
        pin_memory: for a CUDA device.
        store: the pictures decoded; nothing is read from files then.
    """

    pictures: Pictures
    labels: Integers
    order: Order
    rank: int = 0
    workers: int = 0
    pin_memory: bool = False
    store: Store | None = None
    _resting: list[Processes] = field(default_factory=list, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of the store; 0 when images are decoded for each epoch."""
        return 0 if self.store is None else self.store.pixels.nbytes

    @property
    def augmentation(self) -> Augmentation | None:
        """What may happen to a training image; None: evaluated ones."""
        return self.pictures.augmentation

    @property
    def processes(self) -> int:
        """How many loader processes there are: no more than batches."""
        # Forked ones share a store; started in another way each would get a copy, so then there are none.
        can_share = self.store is None or sys.platform == "linux"
        return min(self.workers, len(self.order)) if can_share else 0

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `start` on.

        Raises:
            DataError: an image cannot be read; named.
            ResourceError: a loader process died or hangs, or cannot hand its batch over.
        """
        selections = partial(self.order.batches, epoch, self.rank, start)
        left = len(self.order) - start
        for batch in self._by_processes(selections, left) if self.processes else self._here(selections):
            if isinstance(batch, str):
                raise unreadable(batch, self.pictures.images)
            yield batch

    def _here(self, selections: Callable[[], Iterator[Selection]]) -> Iterator[Batch | str]:
        dataset = self._dataset()
        for selection in selections():
            batch = dataset[selection]
            yield batch.pin_memory() if self.pin_memory and isinstance(batch, Batch) else batch

    def _by_processes(self, selections: Callable[[], Iterator[Selection]], left: int) -> Iterator[Batch | str]:
        # Processes that live on make one epoch at a time; another one at the same time starts some of its own.
        processes = self._resting.pop() if self._resting else self._processes()
        try:
            for batch in processes.batches(selections):
                left -= 1
                yield batch
        finally:
            if left == 0:
                self._resting[:] = [processes]
            else:
                processes.kill()

    def _dataset(self) -> BatchDataset:
        return BatchDataset(self.pictures, self.store, self.labels, self.order.seed)

    def _processes(self) -> Processes:
        fork = self.store is not None
        return Processes(self._dataset(), self.processes, self.pin_memory, self.pictures.images.path, fork)


def choose_workers(asked: int | None, batch_bytes: int, processes: int = 1) -> Choice[int]:
    """Decide how many loader processes to start.

    Args:
        asked: `--workers`, or None.
        batch_bytes: size of one batch; each worker holds up to three in shared memory.
        processes: training processes on this machine that share its CPUs.
    """
    cpus = available_cpus()
    if asked is not None:
        few = f"; more than the {counted(cpus, 'CPU')} only take memory" if asked * processes > cpus else ""
        return Choice("workers", asked, f"as asked{few}")
    count, reason = min(MOST_WORKERS, max(1, cpus // processes)), counted(cpus, "CPU")
    room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
    if room is not None and room // processes < 3 * count * batch_bytes:
        count = max(0, int(room // processes // (3 * batch_bytes)))
        reason = f"/dev/shm has only {room >> 20} MiB free"
    return Choice("workers", count, reason)
