"""Batches for the network: uint8 [B, 3, S, S] and int64 [B], in an order and with draws that are functions.

Samplers hand workers (epoch, position, index), so worker count, restarts and persistent workers change nothing.
Knows no devices and no models.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from imgcls.data import draws
from imgcls.data.augment import DRAWS, Augmentation, augment
from imgcls.data.images import Images
from imgcls.data.listing import Listing
from imgcls.errors import DataError, ImageError, ResourceError
from imgcls.inference.pool import available_cpus
from imgcls.pixels.transform import transform
from imgcls.schema import Choice, Preprocess

MOST_WORKERS = 8

Place = tuple[int, int, int]  # epoch, position in the global order, index of the image


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, 3, S, S], labels int64 [B], and `real` bool [B]: False for a rank's filler images."""

    images: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor

    def pin_memory(self) -> Batch:
        """Called by the DataLoader when the batch goes to a CUDA device."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.real.pin_memory())


class Pictures(Dataset[Batch | str]):
    """What runs in a worker: places in, one whole batch out, or the message of the image that failed."""

    def __init__(
        self,
        images: Images,
        labels: npt.NDArray[np.int64],
        preprocess: Preprocess,
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        self.images, self.labels = images, labels
        self.preprocess, self.augmentation, self.seed = preprocess, augmentation, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, places: list[Place]) -> Batch | str:
        """Decode one batch; a position of -1 marks a filler image."""
        epoch, positions = places[0][0], [position for _, position, _ in places]
        uniforms = draws.uniforms(self.seed, epoch, np.maximum(positions, 0), DRAWS)
        size = self.preprocess.size
        pixels = np.empty((len(places), size, size, 3), dtype=np.uint8)
        for row, (_, _, index) in enumerate(places):
            try:
                image = self.images.load(index)
            except ImageError as error:
                return str(error)
            if self.augmentation is None:
                pixels[row] = transform(image, self.preprocess)
            else:
                pixels[row] = augment(image, self.preprocess, self.augmentation, uniforms[row])
        return Batch(
            torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
            torch.from_numpy(self.labels[[index for _, _, index in places]]),
            torch.tensor([position >= 0 for position in positions]),
        )


class Places(Sampler[list[Place]]):
    """The batches of one epoch for one rank: lists of places.

    Training cuts the shuffled order into global batches of `batch_size * ranks` and each of them into near-equal
    shares; a rank left without an image gets a filler, so that all ranks take the same steps and none counts
    twice. A last batch of one image borrows one from the batch before it or is joined to it, because BatchNorm needs
    two. The batches depend on the global batch size alone, so two ranks make those of one.
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, shuffle: bool, rank: int = 0, ranks: int = 1) -> None:
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self.rank, self.ranks, self.epoch = rank, ranks, 0
        step = batch_size * ranks
        self.bounds = [*range(0, count, step), count]
        if shuffle and count % step == 1 and 1 < step < count:
            if step > 2:
                self.bounds[-2] -= 1
            else:
                del self.bounds[-2]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def order(self, epoch: int) -> draws.Integers:
        """Return the global order of an epoch, int64 [count]."""
        return draws.order(self.seed, epoch, self.count) if self.shuffle else np.arange(self.count)

    def __iter__(self) -> Iterator[list[Place]]:
        order = self.order(self.epoch)
        for start, stop in zip(self.bounds, self.bounds[1:], strict=False):
            cuts = [start + (stop - start) * part // self.ranks for part in (self.rank, self.rank + 1)]
            mine = [(self.epoch, position, int(order[position])) for position in range(*cuts)]
            yield mine or [(self.epoch, -1, int(order[start]))]


class Batches:
    """An epoch's batches again and again; `for batch in batches.epoch(3)`."""

    def __init__(
        self,
        listing: Listing,
        preprocess: Preprocess,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        rank: int = 0,
        ranks: int = 1,
        pin_memory: bool = False,
    ) -> None:
        self.listing = listing
        self.places = Places(len(listing.images), batch_size, seed=seed, shuffle=shuffle, rank=rank, ranks=ranks)
        self._workers = min(workers, len(self.places))
        self._loader: DataLoader[Batch | str] = DataLoader(
            Pictures(listing.images, listing.labels, preprocess, augmentation, seed),
            batch_sampler=self.places,
            num_workers=self._workers,
            collate_fn=_whole,
            pin_memory=pin_memory,
            persistent_workers=self._workers > 0,
            worker_init_fn=_worker_signals,
            generator=torch.Generator(),  # else every iterator draws from the global generator
        )

    def __len__(self) -> int:
        return len(self.places)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Raises:
            DataError: an image cannot be read; named.
            ResourceError: a worker process died.
        """
        self.places.epoch = epoch
        try:
            for batch in self._loader:
                if isinstance(batch, str):
                    raise DataError(f"{batch}: replace or remove the file")
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise ResourceError(
                    f"a loader process died ({' '.join(str(error).split())}): memory may be short; lower --workers"
                ) from error
            raise


def choose_workers(asked: int | None, batch_bytes: int, processes: int = 1) -> Choice:
    """Decide how many loader processes to start.

    Args:
        asked: `--workers`, or None.
        batch_bytes: size of one batch; each worker holds up to three in shared memory.
        processes: training processes on this machine that share its CPUs.
    """
    if asked is not None:
        return Choice("workers", asked, "as asked")
    cpus = available_cpus()
    count, reason = min(MOST_WORKERS, max(1, cpus // processes)), f"{cpus} CPUs"
    room = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else None
    if room is not None and room // processes < 3 * count * batch_bytes:
        count = max(0, int(room // processes // (3 * batch_bytes)))
        reason = f"/dev/shm has only {room >> 20} MiB free"
    return Choice("workers", count, reason)


def _whole(batch: Any) -> Any:
    return batch


def _worker_signals(worker: int) -> None:
    """Let the main process alone answer Ctrl-C; a worker ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
