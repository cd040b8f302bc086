"""Batches of what is in memory already, on the CPU or a GPU: frames, and the features of a frozen backbone.

Without loader processes: whole batches are gathered and varied at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from imgcls.data.augment.recipe import Augmentation
from imgcls.data.batch import Batch
from imgcls.data.cache import Store
from imgcls.data.draws import Integers
from imgcls.data.files import FileLoader
from imgcls.data.order import Order
from imgcls.device import put


@dataclass(frozen=True, eq=False)
class FrameLoader:
    """Batches of frames.

    Attributes:
        frames: of all images, uint8 [n, S, S, 3], on any device.
        labels: int64 [n].
        order: of the images.
        augmentation: of training images, which needs no more than frames; None: evaluated ones.
        rank: of this process.
        pin_memory: for a CUDA device that the frames are not on.
    """

    frames: torch.Tensor
    labels: Integers
    order: Order
    augmentation: Augmentation | None = None
    rank: int = 0
    pin_memory: bool = False

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of the frames."""
        return self.frames.nbytes

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `start` on."""
        labels = torch.from_numpy(self.labels).to(self.frames.device)
        for selection in self.order.batches(epoch, self.rank, start):
            with _one_thread():
                chosen = put(selection.indices, self.frames.device)
                images = self.frames.index_select(0, chosen)  # 6 times sooner than `self.frames[chosen]`
                if self.augmentation is not None:
                    draws = self.augmentation.draw(self.order.seed, *selection)
                    images = self.augmentation.vary(images, draws)
                real = put(selection.positions >= 0, self.frames.device)
                batch = Batch(images.permute(0, 3, 1, 2), labels.index_select(0, chosen), real)
            yield batch.pin_memory() if self.pin_memory else batch


@dataclass(frozen=True, eq=False)
class FeatureLoader:
    """Batches of what a frozen backbone makes of the images, the same in every epoch.

    Attributes:
        features: of all images, float32 [n, …], on the device of the network.
        labels: int64 [n].
        order: of the images.
        rank: of this process.
    """

    features: torch.Tensor
    labels: Integers
    order: Order
    rank: int = 0

    def __len__(self) -> int:
        return len(self.order)

    @property
    def nbytes(self) -> int:
        """Bytes of the features."""
        return self.features.nbytes

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch number `start` on."""
        labels = torch.from_numpy(self.labels).to(self.features.device)
        for selection in self.order.batches(epoch, self.rank, start):
            with _one_thread():
                chosen = put(selection.indices, self.features.device)
                # Unlike `index_select`, indexing keeps channels last in memory, the order in which dropout draws.
                images = self.features[chosen]
                real = put(selection.positions >= 0, self.features.device)
                batch = Batch(images, labels.index_select(0, chosen), real)
            yield batch


def from_store(loader: FileLoader, store: Store, device: torch.device) -> FileLoader | FrameLoader:
    """Return the same batches made from a store: on `device`, unless pictures are cropped or recoloured one by one."""
    pictures, augmentation = loader.pictures, loader.augmentation
    if pictures.shorter is not None or (augmentation is not None and not augmentation.on_gpu):
        return replace(loader, store=store)
    return FrameLoader(
        torch.from_numpy(store.frames()).to(device),
        loader.labels,
        loader.order,
        augmentation,
        rank=loader.rank,
        pin_memory=loader.pin_memory and device.type != "cuda",
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Do what is too small for two: beside other work two threads make 10,000 images/s of 32 px, one 130,000."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
