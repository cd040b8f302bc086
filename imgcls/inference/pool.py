"""The decoding pool: images read, decoded and transformed by threads, handed back in order.

Threads, not processes: Pillow releases the interpreter while it decodes and resizes. Knows nothing of networks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from imgcls.errors import ImageError
from imgcls.pixels.decode import Pixels
from imgcls.pixels.transform import read
from imgcls.schema import Preprocess

Decoded = tuple[str, Pixels | ImageError]

HANDFUL = 4  # the first images, for which starting threads is not worth it


def decoded(
    paths: Iterable[str | None], preprocess: Preprocess, workers: int, ahead: int = 128
) -> Iterator[Decoded | None]:
    """Yield (path, uint8 [size, size, 3] or the ImageError) for each path, in order; None is passed on in its place.

    Args:
        paths: read lazily, at most `ahead` beyond what was yielded.
        preprocess: what every image goes through.
        workers: decoding threads; 0 decodes in the calling thread.
        ahead: bound on the images held.
    """
    executor: ThreadPoolExecutor | None = None
    pending: deque[Future[Decoded]] = deque()
    try:
        for number, path in enumerate(paths):
            if path is None:
                yield from (pending.popleft().result() for _ in range(len(pending)))
                yield None
            elif workers == 0 or number < HANDFUL:
                yield _read(path, preprocess)
            else:
                executor = executor or ThreadPoolExecutor(workers, thread_name_prefix="decode")
                pending.append(executor.submit(_read, path, preprocess))
                if len(pending) >= ahead or pending[0].done():
                    yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)


def _read(path: str, preprocess: Preprocess) -> Decoded:
    try:
        return path, read(path, preprocess)
    except ImageError as error:
        return path, error
