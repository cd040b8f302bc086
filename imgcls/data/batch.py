"""Batches for the network, the face of what loads them, and their way to a device. Knows no images and no models."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from imgcls.data.draws import Integers
from imgcls.data.order import Order


@dataclass(frozen=True)
class Batch:
    """What goes through the network at once.

    Attributes:
        images: uint8 [B, 3, S, S], channels last in memory; or features float32 [B, …].
        labels: int64 [B].
        real: bool [B]; False for fillers.
    """

    images: torch.Tensor
    labels: torch.Tensor
    real: torch.Tensor

    def pin_memory(self) -> Batch:
        """Return it in memory from which a CUDA device copies without waiting; torch's DataLoader calls this too."""
        return Batch(self.images.pin_memory(), self.labels.pin_memory(), self.real.pin_memory())

    def share_memory(self) -> Batch:
        """Return it in memory that processes share.

        torch does so anyway when it hands a batch over, but in a thread whose errors nobody hears of.
        """
        for part in (self.images, self.labels, self.real):
            part.share_memory_()  # type: ignore[no-untyped-call]
        return self

    def to(self, device: torch.device) -> Batch:
        """Return it on a device, without waiting for the copy."""
        return Batch(*(part.to(device, non_blocking=True) for part in (self.images, self.labels, self.real)))


class Loader(Protocol):
    """An epoch's batches again and again; `for batch in loader.epoch(3)`. Several epochs may run at once."""

    @property
    def order(self) -> Order:
        """The order of the images, and its cuts."""

    @property
    def labels(self) -> Integers:
        """The labels of all images as they are listed, int64 [n]."""

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept for all epochs; 0 when images are decoded in each."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch that counts from 1, from batch number `start` on, which counts from 0."""


@dataclass(frozen=True)
class Data:
    """What a run trains on and is validated by.

    Attributes:
        train: in another order in each epoch.
        val: as they are listed; None: no validation.
        features: whether the batches are features of a frozen backbone, not images.
    """

    train: Loader
    val: Loader | None = None
    features: bool = False

    @classmethod
    def of(cls, loaders: Sequence[Loader], features: bool = False) -> Data:
        """Make it from what `loaders` gives."""
        return cls(loaders[0], loaders[1] if len(loaders) > 1 else None, features)

    @property
    def loaders(self) -> list[Loader]:
        """Those that there are, training first."""
        return [self.train] if self.val is None else [self.train, self.val]


def to_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
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
