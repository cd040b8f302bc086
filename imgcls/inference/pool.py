"""Work that threads do in order, such as decoding: images read, decoded and transformed.

Threads, not processes: Pillow releases the interpreter while it decodes and resizes.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgcls.errors import ImageError, UsageError
from imgcls.pixels.decode import Pixels, in_memory
from imgcls.pixels.transform import read, transform
from imgcls.schema import Preprocess

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]  # the path of a file, or what is in memory already
Decoded = tuple[str, Pixels | ImageError]
Item = TypeVar("Item")
Result = TypeVar("Result")

HANDFUL = 4  # images for which it is not worth it to start threads, or to optimise a network


def ordered(function: Callable[[Item], Result], items: Iterable[Item], workers: int, ahead: int) -> Iterator[Result]:
    """Yield what a function makes of each item, in their order, computed by threads.

    Args:
        function: what it raises comes in its turn.
        items: read lazily, at most `ahead` beyond what was yielded.
        workers: threads; 0: the calling one.
        ahead: bound on the results that wait.
    """
    if workers == 0:
        yield from map(function, items)
        return
    pending: deque[Future[Result]] = deque()
    executor = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) >= ahead or pending[0].done():
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)


def decoded(pictures: Iterable[Picture], preprocess: Preprocess, workers: int, ahead: int = 128) -> Iterator[Decoded]:
    """Yield (name, uint8 [size, size, 3] or the ImageError) for each picture, in order.

    Args:
        pictures: read lazily, at most `ahead` beyond what was yielded.
        preprocess: what every image goes through.
        workers: decoding threads; 0 decodes in the calling thread.
        ahead: bound on the images held.
    """

    def numbered(item: tuple[int, Picture]) -> Decoded:
        return _read(*item, preprocess)

    items = enumerate(pictures)
    yield from map(numbered, islice(items, HANDFUL))
    yield from ordered(numbered, items, workers, ahead)


def _read(number: int, picture: Picture, preprocess: Preprocess) -> Decoded:
    name = f"image {number}"
    try:
        if isinstance(picture, (str, os.PathLike)):
            name = os.fspath(picture)
            return name, read(name, preprocess)
        if isinstance(picture, (Image.Image, np.ndarray)):
            name = os.fsdecode(getattr(picture, "filename", "") or name)
            return name, transform(in_memory(picture, name, preprocess.shorter), preprocess)
    except ImageError as error:
        return name, error
    raise UsageError(
        f"{name} is {type(picture).__name__}: give a path, a PIL image or an array uint8 [height, width, 3]"
    )
