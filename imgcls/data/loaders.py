"""Batches for the network: uint8 [B, 3, S, S] and int64 [B], in an order and with draws that are functions.

Samplers hand workers (epoch, position, index), so worker count, restarts and persistent workers change nothing.
Knows no devices and no models.
"""

from __future__ import annotations

import copy
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from imgcls.data import draws
from imgcls.data.augment import Augmentation, draw, frame, vary
from imgcls.data.cache import Store
from imgcls.data.listing import Listing
from imgcls.data.pictures import Pictures, unreadable
from imgcls.device import put
from imgcls.errors import ImageError, ResourceError, counted
from imgcls.machine import available_cpus
from imgcls.schema import Choice, Preprocess

MOST_WORKERS = 8

Place = tuple[int, int, int]  # epoch, position in the global order, index of the image


@dataclass(frozen=True)
class Batch:
    """Images uint8 [B, 3, S, S] (channels last in memory), labels int64 [B], `real` bool [B]: False for fillers."""

    images: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor

    def pin_memory(self) -> Batch:
        """Called by the DataLoader when the batch goes to a CUDA device."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.real.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """Return it on a device, without waiting for the copy."""
        return Batch(*(part.to(device, non_blocking=True) for part in (self.images, self.labels, self.real)))


class Frames(Dataset[Batch | str]):
    """What runs in a worker: places in, one whole batch out, or the message of the image that failed."""

    def __init__(
        self,
        pictures: Pictures | Store,
        labels: npt.NDArray[np.int64],
        preprocess: Preprocess,
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        self.pictures, self.labels = pictures, labels
        self.preprocess, self.augmentation, self.seed = preprocess, augmentation, seed

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitems__(self, places: list[Place]) -> Batch | str:
        """Make one batch; a position of -1 marks a filler image."""
        epoch, positions, indices = _columns(places)
        size, augmentation = self.preprocess.size, self.augmentation
        draws = None if augmentation is None else draw(augmentation, self.seed, epoch, positions, indices)
        images = torch.empty((len(places), size, size, 3), dtype=torch.uint8)
        rows = images.numpy()
        for row, index in enumerate(indices.tolist()):
            try:
                pixels = self.pictures[index]
            except ImageError as error:
                return str(error)
            if augmentation is not None and draws is not None:
                pixels = frame(pixels, self.preprocess, augmentation, draws[row])
            rows[row] = pixels
        if augmentation is not None and draws is not None:
            images = vary(images, self.preprocess, augmentation, draws)
        return Batch(
            images.permute(0, 3, 1, 2),
            torch.from_numpy(self.labels[indices]),
            torch.from_numpy(positions >= 0),
        )


class Places(Sampler[list[Place]]):
    """The batches of one epoch for one rank: lists of places.

    Training cuts the shuffled order into global batches of `batch_size * ranks` and each of them into near-equal
    shares; a rank left without an image gets a filler, so that all ranks take the same steps and none counts
    twice. Where the last global batch would have fewer than `smallest` images, as BatchNorm needs them, the last two
    share theirs evenly, or are one if these are too few for two. All others depend on the global batch size alone, so
    two ranks make those of one. (A run of a version that cut otherwise goes on with these last two batches.)
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        ranks: int = 1,
        smallest: int = 2,
    ) -> None:
        self.count, self.seed, self.shuffle = count, seed, shuffle
        self.rank, self.ranks, self.epoch = rank, ranks, 0
        step = batch_size * ranks
        self.bounds = [*range(0, count, step), count]
        rest = count % step
        if shuffle and 0 < rest < smallest and 1 < step < count:
            if step + rest >= 2 * smallest:
                self.bounds[-2] -= (step - rest) // 2
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
    """An epoch's batches again and again; `for batch in batches.epoch(3)`.

    Loader processes make them from files or from a store; frames in memory are batched without, on their device.
    """

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
        smallest: int = 2,
        pin_memory: bool = False,
    ) -> None:
        self.listing = listing
        self.pictures = Pictures(listing.images, preprocess, augmentation)
        self.places = Places(
            len(listing.images), batch_size, seed=seed, shuffle=shuffle, rank=rank, ranks=ranks, smallest=smallest
        )
        self.seed, self.workers = seed, min(workers, len(self.places))
        self._batch_size, self._pin_memory = batch_size, pin_memory
        self._held: torch.Tensor | None = None
        self._load_from(self.pictures)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def cached(self) -> bool:
        """Whether nothing is decoded in an epoch."""
        return self.nbytes > 0

    @property
    def nbytes(self) -> int:
        """Bytes of what is held; 0 when images are decoded for each epoch."""
        if self._held is not None:
            return self._held.nbytes
        return self._source.pixels.nbytes if isinstance(self._source, Store) else 0

    def from_store(self, store: Store, device: torch.device) -> Batches:
        """Return the same batches made from a store: on `device` where its frames need no more than `vary`."""
        augmentation = self.pictures.augmentation
        if self.pictures.shorter is None and not (augmentation and augmentation.kind == "strong"):
            return self.from_tensor(torch.from_numpy(store.frames()).to(device))
        batches = copy.copy(self)
        batches._load_from(store)
        return batches

    def in_order(self) -> Batches:
        """Return all images in order, for one process alone."""
        batches = copy.copy(self)
        batches.places = Places(len(self.listing.images), self._batch_size, seed=self.seed, shuffle=False)
        if self._held is None:
            batches._load_from(self._source)
        return batches

    def from_tensor(self, held: torch.Tensor) -> Batches:
        """Return the same batches made from frames uint8 [n, S, S, 3], or from features float32 [n, …], in memory."""
        batches = copy.copy(self)
        batches._held = held
        return batches

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch.

        Raises:
            DataError: an image cannot be read; named.
            ResourceError: a worker process died.
        """
        self.places.epoch = epoch
        if self._held is not None:
            yield from self._from_memory(self._held)
            return
        try:
            with _without_advice():
                batches = iter(self._loader)
            for batch in batches:
                if isinstance(batch, str):
                    raise unreadable(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise ResourceError(
                    f"a loader process died ({' '.join(str(error).split())}): memory may be short; lower --workers"
                ) from error
            raise

    def _load_from(self, pictures: Pictures | Store) -> None:
        self._source = pictures
        preprocess, augmentation = self.pictures.preprocess, self.pictures.augmentation
        # Forked workers share a store; started in another way each would get a copy, so then there are none.
        forked = isinstance(pictures, Store)
        workers = 0 if forked and sys.platform != "linux" else self.workers
        with _without_advice():
            self._loader: DataLoader[Batch | str] = DataLoader(
                Frames(pictures, self.listing.labels, preprocess, augmentation, self.seed),
                batch_sampler=self.places,
                num_workers=workers,
                collate_fn=_whole,
                pin_memory=self._pin_memory,
                persistent_workers=workers > 0,
                worker_init_fn=_worker_signals,
                multiprocessing_context="fork" if forked and workers > 0 else None,
                generator=torch.Generator(),  # else every iterator draws from the global generator
            )

    def _from_memory(self, held: torch.Tensor) -> Iterator[Batch]:
        labels = torch.from_numpy(self.listing.labels).to(held.device)
        for places in self.places:
            with _one_thread():
                batch = self._chosen(held, labels, places)
            yield batch.pin_memory() if self._pin_memory and not held.is_cuda else batch

    def _chosen(self, held: torch.Tensor, labels: torch.Tensor, places: list[Place]) -> Batch:
        epoch, positions, indices = _columns(places)
        chosen = put(np.ascontiguousarray(indices), held.device)
        # 6 times sooner than indexing, which features need: it keeps channels last, the order in which dropout draws.
        images = held.index_select(0, chosen) if held.dtype == torch.uint8 else held[chosen]
        augmentation = self.pictures.augmentation
        if augmentation is not None and held.dtype == torch.uint8:
            draws = draw(augmentation, self.seed, epoch, positions, indices)
            images = vary(images, self.pictures.preprocess, augmentation, draws)
        if held.dtype == torch.uint8:
            images = images.permute(0, 3, 1, 2)
        return Batch(images, labels.index_select(0, chosen), put(positions >= 0, held.device))


def moved(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device; on CUDA they are copied beside the computation, on a stream of their own."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device)
        return
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    for batch in batches:
        with torch.cuda.stream(copying):
            there = batch.to(device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        for part in (there.images, there.labels, there.real):
            part.record_stream(computing)  # else its memory could be reused while the network still reads it
        yield there


@contextmanager
def _without_advice() -> Iterator[None]:
    """Silence torch about more workers than CPUs; `choose_workers` says it in our words."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Do what is too small to share: beside other work two threads make 10,000 images/s of 32 px, one 130,000."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _columns(places: list[Place]) -> tuple[int, draws.Integers, draws.Integers]:
    """Return the epoch, the positions and the indices of a batch's places, int64 [B]."""
    _, positions, indices = np.array(places, dtype=np.int64).T
    return places[0][0], positions, indices


def choose_workers(asked: int | None, batch_bytes: int, processes: int = 1) -> Choice:
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


def _whole(batch: Any) -> Any:
    return batch


def _worker_signals(worker: int) -> None:
    """Let the main process alone answer Ctrl-C; a worker ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
