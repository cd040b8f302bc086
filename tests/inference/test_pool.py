"""The decoding pool: in order, errors in their own place, reading no further ahead than it must."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from drawing import draw_tree
from PIL import Image

from imgcls.errors import ImageError
from imgcls.inference.pool import HANDFUL, decoded, ordered
from imgcls.pixels.decode import decode
from imgcls.pixels.transform import transform
from imgcls.schema import Preprocess

PREPROCESS = Preprocess(size=16, resize=18)


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_ordered_work_comes_in_order_whatever_takes_longest(workers: int, ahead: int) -> None:
    def slowly(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number**2

    assert list(ordered(slowly, range(20), workers, ahead)) == [number**2 for number in range(20)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_the_function_raises_comes_in_its_turn(workers: int) -> None:
    stream = ordered(lambda number: 6 // (3 - number), iter(range(10)), workers, 8)
    assert [next(stream) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(stream)


def test_several_threads_work_at_once() -> None:
    barrier = threading.Barrier(3, timeout=20)

    def together(number: int) -> int:
        barrier.wait()
        return number

    assert list(ordered(together, range(9), 3, 9)) == list(range(9))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Thirty pictures, every seventh of them damaged."""
    folder = draw_tree(tmp_path_factory.mktemp("pool"), {"all": 30}) / "all"
    files = sorted(folder.iterdir())
    for path in files[::7]:
        path.write_bytes(path.read_bytes()[:100])
    return [str(path) for path in files]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 30])
def test_answers_come_in_order_with_each_error_in_its_place(paths: list[str], workers: int, count: int) -> None:
    answers = list(decoded(iter(paths[:count]), PREPROCESS, workers, ahead=4))
    assert [path for path, _ in answers] == paths[:count]
    for number, (path, pixels) in enumerate(answers):
        if number % 7 == 0:
            assert isinstance(pixels, ImageError)
            assert str(pixels).startswith(path)
        else:
            assert np.array_equal(np.asarray(pixels), transform(decode(path), PREPROCESS))


def test_paths_are_read_lazily(tmp_path: Path) -> None:
    """A million paths on standard input must not become a million pictures in memory."""
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield str(tmp_path / "a.png")

    stream = decoded(endless(), PREPROCESS, workers=2, ahead=8)
    for _ in range(50):
        next(stream)
    assert read <= 50 + 8 + 1
    stream.close()  # type: ignore[attr-defined]


def test_a_handful_of_images_starts_no_threads(paths: list[str]) -> None:
    before = set(threading.enumerate())
    for _ in decoded(paths[1:4], PREPROCESS, workers=4):
        assert set(threading.enumerate()) <= before


def test_an_abandoned_stream_ends_its_threads(paths: list[str]) -> None:
    stream = decoded(paths, PREPROCESS, workers=2, ahead=8)
    for _ in range(HANDFUL + 1):
        next(stream)
    workers = [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert workers
    stream.close()  # type: ignore[attr-defined]
    for thread in workers:
        thread.join(10)
        assert not thread.is_alive()
