"""Decoded pictures in memory: decided, filled by threads that decode ahead, and indexed like `Pictures`."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from imgcls.data.draws import Integers
from imgcls.data.images import ArrayImages
from imgcls.data.pictures import Pictures
from imgcls.inference.pool import ordered
from imgcls.pixels.decode import Pixels
from imgcls.schema import Choice

MANY, FEW = 32, 4  # small and other images that a thread takes at a time; one by one costs a tenth more for 32 px
AHEAD = 2  # chunks per thread that may wait to be stored
TINY = 64  # pixels; up to this side threads wait for each other: two threads decode 5,800 images/s, one 8,300
MEMORY_FRACTION = 0.5  # of the free memory, that decoded images may take


@dataclass(frozen=True)
class Store:
    """Decoded pictures, one behind the other; indexed like `Pictures`.

    Attributes:
        pixels: uint8 [bytes], in memory or a memory-mapped file.
        layout: int64 [n, 3]: where a picture begins, its height and width.
    """

    pixels: Pixels
    layout: Integers

    def __len__(self) -> int:
        return len(self.layout)

    def __getitem__(self, index: int) -> Pixels:
        start, height, width = self.layout[index].tolist()
        return self.pixels[start : start + 3 * height * width].reshape(height, width, 3)

    def frames(self) -> Pixels:
        """Return all of them as uint8 [n, S, S, 3]; they must be of one size."""
        _, height, width = self.layout[0].tolist()
        return self.pixels[: 3 * len(self) * height * width].reshape(len(self), height, width, 3)


def choose_cache(asked: str | None, parts: Sequence[Pictures], free: int, epochs: int) -> Choice[str]:
    """Decide where decoded images are kept, with the reason.

    Args:
        asked: `--cache`, or None.
        parts: the pictures of each split.
        free: bytes of memory that this process may still take.
        epochs: of the run.
    """
    if asked == "off":
        return Choice("cache", "off", "as asked")
    needed, most = sum(part.bytes() for part in parts), sum(part.most_bytes() for part in parts)
    size = f"the images take {needed / 2**30:.2g} GiB decoded"
    if asked == "disk" and isinstance(parts[0].images, ArrayImages):
        return Choice("cache", "memory", f"the data set is an array in memory already; {size}")
    if asked is not None:
        return Choice("cache", asked, f"as asked; {size}")
    if epochs == 1:
        return Choice("cache", "off", "a single epoch decodes once anyway")
    if most > MEMORY_FRACTION * free:
        size = f"the images may take {most / 2**30:.2g} GiB decoded"
        return Choice("cache", "off", f"{size}, half of the free memory is {MEMORY_FRACTION * free / 2**30:.2g} GiB")
    return Choice("cache", "memory", f"{size}, {free / 2**30:.2g} GiB are free")


def decoded(pictures: Pictures, threads: int) -> Iterator[list[Pixels]]:
    """Return all pictures in order, decoded by threads, some at a time.

    Raises:
        ImageError: naming the first that cannot be read.
    """
    tiny = median(max(size) for size in pictures.sampled_sizes()) <= TINY
    threads, size = (1, MANY) if tiny else (max(1, threads), FEW)

    def chunk(start: int) -> list[Pixels]:
        return [pictures[index] for index in range(start, min(start + size, len(pictures)))]

    return ordered(chunk, range(0, len(pictures), size), threads, AHEAD * threads)


def in_memory(pictures: Pictures, threads: int, limit: int, progress: Callable[[int], None]) -> Store | None:
    """Decode all pictures into one array.

    Args:
        pictures: of a split.
        threads: that decode.
        limit: bytes at most.
        progress: receives the number of images done, and may raise.

    Returns:
        The store, or None when they do not fit.

    Raises:
        ImageError: naming the first that cannot be read.
    """
    try:
        # A mapping of its own takes memory only as it is filled, and gives all back when it is dropped.
        pixels = np.frombuffer(mmap.mmap(-1, limit), dtype=np.uint8)
    except (OSError, ValueError):  # more than there is, or nothing
        return None
    layout = np.empty((len(pictures), 3), dtype=np.int64)
    done = end = 0
    for some in decoded(pictures, threads):
        for picture in some:
            if end + picture.size > limit:
                return None
            pixels[end : end + picture.size] = picture.reshape(-1)
            layout[done] = end, *picture.shape[:2]
            done, end = done + 1, end + picture.size
        progress(done)
    return Store(pixels[:end], layout)
