"""The decoding pool: images read, decoded and transformed by threads, handed back in order.

Threads, not processes: Pillow releases the interpreter while it decodes and resizes. Knows nothing of networks.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgcls.errors import ImageError, UsageError
from imgcls.pixels.decode import Pixels, in_memory
from imgcls.pixels.transform import read, transform
from imgcls.schema import Preprocess

Picture = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]  # the path of a file, or what is in memory already
Decoded = tuple[str, Pixels | ImageError]

HANDFUL = 4  # the first images, for which starting threads is not worth it


def decoded(
    pictures: Iterable[Picture | None], preprocess: Preprocess, workers: int, ahead: int = 128
) -> Iterator[Decoded | None]:
    """Yield (name, uint8 [size, size, 3] or the ImageError) for each picture, in order; None is passed on in its place.

    Args:
        pictures: read lazily, at most `ahead` beyond what was yielded.
        preprocess: what every image goes through.
        workers: decoding threads; 0 decodes in the calling thread.
        ahead: bound on the images held.
    """
    executor: ThreadPoolExecutor | None = None
    pending: deque[Future[Decoded]] = deque()
    try:
        for number, picture in enumerate(pictures):
            if picture is None:
                yield from (pending.popleft().result() for _ in range(len(pending)))
                yield None
            elif workers == 0 or number < HANDFUL:
                yield _read(number, picture, preprocess)
            else:
                executor = executor or ThreadPoolExecutor(workers, thread_name_prefix="decode")
                pending.append(executor.submit(_read, number, picture, preprocess))
                if len(pending) >= ahead or pending[0].done():
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


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
